"""`kill -9` and SIGINT at random moments: nothing acknowledged is lost, nothing is half there."""

import contextlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.data.documents import Document
from freemvmt.data.passages import Splitter
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle import build as indexing
from freemvmt.search.bundle.build import build
from freemvmt.search.retriever import Retriever

from forked import Forks, alive, apply

MOMENTS = 14
CHUNK = 100
SIZE = 1000


def numbered_corpus(path: Path, label: str) -> Path:
    """``SIZE`` documents, all of which hold the word ``label``."""
    rows = ({"_id": f"{label}{number}", "text": f"{label} tower {number}"} for number in range(SIZE))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def check_holds(bundle: Path, label: str) -> None:
    """The bundle is sound and is that of ``label``'s corpus."""
    retriever = Retriever.load(bundle)
    assert len(retriever) == SIZE
    for method in ("dense", "bm25", "hybrid"):
        hits = retriever.search(f"{label} tower", 5, method)
        assert len(hits) == 5
        assert all(hit.id.startswith(label) for hit in hits)
    retriever.close()


def label_of(bundle: Path) -> str:
    """Whose corpus a bundle holds."""
    return json.loads((bundle / "manifest.json").read_text())["corpus"].split("/")[-1].removesuffix(".jsonl")


@pytest.fixture
def model_folder(tiny_model: TwoTowersModel, tmp_path: Path) -> Path:
    tiny_model.save(tmp_path / "model")
    return tmp_path / "model"


class Counting:
    """A model that counts the documents that it encodes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: TwoTowersModel) -> None:
        self.documents = 0
        plain = model.encode_documents

        def counted(texts: list[str]) -> object:
            self.documents += len(texts)
            return plain(texts)

        monkeypatch.setattr(model, "encode_documents", counted)


@pytest.mark.parametrize("replaced", [False, True], ids=["fresh", "replaced"])
@pytest.mark.parametrize(("how", "moments"), [(signal.SIGKILL, 7), (signal.SIGINT, 4)], ids=["kill", "interrupt"])
def test_indexing_that_is_stopped_leaves_the_old_bundle_or_the_new_one(
    children: Forks,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: signal.Signals,
    moments: int,
    replaced: bool,
) -> None:
    monkeypatch.setattr(indexing, "CHUNK", CHUNK)
    model = TwoTowersModel.load(model_folder)
    files = {label: numbered_corpus(tmp_path / f"{label}.jsonl", label) for label in ("river", "castle")}
    output, work = tmp_path / "bundle", tmp_path / ".bundle.indexing"
    command = ["index", str(model_folder), str(files["castle"]), "--output", str(output)]
    for _ in range(2):  # the first run reads much from the disk that the others find in memory
        children.start(command=command, chunk=CHUNK)
        begun = time.monotonic()
        assert children.rest() == ["exit 0"]
        whole = time.monotonic() - begun
        check_holds(output, "castle")

    counting = Counting(monkeypatch, model)
    draw = random.Random(f"{how} {replaced}")
    for moment in range(moments):
        shutil.rmtree(output)
        if replaced:
            build(model, str(files["river"]), output)
        child = children.start(command=command, chunk=CHUNK)
        time.sleep(whole * 1.1 * (moment + draw.random()) / moments)
        with contextlib.suppress(ProcessLookupError):  # it may have finished
            os.kill(child, how)
        said = children.rest()
        assert how == signal.SIGKILL or said[0] in ("exit 1", "exit 0")
        if output.exists():
            label = label_of(output)
            assert replaced or label == "castle"
            check_holds(output, label)
        else:
            assert not replaced
        kept = len(list(work.glob("chunks/*.safetensors")))
        counting.documents = 0
        build(model, str(files["castle"]), output)
        assert counting.documents == SIZE - CHUNK * kept
        assert label_of(output) == "castle"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "castle.jsonl", "model", "river.jsonl"]


@pytest.fixture(scope="module", params=["whole", "cut"])
def small_bundle(request: pytest.FixtureRequest, tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 documents, of which changes touch none. What changes put in is whole, or cut into passages of two tokens."""
    folder = tmp_path_factory.mktemp("small")
    model = TwoTowersModel(ModelConfig(base=tiny_base, max_length=2 if request.param == "cut" else 256))
    lines = "".join(json.dumps({"_id": f"d{number}", "text": f"river {number}"}) + "\n" for number in range(300))
    (folder / "corpus.jsonl").write_text(lines)
    build(model, str(folder / "corpus.jsonl"), folder / "bundle")
    return folder / "bundle"


def test_changes_that_are_killed_lose_nothing_and_are_never_half_there(
    children: Forks, small_bundle: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(small_bundle, bundle)
    model = TwoTowersModel.load(bundle / "model")
    splitter = Splitter(model.tokenizer, model.document_tokens)
    draw = random.Random(0)
    there: dict[str, str] = {}
    step, kept, longest = 0, 0, 0.12  # seconds until the kill
    for _ in range(MOMENTS):
        child = children.start(change=str(bundle), step=step)
        time.sleep(draw.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        acknowledged = [int(line.removeprefix("done ")) for line in children.rest()]
        assert acknowledged == list(range(step, step + len(acknowledged)))
        for done in acknowledged:
            apply(there, done)
        step += len(acknowledged)
        longest *= 1 if acknowledged else 1.5  # a machine that does other work needs longer for a change
        under_way = dict(there)
        apply(under_way, step)

        retriever = Retriever.load(bundle)
        found = contents(retriever)
        assert found in (there, under_way)
        kept += found == under_way != there
        there = found
        hits = retriever.search("tower", 100, "bm25")
        assert {hit.id: retriever.get(hit.id).text for hit in hits} == there
        cuts = splitter.split_all([retriever.get(id) for id in (*there, *(f"d{number}" for number in range(300)))])
        assert retriever.passage_count == sum(max(1, len(passages)) for passages in cuts)
        assert {hit.id for hit in retriever.search("river tower", 1000, "dense")} == there.keys() | {
            f"d{number}" for number in range(300)
        }
        retriever.add([Document("new", "castle")])
        assert retriever.search("castle", 1)[0].id == "new"
        assert retriever.delete(["new"]) == ["new"]
        retriever.close()
    assert step
    assert any(splitter.split_all([Document(id, text) for id, text in there.items()])) == (model.document_tokens == 2)
    assert {"pending": False}.items() <= json.loads((bundle / "words.json").read_text()).items()


def contents(retriever: Retriever) -> dict[str, str]:
    """Id and text of all documents that changes put in."""
    hits = retriever.search("tower", 1000, "dense")
    return {hit.id: retriever.get(hit.id).text for hit in hits if not hit.id.startswith("d")}


def test_mining_that_is_killed_leaves_the_old_file_or_the_new_and_nothing_beside(
    children: Forks, model_folder: Path, rows_file: str, tmp_path: Path
) -> None:
    output = tmp_path / "mined.jsonl"
    words = ["mine", str(model_folder), rows_file, "--output", str(output), "--first-rank", "2"]
    assert main(words) == 0
    right = output.read_bytes()
    for old in (b"", b"old"):
        output.write_bytes(old)
        child = children.start(command=words)
        while alive(child) and not list(tmp_path.glob(".mined.jsonl.*.part")):
            time.sleep(0.0005)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # while it writes, as far as that can be met
        children.rest()
        assert output.read_bytes() in (old, right)
        for part in tmp_path.glob(".*.part"):
            os.utime(part, (0, 0))
        assert main(words) == 0
        assert output.read_bytes() == right
        assert sorted(path.name for path in tmp_path.iterdir()) == ["mined.jsonl", "model"]
