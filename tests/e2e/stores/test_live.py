"""Documents come and go: at every moment a bundle answers as a plain dict of its documents would."""

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from freemvmt.data.documents import Document
from freemvmt.errors import NotFound, UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.index.dense import IndexKind, Quantization
from freemvmt.search.retriever import AddedCounts, Retriever
from freemvmt.search.stores.layout import LOCK_FILE
from freemvmt.search.stores.local import store as stored
from freemvmt.search.stores.local import view as live
from freemvmt.storage.locks import locked
from freemvmt.storage.manifest import read_manifest, write_manifest

from bundles import VOCABULARY, MakeBundle, Truth, make_documents, make_filter, write_corpus
from forked import Forks

ROOT = Path(__file__).parents[3]
METHODS = ("dense", "bm25", "hybrid")


@pytest.mark.parametrize(
    ("kind", "stored"),
    [("exact", "fp32"), ("pq", "fp32"), ("ivf", "fp16"), ("binary", "int8"), ("hnsw", "fp32"), ("hnsw", "int8")],
)
def test_random_changes_against_a_dict(
    make_bundle: MakeBundle,
    tiny_model: TwoTowersModel,
    corpus: dict[str, Document],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: IndexKind,
    stored: Quantization,
) -> None:
    monkeypatch.setattr(live, "_WORTH_CLEARING", 12)
    monkeypatch.setattr(live, "_NAMED", 40)
    draw = random.Random(f"{kind} {stored}")
    bundle = make_bundle(tmp_path / "bundle", kind, stored)
    retriever = Retriever.load(bundle)
    truth = Truth(tiny_model, corpus, tolerance={"int8": 0.02, "fp16": 1e-3}.get(stored, 1e-5))
    there = truth.documents
    for step in range(40):
        action = draw.choices(["add", "delete", "search", "reopen"], [40, 30, 25, 5])[0]
        if action == "add":
            names = list({draw.choice([f"n{draw.randrange(60)}", f"d{draw.randrange(1500)}"]): None for _ in range(5)})
            documents = make_documents(names, seed=step)
            last = {document.id: document for document in documents}
            replaced = len(last.keys() & there.keys())
            assert retriever.add(documents) == AddedCounts(len(last) - replaced, replaced)
            there |= last
        elif action == "delete":
            names = draw.sample(list(there), draw.choice([1, 3, 30])) + [f"n{draw.randrange(60)}" for _ in range(9)]
            gone = {name for name in names if name in there}
            found = retriever.delete(["nobody", *names])
            assert sorted(found) == sorted(gone)
            for name in gone:
                del there[name]
        elif action == "reopen":
            query = " ".join(draw.choices(VOCABULARY, k=3))
            before = [retriever.search(query, 50, method) for method in METHODS]
            retriever.close()
            retriever = Retriever.load(bundle, verify=step % 2 == 0)
            assert [retriever.search(query, 50, method) for method in METHODS] == before
        assert len(retriever) == len(there)
        query, k = " ".join(draw.choices(VOCABULARY, k=4)), draw.choice([1, 10, 100, 2000])
        truth.check(retriever, query, k, draw.choice([None, make_filter(draw)]))
    for name, document in there.items():
        assert retriever.get(name) == document
    retriever.close()


@pytest.fixture
def bundle(make_bundle: MakeBundle, tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def opened(bundle: Path) -> Iterator[Retriever]:
    retriever = Retriever.load(bundle)
    yield retriever
    retriever.close()


def test_two_retrievers_over_one_bundle_see_each_other_at_once(bundle: Path, opened: Retriever) -> None:
    other = Retriever.load(bundle)
    size = len(opened)
    for step, (writer, reader) in enumerate([(opened, other), (other, opened)] * 3):
        assert not reader.refresh()
        name = f"n{step}"
        assert writer.add([Document(name, "zebra stripes", "", {"herd": step})]) == AddedCounts(1, 0)
        for method in METHODS:
            assert reader.search("zebra", 1, method)[0].id == name
        assert reader.get(name).metadata == {"herd": step}
        assert reader.fields["herd"] == "number"
        assert [hit.id for hit in reader.search("zebra", filter={"herd": step})] == [name]
        assert len(reader) == size + 1
        assert reader.add([Document(name, "quagga")]) == AddedCounts(0, 1)
        assert writer.get(name).text == "quagga"
        assert writer.delete([name]) == [name]
        assert len(reader) == size
        with pytest.raises(NotFound):
            reader.explain("zebra", name)
        assert reader.delete([name]) == []
    other.close()


def test_another_process_sees_changes_and_its_changes_are_seen(bundle: Path, opened: Retriever) -> None:
    code = (
        "import sys\n"
        "from freemvmt.search.retriever import Retriever\n"
        "from freemvmt.data.documents import Document\n"
        "retriever = Retriever.load(sys.argv[1])\n"
        "for line in sys.stdin:\n"
        "    found = [hit.id for hit in retriever.search('zebra', 3, 'bm25')]\n"
        "    if line.strip():\n"
        "        retriever.add([Document(line.strip(), 'zebra')])\n"
        "    print(','.join(found), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(bundle)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdin
        assert process.stdout

        def ask(add: str) -> str:
            print(add, file=process.stdin, flush=True)
            return process.stdout.readline().strip()

        assert ask("") == ""
        opened.add([Document("here", "zebra")])
        assert ask("there") == "here"
        assert {hit.id for hit in opened.search("zebra", 2)} == {"here", "there"}
        opened.delete(["here"])
        assert ask("") == "there"
        process.stdin.close()


def test_a_kind_that_another_process_gave_a_field_holds_for_all(bundle: Path, opened: Retriever) -> None:
    other = Retriever.load(bundle)
    opened.add([Document("a", "zebra", "", {"herd": "north"})])
    with pytest.raises(UserError, match=r"document 'b': .*\"herd\" is a string .* here it holds 1; keep to one kind"):
        other.add([Document("b", "zebra", "", {"herd": 1})])
    opened.delete(["a"])
    third = Retriever.load(bundle)  # has never seen "a"
    for retriever in (opened, other, third):
        assert retriever.fields["herd"] == "string"
        with pytest.raises(UserError, match='"herd" is a string'):
            retriever.add([Document("b", "zebra", "", {"herd": 1})])
        assert retriever.search("zebra", filter={"herd": "north"}) == []
    third.add([Document("c", "zebra", "", {"herd": "south"})])
    assert [hit.id for hit in opened.search("zebra", filter={"herd": "south"})] == ["c"]
    other.close()
    third.close()


def test_a_refused_change_changes_nothing(opened: Retriever) -> None:
    size = len(opened)
    with pytest.raises(UserError, match="year"):
        opened.add([Document("n1", "zebra"), Document("n2", "zebra", "", {"year": "1990"})])
    assert len(opened) == size
    assert opened.search("zebra", method="bm25") == []
    assert opened.add([]) == AddedCounts(0, 0)
    assert opened.delete([]) == []
    with pytest.raises(UserError, match=r"documents\[1\]: the document 'n1' stands twice, first at documents\[0\]"):
        opened.add([Document("n1", "zebra"), Document("n1", "quagga")])
    assert len(opened) == size


@pytest.mark.parametrize(
    "name", ["a b", "a/b?c=d&e", "x" * 512, "é" * 256, "\0", "a\nb", '"', "日本 🐘", "-1", "*", "d1 OR d2"]
)
def test_strange_ids_live_like_others(bundle: Path, opened: Retriever, name: str) -> None:
    document = Document(name, "zebra \0 \n 🦓", "a\ttitle", {"a b": None, "nested": {"": [1]}})
    assert opened.add([document]) == AddedCounts(1, 0)
    assert opened.add([document]) == AddedCounts(0, 1)
    reopened = Retriever.load(bundle)
    for retriever in (opened, reopened):
        assert retriever.get(name) == document
        assert retriever.search("zebra", 1)[0].id == name
        assert name not in {hit.id for hit in retriever.similar(name)}
        assert retriever.explain("zebra", name).id == name
    assert reopened.delete([name, name]) == [name]
    with pytest.raises(NotFound, match="there is no document"):
        opened.get(name)
    reopened.close()


def test_what_was_deleted_is_let_go_of(opened: Retriever) -> None:
    names = [f"n{number}" for number in range(live._WORTH_CLEARING)]
    documents = [weakref.ref(document) for document in opened_documents(opened, names)]
    opened.delete(names)
    gc.collect()
    assert not [reference for reference in documents if reference()]
    assert opened.add([Document("n1", "zebra")]) == AddedCounts(1, 0)
    assert opened.search("zebra", 1)[0].id == "n1"


def opened_documents(retriever: Retriever, names: list[str]) -> list[Document]:
    retriever.add([Document(name, f"zebra {name}") for name in names])
    view = retriever.store.view()
    numbers = [view.number_of(name) for name in names]
    return view.documents([number for number in numbers if number is not None])


@pytest.mark.parametrize("kind", ["exact", "pq", "hnsw"])
def test_every_document_can_be_deleted_and_come_back(
    make_bundle: MakeBundle, tiny_model: TwoTowersModel, corpus: dict[str, Document], tmp_path: Path, kind: IndexKind
) -> None:
    retriever = Retriever.load(make_bundle(tmp_path / "bundle", kind))
    truth = Truth(tiny_model, corpus)
    last = list(corpus)[-3:]
    retriever.delete(list(corpus)[:-3])
    for name in list(corpus)[:-3]:
        del truth.documents[name]
    truth.check(retriever, "river mountain", 10)
    assert [hit.id for hit in retriever.search("river", 10, "dense")] != []
    retriever.delete(last)
    for method in METHODS:
        assert retriever.search("river", 10, method) == []
        assert retriever.search(["river", "opera"], 10, method, filter={"year": 1990}) == [[], []]
    assert len(retriever) == 0
    retriever.add(corpus.values())
    truth.documents |= corpus
    truth.check(retriever, "river mountain", 10)
    truth.check(retriever, "river mountain", 2000)
    retriever.close()


@pytest.mark.parametrize("kind", ["exact", "pq", "hnsw"])
def test_k_answers_come_also_of_many_equal_documents(
    tiny_model: TwoTowersModel, tmp_path: Path, kind: IndexKind
) -> None:
    documents = [Document(f"d{number}", "river" if number % 3 else "") for number in range(3000)]
    build(tiny_model, str(write_corpus(tmp_path / "corpus.jsonl", documents)), tmp_path / "bundle", kind=kind)
    retriever = Retriever.load(tmp_path / "bundle")
    retriever.delete([f"d{number}" for number in range(0, 1500, 2)])
    for k in (1, 10, 1000, 2249, 2250, 5000):
        for query in ("river", "opera", ""):
            assert len({hit.id for hit in retriever.search(query, k, "dense")}) == min(k, 2250)
            assert len({hit.id for hit in retriever.search(query, k, "hybrid")}) == min(k, 2250)
    retriever.close()


def test_searches_hold_while_others_add_and_delete(bundle: Path, opened: Retriever) -> None:
    """Four threads search two retrievers over one bundle, which two threads change."""
    other = Retriever.load(bundle)
    deleted: set[str] = set()
    failures: list[Exception] = []
    writing = threading.Barrier(3)
    finished = threading.Event()

    def write(retriever: Retriever, label: str) -> None:
        writing.wait()
        for step in range(8):
            names = [f"{label}{step}-{part}" for part in range(4)]
            retriever.add([Document(name, f"zebra {name}", "", {"herd": step}) for name in names])
            found = {hit.id for hit in retriever.search("zebra", 1000, draw.choice(METHODS), filter={"herd": step})}
            assert found >= set(names)
            retriever.delete(names[:3])
            deleted.update(names[:3])

    def read(retriever: Retriever) -> None:
        while not finished.is_set():
            before = set(deleted)
            method = draw.choice(METHODS)
            hits = retriever.search("zebra", draw.choice([5, 1000]), method, filter=draw.choice([None, {"herd": 3}]))
            assert not before & {hit.id for hit in hits}
            assert len({hit.id for hit in hits}) == len(hits)
            for hit in hits:
                assert hit.text == f"zebra {hit.id}" or hit.id.startswith("d")
            batch = retriever.search(["zebra", "river"] * 10, 5, method)
            assert len(batch) == 20

    def watched(action: Callable[..., None], *arguments: object) -> None:
        try:
            action(*arguments)
        except Exception as error:  # noqa: BLE001  raised again in the main thread
            failures.append(error)

    draw = random.Random(0)
    opened.add([Document("seed", "zebra seed", "", {"herd": -1})])
    writers = [threading.Thread(target=watched, args=(write, *pair)) for pair in ((opened, "a"), (other, "b"))]
    readers = [threading.Thread(target=watched, args=(read, retriever)) for retriever in (opened, other) * 2]
    for thread in (*writers, *readers):
        thread.start()
    writing.wait()
    for thread in writers:
        thread.join()
    finished.set()
    for thread in readers:
        thread.join()
    if failures:
        raise failures[0]
    wanted = {f"{label}{step}-3" for label in "ab" for step in range(8)} | {"seed"}
    for retriever in (opened, other):
        assert {hit.id for hit in retriever.search("zebra", 1000, "bm25")} == wanted
    other.close()


def test_what_was_acknowledged_is_seen_while_the_next_change_is_under_way(bundle: Path, opened: Retriever) -> None:
    """A writer that changes one thing after the other, or was killed in the middle, hides nothing that was done."""
    other = Retriever.load(bundle)
    opened.add([Document("n1", "zebra")])
    opened.delete(["d1"])
    state = read_manifest(bundle / "words.json", "words", 1, {})
    write_manifest(bundle / "words.json", {**state, "pending": True})
    assert other.search("zebra", 1, "dense")[0].id == "n1"
    with pytest.raises(NotFound):
        other.get("d1")
    assert other.add([Document("n2", "zebra")]) == AddedCounts(1, 0)
    assert {hit.id for hit in opened.search("zebra", 2, "bm25")} == {"n1", "n2"}
    other.close()


def test_a_search_reads_no_files_of_a_change_of_its_own_retriever(
    opened: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer makes the next view: until then a search sees the documents before, whatever is on disk."""
    before, seen = len(opened), list[int]()

    def written(*arguments: Any) -> None:
        write_manifest(*arguments)
        with monkeypatch.context() as context:
            context.setattr(stored, "read_manifest", None)
            seen.append(len(opened))

    monkeypatch.setattr(stored, "write_manifest", written)
    opened.add([Document("new", "zebra")])
    assert seen == [before, before]  # the state is written before the change, and after it
    assert len(opened) == before + 1


def test_a_bundle_is_opened_while_another_process_changes_it(children: Forks, bundle: Path) -> None:
    child = children.start(change=str(bundle), step=0)
    for _ in range(8):
        Retriever.load(bundle).close()
    os.kill(child, signal.SIGKILL)
    assert children.rest()


def test_searches_go_on_while_a_writer_waits_its_turn(bundle: Path, opened: Retriever) -> None:
    """A writer that waits for another process to end its change keeps no reader waiting."""
    with locked(bundle / LOCK_FILE, "busy"):
        waiting = threading.Thread(target=opened.add, args=([Document("late", "zebra")],))
        waiting.start()
        state = bundle / "words.json"
        state.write_bytes(state.read_bytes())  # as another process's change does, so that readers look again
        answered = threading.Thread(target=opened.search, args=("river",))
        answered.start()
        answered.join(10)
        stuck = answered.is_alive()
    waiting.join()
    answered.join()
    assert not stuck
    assert opened.search("zebra", 1)[0].id == "late"


def test_a_bundle_that_is_indexed_again_is_taken_up_whole(
    tiny_model: TwoTowersModel, bundle: Path, opened: Retriever, tmp_path: Path
) -> None:
    """An open retriever never mixes what it opened with what took its place."""
    for round in range(3):
        opened.add([Document("mine", "zebra")])
        documents = make_documents((f"new{round}-{number}" for number in range(40 + round)), seed=round)
        build(tiny_model, str(write_corpus(tmp_path / "other.jsonl", documents)), bundle)
        truth = Truth(tiny_model, {document.id: document for document in documents})
        if round == 1:  # the first to notice is a change, not a search
            assert opened.delete([documents[0].id]) == [documents[0].id]
            del truth.documents[documents[0].id]
        truth.check(opened, "river zebra", 100)
        truth.check(opened, "mountain", 7, {"year": {"gte": 1990}})
        with pytest.raises(NotFound):
            opened.get("mine")
        assert len(opened) == len(truth.documents)


def test_a_bundle_that_was_moved_away_still_answers(bundle: Path, opened: Retriever, tmp_path: Path) -> None:
    before = [opened.search("river zebra", 50, method) for method in METHODS]
    bundle.rename(tmp_path / "elsewhere")
    assert [opened.search("river zebra", 50, method) for method in METHODS] == before
    with pytest.raises(UserError, match="; "):
        opened.add([Document("late", "zebra")])
    moved = Retriever.load(tmp_path / "elsewhere")
    assert [moved.search("river zebra", 50, method) for method in METHODS] == before
    moved.close()
