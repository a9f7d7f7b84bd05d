"""Long documents in a site without a server: passages, links to the original pages, and an index in pieces."""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from notes import NEEDLE, index_notes, write_notes
from playwright.sync_api import Page, Route, expect
from torch.nn import functional as F

from freemvmt.data.documents import Document
from freemvmt.export.site import postings, texts
from freemvmt.export.site.export import export_site, restored
from freemvmt.search.index.exact import top_k
from freemvmt.search.index.fusion import fuse
from freemvmt.search.index.ranking import Ranking
from freemvmt.search.methods import best_passages
from freemvmt.search.retriever import Retriever

from browser import Visits, ids, settle
from page_site import unpacked
from rows import ANSWERED, FILLER
from static_host import hosting

QUERIES = ["magnet holds the needle of this compass", ANSWERED[3], f"{ANSWERED[7]} {FILLER[2]}", "said", "?"]
OPEN = (
    "async () => { const { open } = await import(new URL('page/search.js', location.href));"
    "window.search = await open(); await search.complete(); }"
)
ASK = (
    "async ([path, body]) => { const { ask } = await import(new URL('page/ask.js', location.href));"
    "return ask(path, new AbortController().signal, body); }"
)
URL = "https://docs.example.org/{stem}/#{anchor}"


@pytest.fixture(scope="module")
def bundle(tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 41 files, of which every fourth is long, and one document that was added since."""
    place = tmp_path_factory.mktemp("site passages")
    draw = random.Random(0)

    def paragraphs(count: int) -> list[str]:
        """Texts of which no two have the same words."""
        return [f"😀 {draw.choice(ANSWERED)} {' '.join(draw.sample(FILLER, 4))}, said." for _ in range(count)]

    texts = []
    for number in range(40):
        text = "\n\n## More\n\n".join(paragraphs(1 if number % 4 else 20))
        texts.append(f"# {ANSWERED[number % 30]}\n\n{text}\n")
    first, last = ("\n\n".join(paragraphs(40)) for _ in range(2))
    long = f"# The book\n\n{first}\n\n## Part two\n\n### The `compass`\n\n{NEEDLE}\n\n## Part three\n\n{last}\n"
    bundle = index_notes(tiny_base, write_notes(place, texts, long))
    retriever = Retriever.load(bundle)
    retriever.add([Document("new.md", "\n".join(paragraphs(20)), "Added", {"path": "new.md"})])
    retriever.close()
    return bundle


@pytest.fixture(scope="module")
def exported(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its site, in very small pieces."""
    folder = tmp_path_factory.mktemp("host") / "site"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "PIECE_BYTES", 2000)
        patch.setattr(postings, "PIECE_BYTES", 200)
        export_site(bundle, folder, url=URL)
    return folder


@pytest.fixture(scope="module")
def address(exported: Path) -> Iterator[str]:
    with hosting(exported) as host:
        yield host


@pytest.fixture(scope="module")
def retriever(bundle: Path) -> Retriever:
    return Retriever.load(bundle)


def wanted(retriever: Retriever, exported: Path, query: str, method: str, k: int) -> Ranking:
    """The server's best passages by the numbers of the site, as rows of the site."""
    model, view = retriever.model, retriever.store.view()
    assert model is not None
    table, vectors = (restored(unpacked(exported, name), model.dim) for name in ("table", "documents"))
    rows = [row for number in view.numbers() for row in view.passages_of(number)]  # type: ignore[attr-defined]
    vector = F.normalize(table[torch.from_numpy(model.tokenizer.encode([query]).ids).long()].sum(0), dim=0)
    numbers = np.array([*rows, -1])

    def rank(_rows: Any, depth: int, width: int) -> tuple[Ranking, dict[str, Ranking]]:
        dense = top_k(vector[None], vectors, min(depth, len(rows)))
        dense = Ranking(numbers[dense.documents], dense.scores)
        lexical = view.lexical([query], depth, None)
        ranking = {"dense": dense, "bm25": lexical, "hybrid": fuse(dense, lexical, model.hybrid_weight, width)}[method]
        return ranking, {"dense": dense if method != "bm25" else lexical}

    best, _ = best_passages(view, rank, np.arange(1), k, max(1000, 2 * k))
    kept = best.documents[0] >= 0
    return Ranking(np.searchsorted(np.array(rows), best.documents[0][kept]), best.scores[0][kept])


@pytest.mark.parametrize("method", ["dense", "bm25", "hybrid"])
def test_documents_are_ranked_by_their_best_passage_as_by_the_server(
    visits: Visits, address: str, exported: Path, retriever: Retriever, method: str
) -> None:
    page = visits(address)
    page.evaluate(OPEN)
    assert retriever.passage_count > 1.5 * len(retriever)
    for query in QUERIES:
        for k in (3, 100):
            best = wanted(retriever, exported, query, method, k)
            found = page.evaluate("([query, method, k]) => search.rank(query, method, k)", [query, method, k])
            assert found["rows"] == best.documents.tolist(), query
            np.testing.assert_allclose(found["scores"], best.scores, rtol=1e-5, atol=1e-6)


def test_hits_have_the_text_and_the_place_of_the_server_and_a_link(
    visits: Visits, address: str, retriever: Retriever
) -> None:
    page = visits(address)
    page.evaluate(OPEN)
    for query in QUERIES[:4]:
        body = {"query": query, "method": "bm25", "k": 50, "explain": True}
        ours = {hit["id"]: hit for hit in page.evaluate(ASK, ["search", body])["hits"]}
        theirs = retriever.search(query, 50, "bm25")
        assert set(ours) == {hit.id for hit in theirs}
        for hit in theirs:
            one = ours[hit.id]
            assert (one["title"], one["text"], one["metadata"]) == (hit.title, hit.text, hit.metadata)
            place = None if hit.place is None else {**vars(hit.place), "lines": list(hit.place.lines)}
            assert one.get("place") == place
            explained = retriever.explain(query, hit.id, None if hit.place is None else hit.place.start)
            for part in ("title", "text"):
                pieces = getattr(explained, part)
                assert [piece["text"] for piece in one["explanation"][part]] == [piece.text for piece in pieces]
            assert one["explanation"]["score"] == pytest.approx(explained.score, abs=0.02)
            assert one["url"].startswith(f"https://docs.example.org/{hit.id.removesuffix('.md')}/")
    for document in ("book.md", "a/8.md", "a/1.md"):
        whole = page.evaluate(ASK, [f"documents/{document.replace('/', '%2F')}", None])
        assert (whole["text"], whole["title"]) == (retriever.get(document).text, retriever.get(document).title)


def test_neighbours_are_those_of_the_nearest_passages(visits: Visits, address: str, retriever: Retriever) -> None:
    page = visits(address)
    page.evaluate(OPEN)
    for document in ("book.md", "a/8.md", "a/1.md"):
        hits = page.evaluate(ASK, ["similar", {"id": document, "k": 10}])["hits"]
        theirs = retriever.similar(document, 10)
        assert document not in {hit["id"] for hit in hits}
        assert len({hit["id"] for hit in hits} & {hit.id for hit in theirs}) >= 9
        np.testing.assert_allclose([hit["score"] for hit in hits], [hit.score for hit in theirs], atol=0.02)


def compass(page: Page) -> Any:
    """The hit that the query is for."""
    hit = page.locator(".hit").first
    expect(hit).to_have_attribute("data-id", "book.md")
    return hit


def test_a_hit_shows_its_place_opens_its_document_and_links_to_its_page(visits: Visits, address: str) -> None:
    page = visits(f"{address}/?q={QUERIES[0]}&view=bm25")
    hit = compass(page)
    expect(hit.locator(".place")).to_contain_text("Part two")
    link = hit.get_by_role("link")
    expect(link).to_have_attribute("href", re.compile(r"^https://docs\.example\.org/book/#(part-two|the-compass)$"))
    page.route(
        "https://docs.example.org/**", lambda route: route.fulfill(body="the original", content_type="text/html")
    )
    hit.focus()
    page.keyboard.press("o")
    expect(hit.locator("mark")).to_contain_text(NEEDLE)
    expect(hit.locator("mark")).to_be_in_viewport()
    page.keyboard.press("Tab")
    expect(link).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"^https://docs\.example\.org/book/#"))
    expect(page.locator("body")).to_have_text("the original")


def test_words_find_the_first_hits_before_vectors_are_there(visits: Visits, address: str, exported: Path) -> None:
    page = visits(address)
    held: list[Route] = []
    fetched: list[str] = []
    page.route("**/data/documents.bin*", lambda route: held.append(route))
    page.on("request", lambda request: fetched.append(request.url.partition("/data/")[2].partition("?")[0]))
    page.fill("#query", QUERIES[0])
    expect(page.locator("#status")).to_contain_text(
        re.compile(r"hits of 42 documents, by words so far, [\d.]+ MB of vec")
    )
    hybrid, dense, _ = page.locator(".column").all()
    expect(hybrid.locator("h2")).to_contain_text("by words so far")
    expect(dense).to_contain_text("The vectors are on their way.")
    assert ids(page, 0) == ids(page, 2)
    assert page.locator(".tint").count() == 0
    expect(page.locator("#results")).to_have_css("opacity", "1")
    manifest = json.loads((exported / "manifest.json").read_text())
    pieces = {kind: len(manifest["pieces"][kind]) // 16 for kind in ("postings", "passages")}
    for kind, most in (("postings", 4), ("passages", 10)):
        assert 0 < sum(name.startswith(kind) for name in fetched) <= most < pieces[kind]
    first = compass(page)
    first.focus()
    page.wait_for_timeout(50)
    held[0].continue_()
    settle(page)
    expect(page.locator("#status")).to_have_text(re.compile(r"^10 hits of 42 documents for"))
    expect(page.locator(".column").nth(1).locator(".hit")).to_have_count(10)
    expect(compass(page)).to_be_focused()
    assert page.locator(".tint").count() > 0


def test_without_a_known_word_the_page_says_what_it_waits_for(visits: Visits, address: str) -> None:
    page = visits(address)
    held: list[Route] = []
    page.route("**/data/documents.bin*", lambda route: held.append(route))
    page.fill("#query", "zzqqxx")
    expect(page.locator("#status")).to_contain_text(
        re.compile(r"^No hits yet, no document has a word of this query, [\d.]+ MB of vectors are on their way")
    )
    page.wait_for_timeout(50)
    held[0].continue_()
    settle(page)
    expect(page.locator("#status")).to_have_text(re.compile(r"^10 hits of 42 documents for"))


def test_the_buttons_of_a_hit_stay_in_its_column(visits: Visits, address: str) -> None:
    page = visits(f"{address}/?q={QUERIES[0]}")
    expect(page.locator(".column").nth(1).locator(".hit")).to_have_count(10)
    assert page.locator(".hit:not([data-start])").count() > 0
    expect(page.locator(".hit[data-start] .mark").first).to_be_visible()
    for width in (905, 1100, 1280, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        over = page.locator(".columns:not(.one) .acts").evaluate_all(
            "nodes => nodes.map((node) => node.getBoundingClientRect().right"
            " - node.closest('.column').getBoundingClientRect().right)"
        )
        assert over
        assert max(over) < 1
    assert "undefined" not in page.locator("#results").inner_text()


def test_vectors_that_cannot_be_loaded_leave_the_hits_of_words(visits: Visits, address: str) -> None:
    visits.refused = True
    page = visits(address)
    page.route("**/data/table.bin*", lambda route: route.fulfill(status=404))
    page.fill("#query", QUERIES[0])
    expect(page.locator("#notice")).to_contain_text("data/table.bin could not be loaded: the host answered 404")
    compass(page)
    page.unroute("**/data/table.bin*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".column").nth(1).locator(".hit")).to_have_count(10)
    expect(page.locator("#notice")).to_be_empty()


def test_a_damaged_piece_is_said(visits: Visits, address: str) -> None:
    page = visits(address)
    page.route("**/data/postings/*", lambda route: route.fulfill(body=b"something else"))
    page.fill("#query", QUERIES[0])
    expect(page.locator("#notice")).to_contain_text(re.compile(r"data/postings/\d{5}.bin is not what was exported"))
    page.unroute("**/data/postings/*")
    page.get_by_role("button", name="Try again").click()
    compass(page)
