"""A bundle is served and searched where there is no PyTorch: the same answers, by NumPy alone or by ONNX graphs."""

import contextlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search import onnx_encoder
from freemvmt.search.bundle.build import build
from freemvmt.search.onnx_encoder import OnnxEncoder, open_graph
from freemvmt.search.reranker import Reranker
from freemvmt.search.retriever import Retriever

from encoders import write_cross_encoder
from exports import TEXTS, VARIANTS, base_of, made
from live_server import make_bundle, make_documents, running
from refusals import refusal
from rows import ANSWERED, ASKED

ROOT = Path(__file__).parents[3]
# What an environment made by scripts/lite does not hold.
ABSENT = (
    "torch", "transformers", "datasets", "wandb", "pyarrow", "safetensors", "bm25s", "ir_measures", "onnx", "uvloop",
)  # fmt: skip
Flags = list[str]
# Run at the start of every Python that has its folder on the path, the server's children among them.
WITHOUT = f"""
import sys
class Absent:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""
QUERIES = [*ASKED[:20], f"{ASKED[3]} {ANSWERED[5]}", ANSWERED[7], "passage 12", "nothing that is there"]


def export(model: Path, output: Path, precision: str = "fp32") -> Path:
    command = ["export", str(model), "--format", "onnx", "--precision", precision, "--output", str(output)]
    assert main(command) == 0
    return output


@pytest.fixture(scope="module")
def bundle(tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("lite"), tiny_base)


@pytest.fixture(scope="module")
def graphs(bundle: Path) -> Path:
    return export(bundle / "model", bundle.parent / "onnx")


@pytest.fixture(scope="module", params=["own", "onnx"])
def flags(request: pytest.FixtureRequest, graphs: Path) -> Flags:
    """What encodes: the bundle's own model, or graphs of it."""
    return [] if request.param == "own" else ["--backend", "onnx", "--model", str(graphs)]


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of an environment in which what ``ABSENT`` names cannot be imported."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "sitecustomize.py").write_text(WITHOUT)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


@contextmanager
def serving(lite: dict[str, str], bundle: Path, *flags: str) -> Iterator[httpx.Client]:
    """A client of `two-towers serve`."""
    command = [sys.executable, "-W", "error", "-m", "freemvmt", "serve", str(bundle), "--port", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=lite) as server:
        try:
            assert server.stdout is not None
            said = "".join(server.stdout.readline() for _ in range(3))
            found = re.search(r"http://127.0.0.1:\d+", said)
            assert found, said
            with httpx.Client(base_url=found[0]) as client:
                yield client
        finally:
            server.terminate()
            assert server.wait(30) == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_graphs_encode_and_explain_as_the_towers_do(
    variant: str, tiny_base: str, tiny_encoder: str, tmp_path: Path
) -> None:
    model = made(base_of(variant, tiny_base, tiny_encoder), VARIANTS[variant])
    model.save(tmp_path / "model")
    graphs = OnnxEncoder(export(tmp_path / "model", tmp_path / "onnx"))
    assert (graphs.dim, graphs.document_tokens) == (model.dim, model.document_tokens)
    for texts in ([*TEXTS, *TEXTS[::-1]] * 9, TEXTS[:1], ["", "  "], []):
        np.testing.assert_allclose(graphs.encode_queries(texts), model.encode_queries(texts).numpy(), atol=1e-5)
        np.testing.assert_allclose(graphs.encode_documents(texts), model.encode_documents(texts).numpy(), atol=1e-5)
    kinds = {side: model.config.kind_of(side) for side in ("query", "document")}
    weighs = {kind: kind != "transformer" for kind in kinds.values()}
    weighs |= {"recurrent": VARIANTS[variant].get("pooling", "weighted") == "weighted"}
    for text in ("", TEXTS[0], " ".join(TEXTS)):
        tokens = model.tokenizer.encode([text])
        for split, wanted, kind in (
            (graphs.split_queries, model.split_queries, kinds["query"]),
            (graphs.split_documents, model.split_documents, kinds["document"]),
        ):
            if weighs[kind]:
                np.testing.assert_allclose(split(tokens), wanted(tokens).numpy(), atol=1e-5)
            else:
                with pytest.raises(UserError, match="cannot be split over the words"):
                    split(tokens)
    if "transformer" in kinds.values():
        assert graphs.split_side == model.split_side


def test_the_graph_of_the_documents_is_opened_for_the_first_document(
    tiny_encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_encoder, query_tower="average", document_tower="transformer"))
    model.save(tmp_path / "model")
    opened: list[str] = []
    monkeypatch.setattr(onnx_encoder, "open_graph", lambda path: (opened.append(path.name), open_graph(path))[1])
    graphs = OnnxEncoder(export(tmp_path / "model", tmp_path / "onnx"))
    graphs.encode_queries(TEXTS)
    assert len(opened) == 1
    graphs.encode_documents(TEXTS)
    graphs.encode_documents(TEXTS)
    assert len(set(opened)) == len(opened) == 2


def test_the_api_answers_as_with_torch_and_imports_nothing_of_it(
    lite: dict[str, str], bundle: Path, flags: Flags
) -> None:
    with_torch = Retriever.load(bundle)
    with_torch._state = (TwoTowersModel.load(bundle / "model"), *with_torch._state[1:])
    with (
        running(with_torch) as address,
        serving(lite, bundle, *flags) as light,
        httpx.Client(base_url=address) as torch,
    ):
        for method in ("hybrid", "dense", "bm25"):
            for query in QUERIES:
                asked = {"query": query, "k": 10, "method": method, "explain": True}
                one, other = (client.post("/search", json=asked).json()["hits"] for client in (light, torch))
                assert [hit["id"] for hit in one] == [hit["id"] for hit in other]
                assert [hit["score"] for hit in one] == pytest.approx([hit["score"] for hit in other], abs=1e-5)
                for mine, its in zip(one, other, strict=True):
                    assert mine["explanation"]["score"] == pytest.approx(its["explanation"]["score"], abs=1e-5)
                    for side in ("title", "text"):
                        pieces, known = mine["explanation"][side], its["explanation"][side]
                        assert [piece["text"] for piece in pieces] == [piece["text"] for piece in known]
                        shares = [piece["share"] for piece in known]
                        assert [piece["share"] for piece in pieces] == pytest.approx(shares, abs=1e-5)
        asked = {"queries": QUERIES, "k": 5, "filter": {"source": ["debian", "scifact"], "year": {"gte": 1980}}}
        one, other = (client.post("/search/batch", json=asked).json()["results"] for client in (light, torch))
        assert [[hit["id"] for hit in hits] for hits in one] == [[hit["id"] for hit in hits] for hits in other]
        for path in ("/info", "/v1/models", "/documents/d3", "/openapi.json"):
            assert light.get(path).json() == torch.get(path).json()
        for path in ("/", "/page/app.js", "/docs", "/metrics", "/ready", "/health"):
            assert light.get(path).status_code == 200
        asked = {"input": QUERIES[:3], "model": "any", "input_type": "query"}
        one, other = (client.post("/v1/embeddings", json=asked).json()["data"] for client in (light, torch))
        for mine, its in zip(one, other, strict=True):
            np.testing.assert_allclose(mine["embedding"], its["embedding"], atol=1e-5)
    with_torch.close()


def test_a_graph_of_a_cross_encoder_reranks_in_several_processes_without_torch(
    lite: dict[str, str], bundle: Path, tmp_path: Path
) -> None:
    cross = write_cross_encoder(tmp_path / "cross", graph=True)
    reranker, retriever = Reranker(str(cross)), Retriever.load(bundle)
    with serving(lite, bundle, "--rerank", str(cross), "--workers", "2") as client:
        assert client.get("/info").json()["rerank"] == {"model": "cross", "depth": 50}
        for query in QUERIES[:3]:
            found = client.post("/search", json={"query": query, "k": 60}).json()["hits"]
            plain = retriever.search(query, 60)
            scores = reranker.scores(query, [f"{hit.title} {hit.text}" for hit in plain[:50]])
            assert [hit["rerank"] for hit in found[:50]] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
            assert [hit["id"] for hit in found[50:]] == [hit.id for hit in plain[50:]]
    retriever.close()


def test_documents_are_added_and_deleted_by_several_processes_without_torch(
    lite: dict[str, str], tiny_base: str, flags: Flags, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path, tiny_base)
    with serving(lite, bundle, *flags, "--workers", "2") as client:
        new = {"id": "new", "text": f"{ASKED[0]} zebra", "metadata": {"source": "debian", "year": 2001}}
        assert client.post("/documents", json={"documents": [new]}).json()["added"] == 1
        hit = client.post("/search", json={"query": "zebra", "k": 1}).json()["hits"][0]
        assert (hit["id"], hit["metadata"]) == ("new", new["metadata"])
        assert client.post("/similar", json={"id": "new", "k": 3}).status_code == 200
        assert client.delete("/documents/new").status_code == 200
    with_torch = Retriever.load(bundle)
    assert len(with_torch) == len(make_documents())
    with_torch.close()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("changes", [{}, {"tower": "recurrent", "hidden": 8}], ids=["average", "recurrent"])
def test_a_byte_a_number_and_a_recurrence_are_served_too(
    changes: dict[str, Any], precision: str, tiny_base: str, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(document) + "\n" for document in make_documents()))
    model = TwoTowersModel(ModelConfig(base=tiny_base, **changes))
    model.save(tmp_path / "model")
    build(model, str(corpus), tmp_path / "bundle")
    # Graphs of the model, and of the copy of it in the bundle, are the same.
    graphs = [
        export(tmp_path / place, tmp_path / f"onnx-{place[:1]}", precision) for place in ("model", "bundle/model")
    ]
    assert len({(one / "config.json").read_text() for one in graphs}) == 1
    lite, whole = Retriever.load(tmp_path / "bundle", graphs=graphs[0]), Retriever.load(tmp_path / "bundle")
    for query in QUERIES:
        one, other = (retriever.search(query, 10, "dense") for retriever in (lite, whole))
        tolerance = 1e-5 if precision == "fp32" else 0.01
        assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other], abs=tolerance)
    assert sum(piece.share for piece in lite.explain(ASKED[0], "d0").text) > 0
    lite.close()
    whole.close()


def test_a_light_query_over_a_transformers_documents_is_served_and_takes_more(
    lite: dict[str, str], tiny_encoder: str, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(document) + "\n" for document in make_documents()))
    model = TwoTowersModel(ModelConfig(base=tiny_encoder, query_tower="average", document_tower="transformer"))
    build(model, str(corpus), tmp_path / "bundle")
    graphs = export(tmp_path / "bundle" / "model", tmp_path / "onnx")
    new = {"id": "new", "text": f"{ASKED[0]} zebra"}
    with serving(lite, tmp_path / "bundle", "--backend", "onnx", "--model", str(graphs)) as client:
        assert client.post("/documents", json={"documents": [new]}).json()["added"] == 1
        asked = {"query": QUERIES[0], "k": 10, "method": "dense", "explain": True}
        found = client.post("/search", json=asked).json()["hits"]
    whole = Retriever.load(tmp_path / "bundle")
    wanted = whole.search(QUERIES[0], 10, "dense")
    assert [hit["score"] for hit in found] == pytest.approx([hit.score for hit in wanted], abs=1e-5)
    for hit in found:
        shares = [piece["share"] for piece in hit["explanation"]["query"]]
        assert sum(shares) == pytest.approx(hit["score"], abs=1e-5)
    (added,) = whole.store.view().documents([whole.store.view().number_of("new")])
    vector = whole.store.view().vectors([whole.store.view().number_of("new")])
    np.testing.assert_allclose(vector, model.encode_documents([added.content]).numpy(), atol=1e-5)
    whole.close()


def test_other_graphs_and_flags_that_do_not_fit_are_refused(
    bundle: Path, graphs: Path, tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: object) -> str:
        return refusal(capsys, tmp_path, "serve", bundle, *words)

    TwoTowersModel(ModelConfig(base=tiny_base, dim=20)).save(tmp_path / "other")
    other = export(tmp_path / "other", tmp_path / "onnx")
    capsys.readouterr()
    assert "graphs of another model than" in refused("--backend", "onnx", "--model", other)
    assert "there is no" in refused("--backend", "onnx", "--model", tmp_path / "nothing")
    assert "--backend onnx has no graphs" in refused("--backend", "onnx")
    assert "--model is for --backend onnx" in refused("--model", graphs)
    assert "--query-rows int8 is for" in refused("--backend", "onnx", "--model", graphs, "--query-rows", "int8")
    assert "serves a bundle" in refusal(capsys, tmp_path, "serve", "--backend", "onnx", "--model", graphs)
    for name in ("model.onnx", "tokenizer.json"):
        sound = (other / name).read_bytes()
        (other / name).write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
        with pytest.raises(UserError, match="was changed since it was written; export it again"):
            OnnxEncoder(other)
        (other / name).write_bytes(sound)
    told = (other / "config.json").read_text()
    (other / "config.json").write_text(told.replace('"max_length": 256', '"max_length": 8'))
    with pytest.raises(UserError, match="was changed since it was written; export --format onnx the model again"):
        OnnxEncoder(other)


def command_in(lite: dict[str, str], folder: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "error", "-m", "freemvmt", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=lite)


@pytest.mark.parametrize("query", ["average", "recurrent"])
def test_a_light_query_over_heavy_documents_needs_no_torch_and_a_document_says_that_it_does(
    query: str, lite: dict[str, str], tiny_encoder: str, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(document) + "\n" for document in make_documents()))
    config = ModelConfig(base=tiny_encoder, query_tower=query, document_tower="transformer", hidden=8)  # type: ignore[arg-type]
    build(TwoTowersModel(config), str(corpus), tmp_path / "bundle")
    words = ["search", "bundle", QUERIES[0], "--method", "dense", "--explain", "--json"]
    hits = json.loads(command_in(lite, tmp_path, *words).stdout)["hits"]
    with contextlib.closing(Retriever.load(tmp_path / "bundle")) as retriever:
        assert [hit["id"] for hit in hits] == [hit.id for hit in retriever.search(QUERIES[0], method="dense")]
    assert [hit["explanation"]["score"] for hit in hits] == pytest.approx([hit["score"] for hit in hits], abs=1e-5)
    message = "a transformer needs torch, which is not installed; install two-towers whole"
    with serving(lite, tmp_path / "bundle", "--query-rows", "int8") as client:
        assert len(client.post("/search", json={"query": QUERIES[0], "k": 10}).json()["hits"]) == 10
        answer = client.post("/documents", json={"documents": [{"id": "new", "text": "a zebra"}]})
        assert (answer.status_code, answer.json()["error"]["message"]) == (409, message)


@pytest.mark.parametrize("changes", [{}, {"tower": "recurrent", "hidden": 8}], ids=["average", "recurrent"])
def test_a_search_never_imports_torch_where_it_is_installed(
    changes: dict[str, Any], tiny_base: str, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(document) + "\n" for document in make_documents()))
    build(TwoTowersModel(ModelConfig(base=tiny_base, **changes)), str(corpus), tmp_path / "bundle")
    others = ({**document, "text": f"{document['text']} And more."} for document in make_documents())
    (tmp_path / "others.jsonl").write_text("".join(json.dumps(document) + "\n" for document in others))
    code = (
        "import sys; from freemvmt.cli import main; assert main(['search', 'bundle', 'zebra', '--explain']) == 0; "
        "assert main(['add', 'bundle', 'others.jsonl']) == 0; "
        "print({'torch', 'safetensors', 'transformers', 'nanotoken', 'typeguard'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout.splitlines()[-1] == "{'nanotoken'}", done.stderr  # for the many documents


def test_what_needs_torch_says_so_in_one_line(lite: dict[str, str], tmp_path: Path) -> None:
    done = command_in(lite, tmp_path, "index", "untrained", "c.jsonl", "--output", "b")
    assert done.returncode == 2
    assert re.fullmatch(r"error: this needs \w+, which an environment made only to serve .*\n", done.stderr)


def test_the_environment_to_serve_in_leaves_out_what_the_package_needs_to_train() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    known = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["serve"]]
    lite = project["dependency-groups"]["serve-lite"]

    assert set(lite) <= set(known)  # with the same bounds
    assert not [line for line in lite if re.match(r"[\w-]+", line)[0] in ABSENT]  # type: ignore[index]
