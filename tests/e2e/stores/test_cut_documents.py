"""A bundle of documents of which some are cut: it changes and answers as a dict of its documents would."""

import json
import random
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.data.documents import Document
from freemvmt.data.passages import Splitter, contents_of
from freemvmt.errors import UserError
from freemvmt.export.site.export import export_site
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.retriever import Retriever
from freemvmt.search.stores.local import view as live

from answers import ok
from bundles import VOCABULARY, make_documents, make_filter, matches, write_corpus
from live_server import running

TOKENS = 8
WORD = VOCABULARY[0]


@pytest.fixture(scope="module")
def model(tiny_base: str) -> TwoTowersModel:
    return TwoTowersModel(ModelConfig(base=tiny_base, max_length=TOKENS))


@pytest.fixture(scope="module")
def model_folder(model: TwoTowersModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    model.save(folder)
    return folder


def mixed(names: list[str], seed: int) -> list[Document]:
    """Documents of which every third has 30 words more."""
    draw = random.Random(seed)
    return [
        Document(one.id, one.text + "\n" + " ".join(draw.choices(VOCABULARY, k=30)), one.title, one.metadata)
        if draw.random() < 1 / 3
        else one
        for one in make_documents(names, seed)
    ]


@pytest.fixture
def bundle(model: TwoTowersModel, tmp_path: Path) -> Path:
    corpus = write_corpus(tmp_path / "corpus.jsonl", mixed([f"d{number}" for number in range(60)], 1))
    build(model, str(corpus), tmp_path / "bundle")
    return tmp_path / "bundle"


def check(retriever: Retriever, model: TwoTowersModel, there: dict[str, Document], conditions: dict[str, Any]) -> None:
    """Dense search ranks documents by their nearest passage; BM25 finds all that share a word; texts are whole."""
    assert len(retriever) == len(there)
    query = " ".join(VOCABULARY[:2])
    kept = [document for document in there.values() if matches(document.metadata, conditions)]
    cuts = Splitter(model.tokenizer, TOKENS).split_all(kept)
    cosines = (model.encode_documents(contents_of(kept, cuts)) @ model.encode_queries([query])[0]).tolist()
    best: dict[str, float] = {}
    for document, own in zip(kept, cuts, strict=True):
        best[document.id] = max(cosines.pop(0) for _ in own or [None])
    hits = retriever.search(query, 12, "dense", filter=conditions)
    assert np.allclose([hit.score for hit in hits], sorted(best.values(), reverse=True)[:12], atol=1e-4)
    for hit in hits:
        assert hit.score == pytest.approx(best[hit.id], abs=1e-4)
        document = there[hit.id]
        assert retriever.get(hit.id) == document
        assert (hit.title, hit.metadata) == (document.title, document.metadata)
        place = hit.place
        assert hit.text == (document.text if place is None else document.text[place.start : place.stop])
    found = retriever.search(WORD, 100, "bm25", filter=conditions)
    assert {hit.id for hit in found} == {one.id for one in kept if WORD in one.content.split()}
    assert len(retriever.search(query, 12, filter=conditions)) == min(12, len(kept))


def test_random_changes_against_a_dict(bundle: Path, model: TwoTowersModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_WORTH_CLEARING", 12)
    monkeypatch.setattr(live, "_NAMED", 10)
    draw = random.Random(5)
    there = {document.id: document for document in mixed([f"d{number}" for number in range(60)], 1)}
    writer, reader = Retriever.load(bundle), Retriever.load(bundle)
    check(writer, model, there, {})
    for step in range(12):
        documents = mixed(list({f"n{draw.randrange(20)}": 0, f"d{draw.randrange(60)}": 0}), seed=step + 50)
        replaced = sum(document.id in there for document in documents)
        assert writer.add(documents).replaced == replaced
        there |= {document.id: document for document in documents}
        gone = draw.sample(list(there), 3)
        assert sorted(writer.delete(["nobody", *gone])) == sorted(gone)
        there = {name: document for name, document in there.items() if name not in gone}
        if step % 3 == 0:
            for retriever in (writer, reader, Retriever.load(bundle)):
                check(retriever, model, there, {})
                check(retriever, model, there, make_filter(draw))
    sources = [one.metadata["source"] for one in there.values() if isinstance(one.metadata.get("source"), str)]
    assert sum(writer.store.view().counts("source").values()) == len(sources)
    assert all(hit.id in there for hit in writer.similar(next(iter(there)), 5))


def test_short_documents_have_the_files_that_they_had(tiny_model: TwoTowersModel, tmp_path: Path) -> None:
    corpus = str(write_corpus(tmp_path / "corpus.jsonl", make_documents([f"d{number}" for number in range(20)], 1)))
    cut = build(tiny_model, corpus, tmp_path / "cut")
    whole = build(tiny_model, corpus, tmp_path / "whole", cut=False)
    assert cut["files"] == whole["files"]
    assert cut["passages"] == {"tokens": 256, "count": 20}
    assert "passages" not in whole
    long = Document("long", "tower " * 300)
    for name, has_place in (("cut", True), ("whole", False)):
        retriever = Retriever.load(tmp_path / name)
        retriever.add([long])
        assert (retriever.search("tower", 1, "bm25")[0].place is not None) == has_place
        assert retriever.get("long") == long
        retriever.close()


def test_a_text_is_stored_once(bundle: Path) -> None:
    retriever = Retriever.load(bundle)
    retriever.add([Document("new", "zebra " * 500)])
    words = sum(file.read_bytes().count(b"zebra zebra") for file in (bundle / "words").iterdir())
    assert words <= 250
    assert len(retriever.search("zebra", 9, "bm25", passages=True)) == 9


def test_passages_that_are_not_those_of_the_documents_are_refused(bundle: Path) -> None:
    table = np.load(bundle / "passages.npy")
    table["document"][-1] += 1
    np.save(bundle / "passages.npy", table)
    with pytest.raises(UserError, match="was changed since"):
        Retriever.load(bundle)
    with pytest.raises(UserError, match="passages are those of other documents"):
        Retriever.load(bundle, verify=False)


def test_the_command_line_shows_where_a_passage_is(
    bundle: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["search", str(bundle), WORD, "--method", "bm25", "-k", "60"]
    assert main([*arguments, "--explain"]) == 0
    assert "line 2" in capsys.readouterr().out
    assert main([*arguments, "--passages", "--json"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert len({hit["id"] for hit in hits}) < len(hits)
    places = [hit["place"] for hit in hits if "place" in hit]
    assert 0 < len(places) < len(hits)
    assert places[0].keys() == {"trail", "page", "lines", "start", "stop"}
    index = ["index", str(model_folder), str(tmp_path / "corpus.jsonl"), "--output", str(tmp_path / "other")]
    assert main(index) == 0
    assert "longer than 8 tokens" in capsys.readouterr().out
    assert main([*index, "--no-cut"]) == 0
    assert "longer" not in capsys.readouterr().out


def test_milvus_says_that_it_holds_documents_whole(
    model_folder: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = ["index", str(model_folder), str(tmp_path / "corpus.jsonl"), "--output", str(tmp_path / "other")]
    assert main([*index, "--store", str(tmp_path / "store.db")]) == 0
    assert "longer than 8 tokens: Milvus holds documents whole, the rest is not read\n" in capsys.readouterr().out
    retriever = Retriever.load(tmp_path / "other")
    assert retriever.passage_count == len(retriever) == 60
    retriever.close()


def test_http_says_where_a_passage_is(bundle: Path) -> None:
    retriever = Retriever.load(bundle)
    hit = next(hit for hit in retriever.search(WORD, 60, "bm25") if hit.place is not None)
    place = hit.place
    assert place is not None
    body = {"query": WORD, "k": 60, "method": "bm25", "explain": True}
    with running(bundle) as address, httpx.Client(base_url=address) as client:
        found = ok(client.post("/search", json=body))["hits"]
        said = next(one for one in found if one["id"] == hit.id)
        assert said["place"] == {
            "trail": "", "page": None, "lines": list(place.lines), "start": place.start, "stop": place.stop
        }  # fmt: skip
        assert "".join(piece["text"] for piece in said["explanation"]["text"]) == said["text"]
        assert any("place" not in one for one in found)
        several = ok(client.post("/search", json={**body, "explain": False, "passages": True}))["hits"]
        assert len({one["id"] for one in several}) < len(several)
        batch = {"queries": [WORD], "k": 60, "method": "bm25", "passages": True}
        assert ok(client.post("/search/batch", json=batch))["results"] == [several]
        new = {"id": "new", "text": "zebra " * 40}
        ok(client.post("/documents", json={"documents": [new]}))
        assert ok(client.post("/search", json={"query": "zebra"}))["hits"][0]["place"]["start"] == 0
        assert ok(client.get("/documents/new"))["text"] == new["text"]


def test_a_site_has_all_passages(bundle: Path, tmp_path: Path) -> None:
    site = export_site(bundle, tmp_path / "site")
    assert (site.documents, site.passages) == (60, Retriever.load(bundle).passage_count)
    assert site.passages > 60
