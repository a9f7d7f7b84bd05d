"""Every tokenizer.json that leaves us gives our ids, also in what others read."""

import json
from pathlib import Path

import pytest
import tokenizers

from freemvmt.config import ModelConfig
from freemvmt.data.tokenizer_json import settings_of
from freemvmt.export.onnx import export_onnx
from freemvmt.export.sentence_transformers import export_sentence_transformers
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.onnx_encoder import OnnxEncoder
from freemvmt.search.retriever import Retriever

from resealing import resealed


def save_as_base_has_it(model: TwoTowersModel, folder: Path) -> None:
    """A model as it was saved when tokenizer.json stayed as the base has it."""
    model.save(folder)
    (folder / "tokenizer.json").write_text(model.tokenizer.definition, encoding="utf-8")
    description = json.loads((folder / "config.json").read_text())
    del description["tokenizer"]
    (folder / "config.json").write_text(json.dumps(description))
    resealed(folder)


TEXT = "river " * 5 + "mountain " * 300  # 305 tokens


def check_file(path: Path, model: TwoTowersModel, length: int) -> None:
    read = tokenizers.Tokenizer.from_file(str(path))
    assert read.padding is None
    assert read.truncation["max_length"] == length
    for text in (TEXT, "a river"):
        made = read.encode(text, add_special_tokens=False)
        assert made.ids == model.tokenizer.encode([text]).ids.tolist()
        assert set(made.attention_mask) == {1}


@pytest.mark.parametrize("length", [7, 256])
@pytest.mark.parametrize("before", [False, True])
def test_every_tokenizer_file_that_leaves_gives_our_ids_and_names_stay(
    length: int, before: bool, tiny_base: str, tmp_path: Path
) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_base, max_length=length))
    assert settings_of(model.tokenizer.definition)["padding"] not in (None, "null")  # as bases come
    digest = model.digest()
    if before:
        save_as_base_has_it(model, tmp_path / "model")
    else:
        model.save(tmp_path / "model")
        check_file(tmp_path / "model" / "tokenizer.json", model, length)
    model = TwoTowersModel.load(tmp_path / "model")
    assert model.digest() == digest
    model.save(tmp_path / "again")
    assert TwoTowersModel.load(tmp_path / "again").digest() == digest

    export_onnx(model, tmp_path / "onnx")
    export_sentence_transformers(model, tmp_path / "static")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"id": "a", "text": TEXT}) + "\n")
    build(model, str(corpus), tmp_path / "bundle")
    for folder in ("again", "onnx", "static", "bundle/model"):
        check_file(tmp_path / folder / "tokenizer.json", model, length)
    graphs = OnnxEncoder(tmp_path / "onnx")
    assert graphs.tokenizer.definition == model.tokenizer.definition
    retriever = Retriever.load(tmp_path / "bundle", graphs=tmp_path / "onnx")
    assert retriever.search("mountain", 1)[0].id == "a"
    retriever.close()
    assert (
        TwoTowersModel.load(tmp_path / "static")
        .encode_documents([TEXT])
        .allclose(model.encode_documents([TEXT]), atol=1e-6)
    )
