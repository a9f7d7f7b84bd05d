"""What leaves is read by the real libraries and gives our vectors; what comes from them gives theirs."""

import dataclasses
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from freemvmt.cli import main
from freemvmt.config import ModelConfig, TrainConfig
from freemvmt.errors import UserError
from freemvmt.export.sentence_transformers import export_sentence_transformers
from freemvmt.model import TwoTowersModel
from freemvmt.trainer.dataset import prepare
from freemvmt.training import train

from disks import files_of_at_most
from exports import TEXTS, made
from exports import VARIANTS as EVERY
from refusals import refusal


def theirs(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's own imports
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(folder), device="cpu")


VARIANTS: dict[str, dict[str, Any]] = {
    "shared": {},
    "head": {"dim": 20},
    "apart": {"separate_towers": True},
    "apart, heads": {"separate_towers": True, "dim": 12},
    "apart, one table": {"separate_towers": True, "shared_table": True, "dim": 12, "max_length": 7},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_sentence_transformers_gives_our_vectors_and_gives_them_back(
    variant: str, tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_base, **VARIANTS[variant]))
    with torch.no_grad():
        for name, weight in model.tensors().items():
            weight.add_(torch.randn_like(weight) * (0.02 if "head" in name or name.startswith("query") else 0.005))
    model.save(tmp_path / "model")
    command = ["export", str(tmp_path / "model"), "--format", "sentence-transformers"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == ""
    assert f"document: token vectors that started from {tiny_base}" in (tmp_path / "out" / "README.md").read_text()
    loaded = theirs(tmp_path / "out")
    near = 1e-6 if model.config.dim is None else 2e-6  # sums of 256 rows, projected before or after
    for ours, found in (
        (model.encode_queries(TEXTS), loaded.encode_query(TEXTS)),
        (model.encode_documents(TEXTS), loaded.encode_document(TEXTS)),
    ):
        np.testing.assert_allclose(found, ours.numpy(), atol=near)
    assert loaded.similarity_fn_name == "cosine"
    back = TwoTowersModel.load(tmp_path / "out")
    assert (back.dim, back.config.max_length) == (model.dim, model.config.max_length)
    torch.testing.assert_close(back.encode_queries(TEXTS), model.encode_queries(TEXTS), atol=near, rtol=0)
    torch.testing.assert_close(back.encode_documents(TEXTS), model.encode_documents(TEXTS), atol=near, rtol=0)
    back.save(tmp_path / "again")
    again = TwoTowersModel.load(tmp_path / "again")
    assert torch.equal(again.encode_queries(TEXTS), back.encode_queries(TEXTS))


def test_what_the_library_saves_comes_in(tiny_base: str, tmp_path: Path) -> None:
    export_sentence_transformers(TwoTowersModel(ModelConfig(base=tiny_base, separate_towers=True)), tmp_path / "apart")
    export_sentence_transformers(TwoTowersModel(ModelConfig(base=tiny_base)), tmp_path / "shared")
    for name in ("apart", "shared"):
        loaded = theirs(tmp_path / name)
        loaded.save(str(tmp_path / f"{name}-saved"))
        ours = TwoTowersModel.load(tmp_path / f"{name}-saved")
        np.testing.assert_allclose(ours.encode_queries(TEXTS).numpy(), loaded.encode_query(TEXTS), atol=1e-6)
        np.testing.assert_allclose(ours.encode_documents(TEXTS).numpy(), loaded.encode_document(TEXTS), atol=1e-6)


@pytest.fixture
def model2vec_folder(tiny_base: str, tmp_path: Path) -> Path:
    """What the real library saves of a table whose tokens share rows and have weights."""
    from model2vec import StaticModel
    from tokenizers import Tokenizer

    table = load_file(Path(tiny_base) / "model.safetensors")["embeddings.word_embeddings.weight"].numpy()
    tokenizer = Tokenizer.from_file(f"{tiny_base}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    draw = np.random.default_rng(0)
    mapping = draw.integers(0, 5000, len(table))
    weights = draw.uniform(0.1, 2.0, len(table)).astype(np.float32)
    model = StaticModel(table[:5000], tokenizer, normalize=True, weights=weights, token_mapping=mapping)
    model.save_pretrained(tmp_path / "model2vec")
    return tmp_path / "model2vec"


def test_a_model2vec_folder_gives_its_vectors(model2vec_folder: Path) -> None:
    from model2vec import StaticModel

    found = StaticModel.from_pretrained(model2vec_folder)
    # It leaves out unknown words, and measures a long text by its characters.
    texts = [text for text in TEXTS if text.isascii() and len(text) < 300]
    ours = TwoTowersModel.load(model2vec_folder)
    np.testing.assert_allclose(ours.encode_documents(texts).numpy(), found.encode(texts), atol=1e-6)


def test_training_goes_on_from_a_folder_of_others(model2vec_folder: Path, tiny_config: TrainConfig) -> None:
    start = TwoTowersModel.load(model2vec_folder)
    config = dataclasses.replace(tiny_config, base=str(model2vec_folder), init=str(model2vec_folder), idf_scale=0.0)
    assert torch.equal(TwoTowersModel(config.model_config()).encode_queries(TEXTS[:3]), start.encode_queries(TEXTS[:3]))
    result = train(config, prepare(config))
    assert result.val_ndcg_10 > result.untrained_ndcg_10


def test_an_encoders_table_comes_in(tiny_encoder: str) -> None:
    model = TwoTowersModel.load(tiny_encoder)
    assert torch.equal(
        model.encode_queries(TEXTS[:3]), TwoTowersModel(ModelConfig(base=tiny_encoder)).encode_queries(TEXTS[:3])
    )


TRANSFORMERS = {name: changes for name, changes in EVERY.items() if "transformer" in name and "cell" not in changes}
TRANSFORMERS |= {"average, transformer, cut": TRANSFORMERS["average, transformer"]}
_ENCODE = """
import json, sys
sys.modules["freemvmt"] = None
from sentence_transformers import SentenceTransformer
for folder in sys.argv[2:]:
    loaded = SentenceTransformer(folder, device="cpu")
    texts = json.loads(sys.argv[1])
    print(json.dumps([loaded.encode_query(texts).tolist(), loaded.encode_document(texts).tolist()]))
"""


def test_a_process_without_this_package_gives_the_vectors_of_transformers(
    tiny_encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {}
    for number, (name, changes) in enumerate(TRANSFORMERS.items()):
        model = made(tiny_encoder, changes)
        if "cut" in name:
            model = model.cut(torch.linalg.qr(torch.randn(model.dim, 9))[0].T)
        model.save(tmp_path / f"model-{number}")
        command = ["export", str(tmp_path / f"model-{number}"), "--format", "sentence-transformers"]
        capsys.readouterr()
        assert main([*command, "--output", str(tmp_path / f"out-{number}")]) == 0
        assert capsys.readouterr().err == ""
        models[str(tmp_path / f"out-{number}")] = model
    command = [sys.executable, "-W", "ignore", "-c", _ENCODE, json.dumps(TEXTS), *models]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "LOAD REPORT" not in done.stderr
    is_empty = np.array([not text.strip() for text in TEXTS])
    lines = [line for line in done.stdout.splitlines() if line.startswith("[[[")]  # W&B speaks too
    for model, line in zip(models.values(), lines, strict=True):
        wanted = {"query": model.encode_queries(TEXTS), "document": model.encode_documents(TEXTS)}
        for (side, ours), found in zip(wanted.items(), np.array(json.loads(line)), strict=True):
            if model.config.kind_of(side) == "transformer":  # type: ignore[arg-type]
                np.testing.assert_allclose(np.linalg.norm(found[is_empty], axis=1), 1, atol=1e-5)
                found[is_empty] = 0  # of the special tokens alone: no module of the library makes it zero
            np.testing.assert_allclose(found, ours.numpy(), atol=1e-5)


def test_a_recurrence_is_no_module_of_that_library(
    tiny_encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, changes in enumerate(({"tower": "recurrent"}, {"query_tower": "recurrent", "tower": "transformer"})):
        TwoTowersModel(ModelConfig(base=tiny_encoder, hidden=4, **changes)).save(tmp_path / f"model-{number}")  # type: ignore[arg-type]
        command = ["export", tmp_path / f"model-{number}", "--format", "sentence-transformers"]
        assert "reads tokens in order; export it with --format onnx" in refusal(
            capsys, tmp_path, *command, "--output", tmp_path / "out"
        )


def test_an_output_that_is_there_is_refused(tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TwoTowersModel(ModelConfig(base=tiny_base)).save(tmp_path / "model")
    command = ["export", tmp_path / "model", "--format", "sentence-transformers", "--output", tmp_path / "model"]
    assert "which is read; write elsewhere" in refusal(capsys, tmp_path, *command)


def test_without_the_library_its_extra_is_named(
    tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    TwoTowersModel(ModelConfig(base=tiny_base)).save(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    command = ["export", tmp_path / "model", "--format", "sentence-transformers", "--output", tmp_path / "out"]
    said = refusal(capsys, tmp_path, *command)
    assert "needs sentence_transformers, which is not installed; install two-towers[export]" in said


@pytest.mark.parametrize("size", [0, 100_000, 5_000_000])
@pytest.mark.parametrize("apart", [False, True])
def test_a_file_that_may_not_grow_is_one_line(
    size: int, apart: bool, tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TwoTowersModel(ModelConfig(base=tiny_base, separate_towers=apart)).save(tmp_path / "model")
    command = ["export", tmp_path / "model", "--format", "sentence-transformers", "--output", tmp_path / "out"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's own imports
        # One of the libraries that it imports makes a semaphore, which is a file, and warns where it cannot.
        import sentence_transformers  # noqa: F401
    with files_of_at_most(size):
        assert f"cannot write {tmp_path / 'out'}: the file would be larger" in refusal(capsys, tmp_path, *command)


def _static(folder: Path, **changes: object) -> Path:
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.StaticEmbedding"},
        {"idx": 1, "name": "1", "path": "1_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    modules[0] |= {key: str(value) for key, value in changes.items()}
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": "sentence_transformers.models.Transformer"}, "of Transformer, Normalize; only"),
        ({"type": "sentence_transformers.models.Router"}, "only a StaticEmbedding"),
        ({"path": "../elsewhere"}, "names a folder outside"),
        ({"path": "missing"}, "cannot be read"),
    ],
)
def test_models_that_are_not_static_rows_are_refused(
    changes: dict[str, Any], reason: str, tiny_base: str, tmp_path: Path
) -> None:
    export_sentence_transformers(TwoTowersModel(ModelConfig(base=tiny_base)), tmp_path / "out")
    (tmp_path / "out" / "router_config.json").write_text("{}")
    with pytest.raises(UserError, match=reason):
        TwoTowersModel.load(_static(tmp_path / "out", **changes))


@pytest.mark.parametrize("name", ["modules.json", "tokenizer.json", "model.safetensors"])
def test_damaged_files_of_others_are_refused(name: str, tiny_base: str, tmp_path: Path) -> None:
    export_sentence_transformers(TwoTowersModel(ModelConfig(base=tiny_base)), tmp_path / "out")
    (tmp_path / "out" / name).write_bytes(b"\xff damaged")
    with pytest.raises(UserError, match="; "):
        TwoTowersModel.load(tmp_path / "out")


def test_a_mapping_beyond_the_rows_is_refused(model2vec_folder: Path) -> None:
    tensors = load_file(model2vec_folder / "model.safetensors")
    for name, wrong in (("mapping", tensors["mapping"] + 4000), ("weights", tensors["weights"][:7])):
        save_file({**tensors, name: wrong.contiguous()}, model2vec_folder / "model.safetensors")
        with pytest.raises(UserError, match=r"not a sound safetensors file .*; fetch it again"):
            TwoTowersModel.load(model2vec_folder)
