"""What every store promises, of each of them: the files of a bundle, Milvus Lite, and a Milvus server."""

import json
import random
import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from freemvmt.config import ModelConfig
from freemvmt.data.documents import Document
from freemvmt.errors import NotFound, UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle import milvus as remote
from freemvmt.search.bundle.build import build
from freemvmt.search.retriever import AddedCounts, Retriever
from freemvmt.search.stores.layout import MANIFEST_FILE
from freemvmt.search.stores.milvus.client import Client, MilvusAddress
from freemvmt.search.stores.milvus.store import MilvusStore
from freemvmt.storage.manifest import hash_files, write_manifest

from bundles import VOCABULARY, Truth, form, make_documents, make_filter, write_corpus

METHODS = ("dense", "bm25", "hybrid")


class Engine:
    """One store: ``address`` None is the files of a bundle."""

    def __init__(self, name: str, address: str | None, by_words: bool) -> None:
        self.name, self.address, self.by_words = name, address, by_words

    @property
    def methods(self) -> tuple[Any, ...]:
        return METHODS if self.by_words else METHODS[:1]


@pytest.fixture(params=["files", "milvus-lite", "milvus-server"])
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(remote, "_GRACE", 0.0)
    if request.param == "files":
        return Engine("files", None, True)
    if request.param == "milvus-lite":
        return Engine("milvus-lite", str(tmp_path / "store.db"), True)
    server = request.getfixturevalue("milvus_server")
    address = f"milvus://{server}/tests_{secrets.token_hex(4)}"
    client = Client(MilvusAddress.of(address))
    by_words = client.has_bm25()
    client.close()
    return Engine("milvus-server", address, by_words)


@pytest.fixture
def documents() -> dict[str, Document]:
    strange = ["", "'\"] or true", "日本", "a\0b", "\\", 'key in ["x"]', "é" * 256]
    names = [f"d{number}" for number in range(200)] + strange[1:]
    return {document.id: document for document in make_documents(names, seed=3)}


@pytest.fixture
def bundle(engine: Engine, tiny_model: TwoTowersModel, documents: dict[str, Document], tmp_path: Path) -> Path:
    corpus = write_corpus(tmp_path / "corpus.jsonl", documents.values())
    build(tiny_model, str(corpus), tmp_path / "bundle", kind="exact", store=engine.address)
    return tmp_path / "bundle"


@pytest.fixture
def retriever(bundle: Path) -> Iterator[Retriever]:
    retriever = Retriever.load(bundle)
    yield retriever
    if isinstance(retriever.store, MilvusStore):
        remote._drop(remote.location_in(bundle) or {})
    retriever.close()


def test_random_changes_against_a_dict(
    engine: Engine, retriever: Retriever, tiny_model: TwoTowersModel, documents: dict[str, Document]
) -> None:
    draw = random.Random(engine.name)
    truth = Truth(tiny_model, documents)
    there = truth.documents
    assert len(retriever) == len(there)
    for step in range(8 if engine.name == "milvus-server" else 25):  # it waits a moment before each answer
        if draw.random() < 0.6:
            names = list({draw.choice([f"n{draw.randrange(40)}", f"d{draw.randrange(250)}"]): None for _ in range(5)})
            added = make_documents(names, seed=step)
            last = {document.id: document for document in added}
            replaced = len(last.keys() & there.keys())
            assert retriever.add(added) == AddedCounts(len(last) - replaced, replaced)
            there |= last
        else:
            names = draw.sample(list(there), draw.choice([1, 3, 30]))
            assert sorted(retriever.delete(["nobody", *names])) == sorted(names)
            for name in names:
                del there[name]
        assert len(retriever) == len(there)
        query, k = " ".join(draw.choices(VOCABULARY, k=4)), draw.choice([1, 10, 100, 500])
        conditions = draw.choice([None, make_filter(draw), make_filter(draw)])
        truth.check(retriever, query, k, conditions, by_words=engine.by_words)
    for name, document in draw.sample(list(there.items()), 20):
        assert retriever.get(name) == document


def test_what_a_store_tells(
    engine: Engine, retriever: Retriever, tiny_model: TwoTowersModel, documents: dict[str, Document]
) -> None:
    numbers = dict.fromkeys(("year", "size", "score", "either", "sizes"), "number")
    others = {"source": "string", "tags": "string", "flag": "boolean", "flags": "boolean"}
    assert retriever.fields == {**others, **numbers}
    sources = Counter(source for d in documents.values() if (source := d.metadata.get("source")) is not None)
    shown = retriever.values("source")
    assert {form(source) for source in shown} == {form(source) for source in sources}
    for source in shown:
        assert sources[source] == max(sources[other] for other in sources if form(other) == form(source))
    assert retriever.about["index"]["recall@10"] == 1.0
    sample = retriever.sample(3)
    assert len({document.id for document in sample}) == 3
    assert all(documents[document.id] == document for document in sample)
    first = next(iter(documents.values()))
    vector = tiny_model.encode_documents([first.content]).numpy()
    all_others = [document for document in documents.values() if document.id != first.id]
    best = np.sort(tiny_model.encode_documents([d.content for d in all_others]).numpy() @ vector[0])[::-1][:5]
    similar = retriever.similar(first.id, 5)
    np.testing.assert_allclose([hit.score for hit in similar], best, atol=1e-5)
    explained = retriever.explain(first.text, first.id)
    assert abs(sum(piece.share for piece in (*explained.title, *explained.text)) - explained.score) < 1e-5
    with pytest.raises(NotFound):
        retriever.similar("nobody")
    retriever.check_ids(list(documents), "them")
    with pytest.raises(UserError, match="1 of the 2"):
        retriever.check_ids([first.id, "nobody"], "them")


def test_a_light_query_finds_a_transformers_documents(engine: Engine, tiny_encoder: str, tmp_path: Path) -> None:
    """Towers of two kinds, in every store; documents that come later are encoded by the transformer."""
    model = TwoTowersModel(ModelConfig(base=tiny_encoder, query_tower="average", document_tower="transformer"))
    documents = {document.id: document for document in make_documents([f"d{number}" for number in range(60)], seed=5)}
    corpus = write_corpus(tmp_path / "corpus.jsonl", documents.values())
    build(model, str(corpus), tmp_path / "bundle", kind="exact", store=engine.address)
    retriever = Retriever.load(tmp_path / "bundle")
    truth = Truth(model, documents, tolerance=1e-4)  # the cache of a transformer's vectors holds fp16
    added = make_documents(["d3", "new"], seed=6)
    assert retriever.add(added) == AddedCounts(1, 1)
    truth.documents |= {document.id: document for document in added}
    draw = random.Random(0)
    for _ in range(4):
        query = " ".join(draw.choices(VOCABULARY, k=4))
        truth.check(retriever, query, 10, draw.choice([None, make_filter(draw)]), by_words=engine.by_words)
    explained = retriever.explain("river", "new")
    assert sum(piece.share for piece in explained.query) == pytest.approx(explained.score, abs=1e-5)
    if isinstance(retriever.store, MilvusStore):
        remote._drop(remote.location_in(tmp_path / "bundle") or {})
    retriever.close()


def test_lists_and_spellings_in_every_store(engine: Engine, tiny_model: TwoTowersModel, tmp_path: Path) -> None:
    """Those that were indexed, and those that came later."""
    first = [
        Document("a", "red apple", metadata={"tag": "fruit", "year": 2020, "day": "2019-12-31"}),
        Document("b", "green apple", metadata={"tag": ["Fruit", "green"], "year": [2020, 2021], "day": ["2020-05-01"]}),
        Document("c", "apple phone", metadata={"tag": "gadget", "year": 2021, "day": []}),
    ]
    later = [Document("d", "apple pie", metadata={"tag": ["ＦＲＵＩＴ", "fruit"], "year": [1990, 2030], "day": "2021"})]
    build(tiny_model, str(write_corpus(tmp_path / "c.jsonl", first)), tmp_path / "bundle", store=engine.address)
    retriever = Retriever.load(tmp_path / "bundle")
    retriever.add(later)
    wanted: list[tuple[dict[str, Any], str]] = [
        ({"tag": "fruit"}, "abd"), ({"tag": ["green", "GADGET"]}, "bc"), ({"tag": {"gt": "fruit"}}, "bc"),
        ({"year": 2020}, "ab"), ({"year": {"gte": 2020}}, "abcd"), ({"year": {"gt": 1990, "lt": 2030}}, "abc"),
        ({"day": {"gte": "2020-01-01"}}, "bd"), ({"tag": "fruit", "year": [2021, 2030]}, "bd"),
    ]  # fmt: skip
    for conditions, kept in wanted:
        for method in engine.methods:
            found = retriever.search("apple", 10, method, filter=conditions)
            assert "".join(sorted(hit.id for hit in found)) == kept, (conditions, method)
    assert retriever.values("tag") == ["Fruit", "gadget", "green"]  # three of one form, each spelled differently
    with pytest.raises(UserError, match=r"document 'e': the field .tag. is a string"):
        retriever.add([Document("e", "x", metadata={"tag": [1, 2]})])
    if isinstance(retriever.store, MilvusStore):
        remote._drop(remote.location_in(tmp_path / "bundle") or {})
    retriever.close()


def test_a_range_of_dates_is_narrowed_where_only_some_are_looked_at(
    engine: Engine, tiny_model: TwoTowersModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freemvmt.search.stores.milvus.view.MAX_RANKED", 4)
    near = [Document(f"near{n}", "river river", metadata={"day": "2019-05-05"}) for n in range(30)]
    far = [Document("far", "piano river winter mountain", metadata={"day": ["2020-05-05", "2018-01-01"]})]
    build(tiny_model, str(write_corpus(tmp_path / "c.jsonl", near + far)), tmp_path / "bundle", store=engine.address)
    retriever = Retriever.load(tmp_path / "bundle")
    for condition in ({"gte": "2020"}, {"gt": "2019-05-05"}, {"lt": "2019"}, {"gte": "2017", "lte": "2018-01-01"}):
        found = retriever.search("river", 3, "dense", filter={"day": condition})
        assert [hit.id for hit in found] == ["far"], condition
    if isinstance(retriever.store, MilvusStore):
        remote._drop(remote.location_in(tmp_path / "bundle") or {})
    retriever.close()


def test_many_queries_are_each_of_them_alone(engine: Engine, retriever: Retriever) -> None:
    draw = random.Random(0)
    queries = [" ".join(draw.choices(VOCABULARY, k=3)) for _ in range(70)] + ["", "no such words"]
    for method in engine.methods:
        together = retriever.search(queries, 7, method)
        for query, hits in draw.sample(list(zip(queries, together, strict=True)), 10):
            alone = retriever.search(query, 7, method)
            np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in alone], atol=1e-5)
    runs = retriever.scores(queries, 7, "dense")
    assert [list(run) for run in runs] == [[hit.id for hit in hits] for hits in retriever.search(queries, 7, "dense")]


def test_a_new_field_and_a_wrong_kind(engine: Engine, retriever: Retriever) -> None:
    size = len(retriever)
    assert retriever.add([Document("z1", "zebra stripes", "", {"herd": 3, "Ort": "Zoo"})]) == AddedCounts(1, 0)
    assert retriever.fields["herd"] == "number"
    assert [hit.id for hit in retriever.search("zebra", 3, "dense", filter={"herd": {"gt": 2.5}, "Ort": "Zoo"})] == [
        "z1"
    ]
    with pytest.raises(UserError, match='"herd" is a number'):
        retriever.add([Document("z2", "zebra"), Document("z3", "zebra", "", {"herd": "three"})])
    assert len(retriever) == size + 1
    with pytest.raises(UserError, match="no field 'nothing'"):
        retriever.search("zebra", 3, "dense", filter={"nothing": 1})


def test_a_bundle_that_is_indexed_again_is_taken_up_whole(
    engine: Engine, bundle: Path, retriever: Retriever, tiny_model: TwoTowersModel, tmp_path: Path
) -> None:
    before = remote.location_in(bundle)
    corpus = write_corpus(tmp_path / "new.jsonl", [Document("new", "zebra stripes")])
    build(tiny_model, str(corpus), bundle, store=engine.address)
    assert [hit.id for hit in retriever.search("zebra", 3, "dense")] == ["new"]
    assert retriever.add([Document("newer", "zebra")]) == AddedCounts(1, 0)
    assert len(retriever) == 2
    if before is not None:
        client = Client(MilvusAddress(before["uri"], before["base"]))
        assert not client("has_collection", before["collection"])
        client.close()


@pytest.mark.parametrize("engine", ["milvus-lite"], indirect=True)
def test_what_does_not_fit_into_milvus_is_refused(retriever: Retriever) -> None:
    size = len(retriever)
    with pytest.raises(UserError, match="its text is over 65,535 bytes"):
        retriever.add([Document("fits", "word"), Document("long", "word " * 20_000)])
    assert len(retriever) == size


@pytest.mark.parametrize("engine", ["milvus-lite"], indirect=True)
def test_a_collection_that_is_gone_or_of_another_model_is_refused(
    retriever: Retriever, bundle: Path, tiny_model: TwoTowersModel, documents: dict[str, Document]
) -> None:
    assert isinstance(retriever.store, MilvusStore)
    retriever.store.add(list(documents.values()), np.ones((len(documents), tiny_model.dim), np.float32))
    with pytest.raises(UserError, match="made by another model"):
        Retriever.load(bundle)
    remote._drop(remote.location_in(bundle) or {})
    with pytest.raises(UserError, match=r"has no collection .*index the corpus again"):
        Retriever.load(bundle)


@pytest.mark.parametrize("engine", ["milvus-lite"], indirect=True)
def test_an_indexing_that_fails_leaves_no_collection(
    engine: Engine, tiny_model: TwoTowersModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [Document("a", "word"), Document("b", "word " * 20_000)])
    assert engine.address is not None
    with pytest.raises(UserError, match="document 'b': its text is over"):
        build(tiny_model, str(corpus), tmp_path / "bundle", store=engine.address)
    client = Client(MilvusAddress.of(engine.address))
    assert client("list_collections") == []
    client.close()
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("engine", ["milvus-lite"], indirect=True)
def test_a_killed_indexing_is_cleaned_up_by_the_next(
    engine: Engine, tiny_model: TwoTowersModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [Document("a", "word")])
    assert engine.address is not None
    with monkeypatch.context() as patch:

        def die(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(MilvusStore, "fill", die)
        with pytest.raises(KeyboardInterrupt):
            build(tiny_model, str(corpus), tmp_path / "bundle", store=engine.address)
    client = Client(MilvusAddress.of(engine.address))
    assert len(client("list_collections")) == 1
    build(tiny_model, str(corpus), tmp_path / "bundle", store=engine.address)
    assert client("list_collections") == [(remote.location_in(tmp_path / "bundle") or {})["collection"]]
    client.close()


@pytest.mark.parametrize("engine", ["milvus-lite"], indirect=True)
@pytest.mark.parametrize("uri", ["store.db", "/x.txt", "ftp://a:1", "http://a@b:1", "http://a:1/x", "/a\0.db"])
def test_a_bundle_that_names_another_sort_of_place_is_refused(bundle: Path, uri: str) -> None:
    named = remote.location_in(bundle)
    assert named is not None
    write_manifest(bundle / remote.STORE_FILE, named | {"uri": uri})
    manifest = json.loads((bundle / MANIFEST_FILE).read_bytes())
    del manifest["checksum"]
    write_manifest(bundle / MANIFEST_FILE, manifest | {"files": hash_files(bundle, manifest["files"])})
    with pytest.raises(UserError, match="no place of documents"):
        Retriever.load(bundle)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("store", "no place of documents"),
        ("nowhere/store.db", "no folder"),
        ("http://localhost:1/a", "no address of a Milvus"),
        ("milvus://localhost:x/a", "no address"),
        ("milvus://localhost:1/", "letters, digits"),
        ("milvus://localhost:1/a-b", "letters, digits"),
        ("milvus://root:secret@localhost:1/a", "MILVUS_TOKEN"),
        ("milvus:///a", "no address of a Milvus"),
        ("milvus://localhost:1/a?b=c", "no address of a Milvus"),
    ],
)
def test_an_address_that_is_none_is_refused(
    address: str, reason: str, tiny_model: TwoTowersModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=reason) as refused:
        build(tiny_model, "pydocs", tmp_path / "bundle", store=address)
    assert "secret" not in str(refused.value)


def test_addresses_of_servers() -> None:
    assert MilvusAddress.of("milvus://example.org/docs") == MilvusAddress("http://example.org:19530", "docs")
    assert MilvusAddress.of("milvus+tls://[::1]:5/docs") == MilvusAddress("https://[::1]:5", "docs")


def test_a_server_that_is_not_there_is_one_line(tiny_model: TwoTowersModel, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [Document("a", "word")])
    with pytest.raises(UserError, match=r"Milvus at http://127.0.0.1:9 cannot be reached .*start it"):
        build(tiny_model, str(corpus), tmp_path / "bundle", store="milvus://127.0.0.1:9/docs")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


@pytest.mark.parametrize(("kind", "stored"), [("pq", "fp32"), ("exact", "int8")])
def test_an_index_that_milvus_does_not_make_is_refused(
    tiny_model: TwoTowersModel, tmp_path: Path, kind: Any, stored: Any
) -> None:
    with pytest.raises(UserError, match="--kind exact or hnsw and --quantize fp32"):
        build(tiny_model, "pydocs", tmp_path / "bundle", kind=kind, stored=stored, store=str(tmp_path / "a.db"))
