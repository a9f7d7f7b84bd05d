import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from freemvmt.config import ModelConfig, TrainConfig
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.errors import UserError
from freemvmt.losses.softmax import Distillation, Temperature
from freemvmt.model import TwoTowersModel
from freemvmt.towers import vector_cache
from freemvmt.towers.transformer import TransformerTower, pretrained_tower
from freemvmt.trainer.dataset import TrainingData, prepare
from freemvmt.trainer.teacher import Teacher
from freemvmt.training import train

CPU = torch.device("cpu")
TEXTS = ["a tower", "", "the quick brown fox jumps over the lazy dog", "a tower", "of " * 100, "un-be-liev-able"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TWO_TOWERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vector_cache, "_CHUNK", 4)
    return tmp_path / "cache" / "vectors"


def by_the_library(folder: str, text: str) -> torch.Tensor:
    """The mean of the outputs of one text, as its own tokenizer and model give them."""
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json")
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    ids = [101, *tokenizer(text, add_special_tokens=False)["input_ids"][:30], 102]
    with torch.no_grad():
        return model(torch.tensor([ids])).last_hidden_state[0].mean(0)


def test_a_transformer_gives_the_mean_of_its_outputs(tiny_encoder: str) -> None:
    tokens = Tokenizer.from_file(Path(tiny_encoder, "tokenizer.json"), 256).encode(TEXTS)
    with torch.no_grad():
        vectors = pretrained_tower(Path(tiny_encoder))(tokens)
    for vector, text in zip(vectors, TEXTS, strict=True):
        right = by_the_library(tiny_encoder, text) if text else torch.zeros(24)
        torch.testing.assert_close(vector, right, atol=1e-5, rtol=1e-4)


def test_vectors_are_made_once_and_a_stop_loses_a_chunk(
    tiny_encoder: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Teacher(tiny_encoder, 256, CPU).vectors(TEXTS, "queries")
    assert first.shape == (6, 24)
    assert np.linalg.norm(first.astype(np.float32), axis=1) == pytest.approx([1, 0, 1, 1, 1, 1], abs=2e-3)
    assert len(list(cache.glob("*/*.safetensors"))) == 2  # five texts are different

    encoded: list[int] = []
    encode = TransformerTower.forward
    monkeypatch.setattr(
        TransformerTower, "forward", lambda self, tokens: (encoded.append(len(tokens)), encode(self, tokens))[1]
    )
    assert np.array_equal(Teacher(tiny_encoder, 256, CPU).vectors(TEXTS, "documents"), first)  # one tower for both
    more = Teacher(tiny_encoder, 256, CPU).vectors(["another", *reversed(TEXTS)], "queries")
    assert np.array_equal(more[1:], first[::-1])  # in other company
    assert encoded == [1]
    damaged, kept = sorted(cache.glob("*/*.safetensors"), key=lambda path: path.stat().st_size)[1:]
    damaged.write_bytes(kept.read_bytes()[:-1])
    assert np.array_equal(Teacher(tiny_encoder, 256, CPU).vectors(TEXTS, "queries"), first)
    assert encoded[0] == 1
    assert encoded[1:] in ([1], [4])  # that file alone
    encoded.clear()
    Teacher(tiny_encoder, 7, CPU).vectors(TEXTS, "queries")  # cut elsewhere: other vectors
    assert encoded == [4, 1]
    assert kept.exists()
    assert Teacher(tiny_encoder, 7, CPU).vectors([], "queries").shape[0] == 0


def test_a_teacher_and_a_tower_with_its_weights_share_a_cache(
    tiny_encoder: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_encoder, query_tower="average", document_tower="transformer"))
    vectors = model.cached_vectors("document", TEXTS)
    with monkeypatch.context() as patch:
        patch.setattr("freemvmt.trainer.teacher.matrix_dtype", lambda *_: torch.float32)  # on any processor
        patch.setattr(TransformerTower, "forward", lambda *_: pytest.fail("encoded again"))
        assert np.array_equal(Teacher(tiny_encoder, 256, CPU).vectors(TEXTS, "queries"), vectors.half().numpy())
    monkeypatch.setattr("freemvmt.trainer.teacher.matrix_dtype", lambda *_: torch.bfloat16)
    coarse = Teacher(tiny_encoder, 256, CPU).vectors(TEXTS, "queries")  # of other digits, so it has its own cache
    assert len(list(cache.iterdir())) == 2
    assert np.allclose(coarse, vectors, atol=0.05)


def test_a_model_of_ours_teaches_too(tiny_base: str, tmp_path: Path) -> None:
    config = TrainConfig(base=tiny_base, separate_towers=True)
    model = TwoTowersModel(config.model_config())
    model.query_tower.table.data.mul_(torch.rand(48))
    model.save(tmp_path / "model")
    made = Teacher(str(tmp_path / "model"), 256, CPU)
    for found, right in (
        (made.vectors(TEXTS, "queries"), model.encode_queries(TEXTS)),
        (made.vectors(TEXTS, "documents"), model.encode_documents(TEXTS)),
    ):
        torch.testing.assert_close(torch.from_numpy(found).float(), F.normalize(right), atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("loss", ["triplet", "infonce"])
def test_a_student_comes_to_see_what_its_teacher_sees(
    tiny_config: TrainConfig, tiny_data: TrainingData, tmp_path: Path, loss: str
) -> None:
    teacher_model = train(tiny_config, tiny_data).model
    teacher_model.document_tower.table.data[:, 6:] = 0  # it sees the world in a way of its own
    teacher_model.save(tmp_path / "teacher")
    alone = dataclasses.replace(tiny_config, loss=loss)
    taught = dataclasses.replace(alone, distill=2.0, teacher=str(tmp_path / "teacher"))

    def seen(model: TwoTowersModel) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = tiny_data.examples.pairs()
        queries = model.encode_query_tokens(tiny_data.queries.take(pairs[0]))
        return queries, model.encode_document_tokens(tiny_data.passages.take(pairs[1]))

    far = Distillation(Temperature(tiny_config.temperature, CPU), torch.float32)
    right = seen(teacher_model)
    student = far(*seen(train(taught, prepare(taught)).model), right)
    other = far(*seen(train(alone, tiny_data).model), right)
    assert student < 0.7 * other


def test_no_teacher_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        Teacher(str(tmp_path), 256, CPU)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        (tmp_path / name).write_text("nothing")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        Teacher(str(tmp_path), 256, CPU)
    with pytest.raises(UserError, match="give --teacher FOLDER"):
        Teacher("some/one", 256, CPU)
