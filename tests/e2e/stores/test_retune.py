"""Another query tower over a bundle's vectors: what must not change does not, and what answers is the new tower."""

import contextlib
import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.bundle.queries import go_back, install
from freemvmt.search.index.lexical import LOCKS
from freemvmt.search.retriever import Retriever
from freemvmt.search.stores.layout import WEIGHT_FILES
from freemvmt.storage.files import sha256_of
from freemvmt.towers.model_folder import write_description

from bundles import corpus_of
from forked import Forks
from live_server import running
from refusals import contents, refusal
from rows import make_rows

KINDS: dict[str, dict[str, Any]] = {
    "one tower": {},
    "two averages": {"separate_towers": True},
    "one table": {"tower": "recurrent", "hidden": 8, "separate_towers": True, "shared_table": True},
    "one recurrence": {"tower": "recurrent", "hidden": 8},
    "light over heavy": {"query_tower": "average", "document_tower": "transformer"},
    "recurrent over heavy": {"query_tower": "recurrent", "document_tower": "transformer", "hidden": 8},
}
QUERY = "river 7"
MOMENTS = 6
CHANGED = ("model", "previous", "manifest.json", "lock")  # of what is in a bundle


@pytest.fixture(scope="module")
def make(tiny_base: str, tiny_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Puts a fresh bundle of a kind at a place."""
    home = tmp_path_factory.mktemp("indexed")
    rows = make_rows(100)
    passages = dict.fromkeys(text for row in rows for text in row["passages"]["passage_text"])
    lines = [json.dumps({"_id": f"d{number}", "text": text, "year": number}) for number, text in enumerate(passages)]
    (home / "corpus.jsonl").write_text("\n".join(lines))

    def put(place: Path, kind: str = "one tower", **options: Any) -> Path:
        first = home / kind.replace(" ", "-")
        if not first.exists() or options:
            base = tiny_encoder if "heavy" in kind else tiny_base
            model = TwoTowersModel(ModelConfig(base=base, **KINDS[kind]))
            build(model, str(home / "corpus.jsonl"), first := place if options else first, **options)
        return place if options else shutil.copytree(first, place)

    return put


def trained_over(bundle: Path, folder: Path, seed: int = 0) -> Path:
    """A model with the bundle's document tower and another query tower, at ``folder``."""
    model = TwoTowersModel.load(bundle / "model").with_own_queries()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        table = model.tensors()["query.table"]
        table.copy_(torch.randn(table.shape, generator=generator))
    model.save(folder)
    return folder


def kept_files(bundle: Path) -> dict[str, tuple[int, int, str]]:
    """Inode, time of change and SHA-256 of every file that a new query tower must not touch."""
    return {
        str(path.relative_to(bundle)): (path.stat().st_ino, path.stat().st_mtime_ns, sha256_of(path))
        for path in bundle.rglob("*")
        if path.is_file() and path.relative_to(bundle).parts[0] not in CHANGED and path.name not in LOCKS
    }


def manifest_of(bundle: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    return manifest


def vector_of(bundle: Path) -> np.ndarray[Any, Any]:
    """What the bundle that is opened now makes of the query."""
    with contextlib.closing(Retriever.load(bundle)) as retriever:
        assert retriever.model
        assert len(retriever.search(QUERY, 3)) == 3
        return np.asarray(retriever.model.encode_queries([QUERY])[0])


def weights_of(bundle: Path) -> dict[str, str]:
    return {name: sha256_of(bundle / name) for name in WEIGHT_FILES if (bundle / name).exists()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_tower_is_trained_and_swapped_and_nothing_else_changes(
    kind: str, make: Callable[..., Path], rows_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make(tmp_path / "bundle", kind)
    with contextlib.closing(Retriever.load(bundle)) as writer:
        writer.add([Document("added", "a river that was added later")])
    before, manifest, weights, vector = kept_files(bundle), manifest_of(bundle), weights_of(bundle), vector_of(bundle)
    assert {"vectors.faiss", "documents.utf8", "documents.npy", "words.json"} < before.keys()
    command = ["retune", str(bundle), "--dataset", rows_file, "--epochs", "2", "--batch-size", "64", "--json"]
    assert main([*command, "--learning-rate", "1e-3"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["installed"]
    assert answer["after"] > answer["before"]

    assert kept_files(bundle) == before
    tuned = manifest_of(bundle)
    assert tuned["vectors_by"] == manifest["vectors_by"] or kind == "one table"  # whose one file held both towers
    assert tuned["vectors_by"] == sha256_of(bundle / "model" / "document.safetensors")
    assert tuned["model"]["id"] != manifest["model"]["id"]
    assert tuned["queries"]["installed"]["training"]["scores"]["ndcg@10"] == answer["after"]
    assert tuned["model"]["queries"].items() <= tuned["queries"]["installed"].items()
    assert {name: tuned[name] for name in ("id", "created", "documents", "index", "fields")} == {
        name: manifest[name] for name in ("id", "created", "documents", "index", "fields")
    }
    card = (bundle / "model" / "README.md").read_text(encoding="utf-8")
    assert f"two-towers retune {bundle} --dataset {rows_file}" in card
    assert f"the query tower before | {answer['before']:.4f}" in card
    new_vector = vector_of(bundle)
    assert not np.allclose(new_vector, vector)
    with contextlib.closing(Retriever.load(bundle)) as retriever:
        assert retriever.get("added").text == "a river that was added later"
        retriever.add([Document("after", "a castle behind the river")])
        assert "after" in {hit.id for hit in retriever.search("castle", 5, "bm25")}
        assert retriever.delete(["after"]) == ["after"]

    before = kept_files(bundle)
    assert main(["retune", str(bundle), "--back"]) == 0
    assert np.array_equal(vector_of(bundle), vector)
    assert weights_of(bundle) == weights
    assert manifest_of(bundle)["model"]["id"] == manifest["model"]["id"]
    assert manifest_of(bundle)["model"]["queries"]["by"] == "index"
    assert main(["retune", str(bundle), "--back"]) == 0
    assert np.array_equal(vector_of(bundle), new_vector)
    assert manifest_of(bundle) == tuned
    assert (bundle / "model" / "README.md").read_text(encoding="utf-8") == card
    assert kept_files(bundle) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


def test_a_tower_that_is_worse_is_not_installed_unless_it_is_asked_for(
    make: Callable[..., Path], rows_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make(tmp_path / "bundle")
    train = ["retune", str(bundle), "--dataset", rows_file, "--batch-size", "64", "--epochs"]
    assert main([*train, "3", "--learning-rate", "1e-3"]) == 0
    before = contents(bundle)
    ruin = [*train, "1", "--learning-rate", "100", "--json"]
    capsys.readouterr()
    assert main(ruin) == 0
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert not answer["installed"]
    assert answer["after"] < answer["before"]
    assert "the trained one is worse; --even-if-worse installs it" in said.err
    assert contents(bundle) == before
    assert main([*ruin, "--even-if-worse"]) == 0
    assert json.loads(capsys.readouterr().out) | {"installed": False, "model": 0} == answer | {"model": 0}
    assert manifest_of(bundle)["queries"]["installed"]["training"]["scores"]["ndcg@10"] == answer["after"]


def test_queries_alone_align(make: Callable[..., Path], rows_file: str, tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle", "light over heavy")
    (tmp_path / "queries.txt").write_text("how tall is a tower\nwhat is stone made of\n")
    names = [rows_file, str(tmp_path / "queries.txt")]
    assert main(["retune", str(bundle), "--dataset", *names, "--epochs", "1", "--even-if-worse"]) == 0
    assert manifest_of(bundle)["queries"]["installed"]["training"]["config"]["loss"] == "align"


def test_the_query_tower_of_a_model_is_installed_where_its_documents_are_the_bundles(
    make: Callable[..., Path], tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make(tmp_path / "bundle")
    model = trained_over(bundle, tmp_path / "model")
    before = kept_files(bundle)
    assert main(["retune", str(bundle), "--queries", str(model)]) == 0
    assert np.array_equal(vector_of(bundle), TwoTowersModel.load(model).encode_queries([QUERY])[0].numpy())
    assert kept_files(bundle) == before
    untouched = contents(bundle)
    assert main(["retune", str(bundle), "--queries", str(model)]) == 0  # again: nothing is to be done
    assert {path: kept for path, kept in contents(bundle).items() if path.name != "lock"} == {
        path: kept for path, kept in untouched.items() if path.name != "lock"
    }

    other = TwoTowersModel(ModelConfig(base=tiny_base, separate_towers=True))
    with torch.no_grad():
        other.document_tower.table[1000, 0] += 1e-3
    other.save(tmp_path / "other")
    short = TwoTowersModel(ModelConfig(base=tiny_base, max_length=64))
    short.save(tmp_path / "short")
    for name in ("other", "short"):
        said = refusal(capsys, tmp_path, "retune", bundle, "--queries", tmp_path / name)
        assert f"{bundle} holds the vectors of another document tower" in said


@pytest.mark.parametrize("head", [None, 20], ids=["no head", "a head"])
@pytest.mark.parametrize("matryoshka", [(), (12,)], ids=["principal", "first"])
def test_a_bundle_with_fewer_dimensions_takes_the_query_tower_of_the_whole_model(
    make: Callable[..., Path], tiny_base: str, tmp_path: Path, head: int | None, matryoshka: tuple[int, ...]
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"_id": f"d{n}", "text": f"a river {n} of stone"}) + "\n" for n in range(40)))
    whole = TwoTowersModel(ModelConfig(base=tiny_base, separate_towers=True, dim=head))
    whole.record = {"config": {"matryoshka": list(matryoshka)}}
    bundle = tmp_path / "bundle"
    build(whole, str(corpus), bundle, dim=12)
    with torch.no_grad():
        whole.query_tower.table.mul_(torch.rand(whole.query_tower.table.shape))
    if head and not matryoshka:
        with pytest.raises(UserError, match="another document tower"):
            install(bundle, whole, "retune --queries")
        return
    before = kept_files(bundle)
    install(bundle, whole, "retune --queries")
    assert kept_files(bundle) == before
    directions = TwoTowersModel.load(bundle / "model").tensors()["document.head"].detach()
    query = whole.encode_queries([QUERY])
    reduced = torch.nn.functional.normalize(query @ directions.T) if head is None else query[:, :12]
    expected = torch.nn.functional.normalize(reduced)[0].numpy()
    np.testing.assert_allclose(vector_of(bundle), expected, atol=1e-5)
    with torch.no_grad():
        whole.document_tower.table[1000, 0] += 1e-3
    with pytest.raises(UserError, match="another document tower"):
        install(bundle, whole, "retune --queries")


def test_a_bundle_of_an_older_model_with_all_weights_in_one_file(make: Callable[..., Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    bundle = make(tmp_path / "bundle", "two averages")
    folder = tmp_path / "old"
    shutil.copytree(bundle / "model", folder)
    tensors = load_file(folder / "document.safetensors") | load_file(folder / "query.safetensors")
    for side in ("document", "query"):
        (folder / f"{side}.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors")
    description = json.loads((folder / "config.json").read_text())
    del description["checksum"], description["files"]
    write_description(folder, description)
    old, new = TwoTowersModel.load(folder), TwoTowersModel.load(bundle / "model")
    assert old.tensors().keys() == new.tensors().keys()
    assert old.space("document") == new.space("document")
    install(bundle, old, "retune --queries")


def test_what_cannot_be_is_one_line(
    make: Callable[..., Path], rows_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make(tmp_path / "bundle")
    Retriever.load(bundle).close()  # which makes its lock
    (tmp_path / "queries.txt").write_text("how tall is a tower\n")
    for words, message in (
        ([bundle], "give one of --dataset, --queries and --back"),
        ([bundle, "--back", "--dataset", rows_file], "give one of --dataset, --queries and --back"),
        ([bundle, "--back"], "has had no other query tower"),
        ([bundle, "--queries", tmp_path / "nothing"], "nothing"),
        ([bundle, "--queries", bundle], "config.json"),
        ([bundle, "--dataset", tmp_path / "nothing.jsonl"], "there is no data set or path"),
        ([bundle, "--dataset", tmp_path / "queries.txt"], "nothing to validate on"),
        ([bundle, "--dataset", rows_file, "--streaming"], "--streaming"),
        ([bundle, "--dataset", rows_file, "--epochs", 0], "--epochs is 0"),
        ([bundle / "model", "--back"], "manifest.json"),
        ([tmp_path / "nothing", "--back"], "manifest.json"),
    ):
        assert message in refusal(capsys, tmp_path, "retune", *words)


def test_a_kept_tower_that_was_changed_is_not_installed(
    make: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make(tmp_path / "bundle")
    for seed in range(2):
        install(bundle, TwoTowersModel.load(trained_over(bundle, tmp_path / "model", seed)), "retune --queries")
    Retriever.load(bundle).close()  # which makes its lock
    path = bundle / "previous" / "query.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "query.safetensors was changed" in refusal(capsys, tmp_path, "retune", bundle, "--back")
    path.unlink()
    assert "query.safetensors is missing" in refusal(capsys, tmp_path, "retune", bundle, "--back")
    shutil.rmtree(path.parent)
    assert "previous/config.json cannot be read" in refusal(capsys, tmp_path, "retune", bundle, "--back")
    (bundle / "model" / "README.md").unlink()
    said = refusal(capsys, tmp_path, "retune", bundle, "--queries", tmp_path / "model")
    assert "README.md is missing; index the corpus again" in said


def test_a_file_system_without_hard_links_gets_copies(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    bundle = make(tmp_path / "bundle")
    before = kept_files(bundle)
    monkeypatch.setattr(os, "link", refuse)
    install(bundle, TwoTowersModel.load(trained_over(bundle, tmp_path / "model")), "retune --queries")
    assert {name: sums for name, (_, _, sums) in kept_files(bundle).items()} == {
        name: sums for name, (_, _, sums) in before.items()
    }
    vector_of(bundle)


def test_a_running_server_answers_with_the_new_tower(make: Callable[..., Path], tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle")
    model = TwoTowersModel.load(trained_over(bundle, tmp_path / "model"))
    search = {"query": QUERY, "method": "dense", "k": 3}
    embed = {"input": QUERY, "input_type": "query"}
    with running(bundle) as address, httpx.Client(base_url=address) as client:
        old = client.post("/search", json=search).json()["hits"]
        assert client.post("/documents", json={"documents": [{"id": "new", "text": "a castle"}]}).status_code == 200
        install(bundle, model, "retune --queries")
        vector = client.post("/v1/embeddings", json=embed).json()["data"][0]["embedding"]
        assert np.allclose(vector, model.encode_queries([QUERY])[0].numpy(), atol=1e-6)
        assert client.post("/search", json=search).json()["hits"] != old
        info = client.get("/info").json()
        assert info["model"]["queries"]["by"] == "retune --queries"
        assert "training" not in json.dumps(info)
        assert client.get("/documents/new").json()["text"] == "a castle"
        assert client.post("/documents", json={"documents": [{"id": "newer", "text": "a castle"}]}).status_code == 200
        go_back(bundle)
        assert client.post("/search", json=search).json()["hits"] == old
        assert client.get("/documents/newer").json()["text"] == "a castle"


def test_no_document_is_lost_that_is_added_while_towers_are_swapped(make: Callable[..., Path], tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle")
    install(bundle, TwoTowersModel.load(trained_over(bundle, tmp_path / "model")), "retune --queries")
    acknowledged: list[str] = []
    failures: list[Exception] = []
    finished = threading.Event()

    def add() -> None:
        with contextlib.closing(Retriever.load(bundle)) as retriever:
            while not finished.is_set():
                name = f"new{len(acknowledged)}"
                try:
                    retriever.add([Document(name, f"castle {name}")])
                    acknowledged.append(name)
                    assert len(retriever.search("castle", 1)) == 1
                except Exception as error:  # noqa: BLE001 - whatever it is, the test fails
                    failures.append(error)
                    return

    writer = threading.Thread(target=add)
    writer.start()
    for _ in range(6):
        count, deadline = len(acknowledged), time.monotonic() + 60
        while len(acknowledged) == count and not failures and time.monotonic() < deadline:
            time.sleep(0.005)
        go_back(bundle)
    finished.set()
    writer.join()
    assert failures == []
    assert len(acknowledged) >= 6
    with contextlib.closing(Retriever.load(bundle)) as retriever:
        assert all(retriever.get(name) for name in acknowledged)


def test_a_swap_that_is_killed_leaves_the_old_tower_or_the_new_one(
    children: Forks, make: Callable[..., Path], tmp_path: Path
) -> None:
    bundle = make(tmp_path / "bundle")
    before, vectors = kept_files(bundle), [vector_of(bundle)]
    model = trained_over(bundle, tmp_path / "model")
    for command in (["--queries", str(model)], ["--back"]):  # the first run reads much from the disk
        children.start(command=["retune", str(bundle), *command])
        begun = time.monotonic()
        assert children.rest() == ["exit 0"]
        whole = time.monotonic() - begun
        vectors.append(vector_of(bundle))
    old, new = vectors[:2]
    assert np.array_equal(vectors[2], old)
    draw = random.Random(0)
    for moment in range(MOMENTS):
        child = children.start(command=["retune", str(bundle), "--back"])
        time.sleep(whole * 1.2 * (moment + draw.random()) / MOMENTS)
        with contextlib.suppress(ProcessLookupError):  # it may have finished
            os.kill(child, signal.SIGKILL)
        children.rest()
        vector = vector_of(bundle)
        assert np.array_equal(vector, old) != np.array_equal(vector, new)
        assert kept_files(bundle) == before
    time.sleep(1.1)  # a part is taken for a leftover after a second
    go_back(bundle)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "model"]


def test_a_bundle_that_was_indexed_anew_meanwhile_is_refused(
    make: Callable[..., Path], tiny_base: str, tmp_path: Path
) -> None:
    bundle = make(tmp_path / "bundle")
    model = TwoTowersModel.load(trained_over(bundle, tmp_path / "model"))
    other = TwoTowersModel(ModelConfig(base=tiny_base, tower="recurrent"))
    build(other, corpus_of(tmp_path / "corpus.jsonl", 30), bundle)
    before = contents(bundle)
    with pytest.raises(UserError, match="another document tower"):
        install(bundle, model, "retune --dataset")
    assert {path: kept for path, kept in contents(bundle).items() if path.name != "lock"} == {
        path: kept for path, kept in before.items() if path.name != "lock"
    }


def test_a_bundle_in_milvus(make: Callable[..., Path], tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle", store=str(tmp_path / "store.db"))
    before, vector = kept_files(bundle), vector_of(bundle)
    install(bundle, TwoTowersModel.load(trained_over(bundle, tmp_path / "model")), "retune --queries")
    assert kept_files(bundle) == before
    assert not np.allclose(vector_of(bundle), vector)
    go_back(bundle)
    assert np.array_equal(vector_of(bundle), vector)
