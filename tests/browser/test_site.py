"""A site without a server, opened in a real browser from Python's own static host: it finds what the server finds."""

import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from torch.nn import functional as F

from freemvmt.config import HYBRID_WEIGHT, ModelConfig
from freemvmt.export.site.export import export_site, restored
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.explain import explain
from freemvmt.search.index.analysis import words_of
from freemvmt.search.index.exact import top_k
from freemvmt.search.index.fusion import fuse
from freemvmt.search.lazy_model import LazyModel
from freemvmt.search.retriever import Retriever

from browser import Visits, ask, ids, settle
from page_site import FOREIGN, HOSTILE_ID, documents, documents_of, unpacked
from static_host import hosting

DIM = 24
QUERIES = [
    "harvest and velocity",
    "finance",
    "harvest velocity always over canyon",
    "the ÉTÉ of 東京",
    "hostile <b>",
    "?",
]
MODULE = "const load = (name) => import(new URL(`page/${name}.js`, location.href));"
OPEN = f"async () => {{ {MODULE} window.search = await (await load('search')).open(); await search.complete(); }}"


@pytest.fixture(scope="module")
def exported(site_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the bundle that the served page is tested with."""
    folder = tmp_path_factory.mktemp("host") / "some" / "path"
    export_site(site_bundle, folder, dim=DIM)
    return folder


@pytest.fixture(scope="module")
def address(exported: Path) -> Iterator[str]:
    """Where it is hosted: below a path."""
    with hosting(exported.parent.parent) as host:
        yield f"{host}/some/path/"


@pytest.fixture
def page(visits: Visits, address: str) -> Page:
    """The page, its search in ``window.search``."""
    page = visits(address)
    page.evaluate(OPEN)
    return page


@pytest.fixture(scope="module")
def retriever(site_bundle: Path) -> Retriever:
    return Retriever.load(site_bundle)


def random_texts(count: int) -> list[str]:
    """Texts that tokenizers part ways on: marks, scripts, all planes of Unicode, special tokens, very long words."""
    draw = random.Random(0)
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    pools = [
        every[32:127], every[:0x300], [*every[0x300:0x370], *"aeinouy "], every[0x4E00:0x4E40], every,
        every[0x2000:0x3000], list("가각한글ภาษาไทยहिन्दीעברית"),
        [*"\u302e\u302f\u034f\ufe0f\u200d\u1b44\u08d3\u1ab0\u05b0\u0323\u1dfa\u1df6a"],
    ]  # fmt: skip
    whole = ["[CLS]", "[MASK]", "[UNK]", "x" * 100, "y" * 101, "z" * 300, "wörd river " * 150, "👩‍👩‍👧 "]

    def part() -> str:
        if draw.random() < 0.05:
            return draw.choice(whole)
        return "".join(draw.choices(draw.choice(pools), k=draw.randint(0, 15)))

    return ["".join(part() for _ in range(draw.randint(0, 7))) for _ in range(count)]


def test_the_files_hold_nothing_inline_and_load_nothing_from_elsewhere(exported: Path) -> None:
    html = (exported / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:", html)
    assert set(re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', html)) == {
        "page/app.js", "page/style.css", "page/site.css", "./",
    }  # fmt: skip
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in html
    for file in (exported / "page").iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|@import", text)


def test_token_ids_are_those_of_tokenizers(page: Page, retriever: Retriever) -> None:
    texts = random_texts(3000) + [document.content for document in documents_of(retriever)]
    found = page.evaluate("(texts) => texts.map((text) => search.tokenizer.encode(text))", texts)
    assert retriever.model is not None
    tokenizer = retriever.model.tokenizer
    for text, ours in zip(texts, found, strict=True):
        words, tokens = tokenizer.words(text)
        assert ours["ids"] == tokens.ids.tolist(), ascii(text)
        if text.isascii():
            assert ours["words"] == [list(word) for word in words]
        assert sum(count for *_, count in ours["words"]) == len(tokens.ids)


def test_words_are_those_of_the_server(page: Page, retriever: Retriever) -> None:
    assert retriever.model is not None
    known = json.loads(retriever.model.tokenizer.definition)["model"]["vocab"]
    vocabulary = [word for word in known if word.isalpha()]
    draw = random.Random(0)
    stems = "gener commun inter past y yy ing ed eed ly li ation tional ion er ous ness ful ative ies ied ss ogist log"
    made = [
        "".join(draw.choices([*stems.split(), *"aeobkwxsté1", "at", "bl", "tt"], k=draw.randint(1, 5)))
        for _ in range(20_000)
    ]
    texts = [*vocabulary, *made, *random_texts(500)]
    found = page.evaluate("(texts) => texts.map((text) => search.words.analyzed(text))", texts)
    assert [sorted(words) for words in found] == [sorted(words_of(text)) for text in texts]


def test_bm25_scores_are_those_of_the_server(page: Page, retriever: Retriever) -> None:
    found = page.evaluate("(queries) => Promise.all(queries.map((query) => search.words.score(query)))", QUERIES)
    names = [document.id for document in documents_of(retriever)]
    for query, ours in zip(QUERIES, found, strict=True):
        scores = dict(zip((names[row] for row in ours["rows"]), ours["scores"], strict=True))
        theirs = retriever.scores([query], len(names), "bm25")[0]
        assert scores == pytest.approx(theirs, rel=1e-6)


def test_the_ten_best_are_those_of_the_server_at_the_same_precision(
    page: Page, exported: Path, retriever: Retriever
) -> None:
    """The server's own exact search and fusion over the numbers that the site has."""
    assert retriever.model is not None
    documents = documents_of(retriever)
    table = restored(unpacked(exported, "table"), DIM)
    vectors = restored(unpacked(exported, "documents"), DIM)
    tokens = [retriever.model.tokenizer.encode([query]).ids for query in QUERIES]
    queries = F.normalize(torch.stack([table[torch.from_numpy(ids).long()].sum(0) for ids in tokens]))
    dense = top_k(queries, vectors, len(documents))
    number = {document.id: place for place, document in enumerate(documents)}
    lexical = retriever.rank(QUERIES, len(documents), "bm25")
    assert len(number) == len(documents)
    best = {"dense": dense, "bm25": lexical, "hybrid": fuse(dense, lexical, HYBRID_WEIGHT, len(documents))}
    for method, ranking in best.items():
        for query, wanted, scores in zip(QUERIES, ranking.documents, ranking.scores, strict=True):
            found = page.evaluate("([query, method]) => search.rank(query, method, 10)", [query, method])
            kept = wanted >= 0
            assert found["rows"] == wanted[kept][:10].tolist(), (method, query)
            np.testing.assert_allclose(found["scores"], scores[kept][:10], rtol=1e-5, atol=1e-6)


def test_at_full_size_it_finds_what_the_served_bundle_finds(
    visits: Visits, site_bundle: Path, retriever: Retriever, tmp_path: Path
) -> None:
    site = export_site(site_bundle, tmp_path / "site")
    assert site.dim == 48
    assert site.recall > 0.9
    with hosting(tmp_path / "site") as address:
        page = visits(address)
        page.evaluate(OPEN)
        for query in QUERIES[:3]:
            found = page.evaluate("(query) => search.rank(query, 'dense', 10)", query)
            theirs = retriever.rank([query], 10, "dense")
            assert len(set(found["rows"]) & set(theirs.documents[0].tolist())) >= 9
            np.testing.assert_allclose(found["scores"], theirs.scores[0], atol=0.01)


def test_the_shares_of_words_are_those_of_the_server_and_add_up(
    page: Page, exported: Path, retriever: Retriever
) -> None:
    assert isinstance(retriever.model, LazyModel)
    model = retriever.model.whole.cut(torch.eye(DIM, retriever.model.dim))  # another head; the table below has its own
    model.document_head = torch.nn.Identity()
    model.document_tower.table = torch.nn.Parameter(restored(unpacked(exported, "table"), DIM), requires_grad=False)
    model.query_tower, model.query_head = model.document_tower, model.document_head
    documents = documents_of(retriever)
    for query in QUERIES[:4]:
        for document in [*documents[:5], *documents[-4:]]:
            passage = {"heading": document.title, "text": document.text}
            found = page.evaluate(
                "async ([query, passage]) => search.explain(query, await search.encoded(query), passage)",
                [query, passage],
            )
            theirs = explain(model, query, document, lambda: np.empty(0, np.float32))
            assert found["score"] == pytest.approx(theirs.score, abs=1e-5)
            for part in ("title", "text"):
                pieces = getattr(theirs, part)
                assert [piece["text"] for piece in found[part]] == [piece.text for piece in pieces]
                assert [piece["share"] for piece in found[part]] == pytest.approx(
                    [piece.share for piece in pieces], abs=1e-5
                )


def test_it_searches_as_one_types(visits: Visits, address: str, exported: Path) -> None:
    page = visits(address)
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url))
    expect(page.locator(".intro h2")).to_have_text("Search 64 documents")
    page.type("#query", "harvest and velocity")
    expect(page.locator(".column")).to_have_count(3)
    expect(page.locator("#status")).to_have_text("10 hits of 64 documents for harvest and velocity")
    expect(page.locator("#latency")).to_have_text(re.compile(r"^ranked in [\d.]+ ms · shown in [\d.]+ ms$"))
    assert page.locator(".tint").count() > 10
    assert all(url.startswith((address, "data:")) for url in loaded)
    rows = json.loads(unpacked(exported, "ids"))
    found = page.evaluate(
        f"async () => {{ {MODULE} const search = await (await load('search')).open(); "
        "return (await search.rank('harvest and velocity', 'hybrid', 10)).rows; }"
    )
    assert ids(page) == [rows[row] for row in found]
    page.locator(".hit").first.click()
    page.locator("[data-act=like]").first.click()
    expect(page.locator(".source")).to_be_visible()
    first = ids(page)
    page.reload()
    settle(page)
    assert ids(page) == first
    assert len(first) == 10


def test_hostile_and_foreign_documents_are_only_text(visits: Visits, address: str) -> None:
    page = visits(f"{address}?q={quote('hostile')}")
    assert HOSTILE_ID in ids(page, 2)
    ask(page, "foreign")
    assert FOREIGN["id"] in ids(page, 2)


def test_it_can_be_used_by_everyone(visits: Visits, address: str) -> None:
    for scheme in ("light", "dark"):
        page = visits(f"{address}?q=finance", color_scheme=scheme)
        report = Axe().run(page)
        assert report.violations_count == 0, report.generate_report()


def test_what_is_missing_or_damaged_is_said(visits: Visits, exported: Path, tmp_path: Path) -> None:
    visits.refused = True
    shutil.copytree(exported, tmp_path / "site")
    data = tmp_path / "site" / "data"
    with hosting(tmp_path / "site") as address:
        content = (data / "table.bin").read_bytes()
        (data / "table.bin").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        page = visits(f"{address}/?q=finance")
        expect(page.locator("#notice")).to_contain_text("data/table.bin is not what was exported")
        (data / "table.bin").unlink()
        page = visits(f"{address}/?q=finance")
        expect(page.locator("#notice")).to_contain_text("data/table.bin could not be loaded: the host answered 404")
        (data / "table.bin").write_bytes(content)
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".column")).to_have_count(3)
        (tmp_path / "site" / "manifest.json").write_text("{}")
        page = visits(address)
        expect(page.locator("#notice")).to_contain_text("manifest.json is not what was exported")


def test_opened_as_a_file_it_says_how_to_open_it(visits: Visits, exported: Path) -> None:
    page = visits("about:blank", settled=False)
    page.goto((exported / "index.html").as_uri())
    expect(page.locator(".unopened")).to_contain_text("python -m http.server")
    visits.problems.clear()  # the browser says on its console why it loads nothing


@pytest.mark.parametrize("tower", ["recurrent", "apart"])
def test_towers_that_differ(tower: str, tiny_base: str, tmp_path: Path, visits: Visits) -> None:
    """Two tables are both there; where queries cannot be encoded by their tower, the page says so."""
    changes: dict[str, Any] = {"tower": "recurrent", "hidden": 4} if tower == "recurrent" else {"separate_towers": True}
    model = TwoTowersModel(ModelConfig(base=tiny_base, **changes))
    with torch.no_grad():
        for name, weight in model.tensors().items():
            if tower == "apart" and name == "query.table":
                weight.add_(torch.randn_like(weight) * 0.01)
    (tmp_path / "corpus.jsonl").write_text(
        '{"id": "1", "text": "a river"}\n{"id": "2", "text": "mountain tower", "title": "high"}\n', encoding="utf-8"
    )
    build(model, str(tmp_path / "corpus.jsonl"), tmp_path / "bundle")
    export_site(tmp_path / "bundle", tmp_path / "site")
    query = "tower of a river"
    with hosting(tmp_path / "site") as address:
        page = visits(address)
        notice = page.locator(".site-notice")
        if tower == "recurrent":
            expect(notice).to_contain_text("recurrent tower")
        else:
            expect(notice).to_have_count(0)
        ask(page, query)
        assert ids(page) == ["2", "1"] or ids(page) == ["1", "2"]
        assert (page.locator(".tint").count() > 0) == (tower == "apart")
        if tower == "apart":
            found = page.evaluate(
                f"async (query) => {{ {MODULE} const search = await (await load('search')).open(); "
                "await search.complete(); return [...await search.encoded(query)]; }",
                query,
            )
            np.testing.assert_allclose(found, model.encode_queries([query])[0].numpy(), atol=0.01)


def test_documents_of_a_transformer_are_found_by_the_light_query(
    tiny_encoder: str, tmp_path: Path, visits: Visits
) -> None:
    """The ten best, and what each word of the query adds, are the server's over the numbers that the site has."""
    model = TwoTowersModel(ModelConfig(base=tiny_encoder, query_tower="average", document_tower="transformer"))
    with torch.no_grad():
        model.tensors()["query.table"].add_(torch.randn_like(model.tensors()["query.table"]) * 0.05)
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents()), encoding="utf-8")
    build(model, str(tmp_path / "corpus.jsonl"), tmp_path / "bundle", cut=False)
    retriever = Retriever.load(tmp_path / "bundle")
    site = export_site(tmp_path / "bundle", tmp_path / "site")
    assert (site.dim, site.recall > 0.9) == (24, True)
    assert not (tmp_path / "site" / "data" / "document_table.bin").exists()
    table, vectors = (restored(unpacked(tmp_path / "site", name), 24) for name in ("table", "documents"))
    np.testing.assert_allclose(vectors, model.encode_documents([d.content for d in documents_of(retriever)]), atol=0.01)
    tokens = [model.tokenizer.encode([query]).ids for query in QUERIES]
    queries = F.normalize(torch.stack([table[torch.from_numpy(ids).long()].sum(0) for ids in tokens]))
    dense, lexical = top_k(queries, vectors, len(vectors)), retriever.rank(QUERIES, len(vectors), "bm25")
    best = {"dense": dense, "hybrid": fuse(dense, lexical, model.hybrid_weight, len(vectors))}
    with hosting(tmp_path / "site") as address:
        page = visits(address)
        expect(page.locator(".site-notice")).to_have_count(0)
        page.evaluate(OPEN)
        for method, ranking in best.items():
            for query, wanted, scores in zip(QUERIES, ranking.documents, ranking.scores, strict=True):
                found = page.evaluate("([query, method]) => search.rank(query, method, 10)", [query, method])
                assert found["rows"] == wanted[:10].tolist(), (method, query)
                np.testing.assert_allclose(found["scores"], scores[:10], rtol=1e-5, atol=1e-6)
        ask(page, QUERIES[0])
        expect(page.locator(".why").first).to_contain_text(QUERIES[0])
        explained = page.evaluate(
            f"async (query) => {{ {MODULE} const body = {{ query, method: 'dense', k: 5, explain: true }};"
            "return (await (await load('ask')).ask('search', new AbortController().signal, body)).hits; }",
            QUERIES[0],
        )
    for hit in explained:
        theirs = retriever.explain(QUERIES[0], hit["id"])
        assert hit["explanation"]["score"] == pytest.approx(hit["score"], abs=1e-6)
        for part in ("title", "text", "query"):
            pieces = getattr(theirs, part)
            assert [piece["text"] for piece in hit["explanation"][part]] == [piece.text for piece in pieces]
            shares = [piece.share for piece in pieces]
            assert [piece["share"] for piece in hit["explanation"][part]] == pytest.approx(shares, abs=0.01)


RUNTIME = """export const env = { wasm: {} };
export class Tensor { constructor(type, data, dims) { Object.assign(this, { type, data, dims }); } }
export const InferenceSession = { create: async (graph) => ({ run: async ({ input_ids, attention_mask }) => {
  const { type, dims } = input_ids;
  window.given = { size: graph.length, type, dims, mask: attention_mask.data.join(" ") };
  const data = new Float32Array(24);
  data[0] = 1;
  return { embedding: { data } };
} }) };
"""


@pytest.mark.parametrize("documents", ["recurrent", "transformer"])
def test_a_recurrent_query_tower_runs_where_its_runtime_came_along(
    documents: Any, tiny_encoder: str, tmp_path: Path, visits: Visits
) -> None:
    """The runtime is a stand-in here: it gives one vector, and tells what it was given."""
    (tmp_path / "dist").mkdir()
    for name in ("ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        (tmp_path / "dist" / name).write_text("")
    (tmp_path / "dist" / "ort.wasm.min.mjs").write_text(RUNTIME)
    (tmp_path / "corpus.jsonl").write_text('{"id": "1", "text": "a river"}\n', encoding="utf-8")
    model = TwoTowersModel(ModelConfig(base=tiny_encoder, tower="recurrent", document_tower=documents, hidden=4))
    build(model, str(tmp_path / "corpus.jsonl"), tmp_path / "bundle")
    export_site(tmp_path / "bundle", tmp_path / "site", dim=DIM, runtime=tmp_path / "dist")
    assert "'wasm-unsafe-eval'" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    with hosting(tmp_path / "site") as address:
        page = visits(address)
        expect(page.locator(".site-notice")).to_contain_text("runs in this page")
        ask(page, "a river")
        size = (tmp_path / "site" / "data" / "query.onnx").stat().st_size
        assert page.evaluate("window.given") == {"size": size, "type": "int64", "dims": [1, 2], "mask": "1 1"}
