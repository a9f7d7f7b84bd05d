import dataclasses
import json
from pathlib import Path

import pytest
import torch

from freemvmt.config import ModelConfig, TrainConfig
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.towers import transformer
from freemvmt.trainer.dataset import prepare
from freemvmt.trainer.samplers import batch_size_for
from freemvmt.training import train

from resealing import resealed

TEXTS = ["a tower", "", "the quick brown fox jumps over the lazy dog", "of " * 100, "un-be-liev-able", "a tower"]


@pytest.fixture
def model(tiny_encoder: str) -> TwoTowersModel:
    return TwoTowersModel(ModelConfig(base=tiny_encoder, tower="transformer"))


def test_neither_padding_nor_company_changes_a_vector(model: TwoTowersModel, monkeypatch: pytest.MonkeyPatch) -> None:
    together = model.encode_documents(TEXTS)
    for number, text in enumerate(TEXTS):
        torch.testing.assert_close(model.encode_documents([text])[0], together[number], atol=1e-6, rtol=0)
    monkeypatch.setattr(transformer, "_TOKENS", 40)
    torch.testing.assert_close(model.encode_documents(TEXTS), together, atol=1e-6, rtol=0)
    assert torch.equal(together[1], torch.zeros(24))


def test_order_counts_here(model: TwoTowersModel) -> None:
    one, other = model.encode_queries(["dog bites man", "man bites dog"])
    assert float((one - other).norm()) > 1e-3


@pytest.mark.parametrize("changes", [{}, {"separate_towers": True, "dim": 12}])
def test_it_learns_and_is_kept_whole(
    tiny_encoder: str, rows_file: str, tmp_path: Path, changes: dict[str, object]
) -> None:
    config = TrainConfig(
        base=tiny_encoder, dataset=(rows_file,), tower="transformer", epochs=4, batch_size=32, learning_rate=1e-2,
        wandb=False, validation_fraction=0.2, warmup=0.1, **changes,
    )  # fmt: skip
    data = prepare(config)
    result = train(config, data)
    assert result.val_ndcg_10 > 2 * result.untrained_ndcg_10
    result.model.save(tmp_path / "model")
    again = TwoTowersModel.load(tmp_path / "model")
    assert torch.equal(again.encode_queries(TEXTS), result.model.encode_queries(TEXTS))
    assert torch.equal(again.encode_documents(TEXTS), result.model.encode_documents(TEXTS))
    assert not (tmp_path / "model" / "accumulators.safetensors").exists()
    once_more = train(dataclasses.replace(config, init=str(tmp_path / "model"), epochs=1), data)
    assert once_more.untrained_ndcg_10 == pytest.approx(result.val_ndcg_10)


def test_it_needs_its_own_table_and_does_not_split(model: TwoTowersModel, tiny_encoder: str) -> None:
    with pytest.raises(UserError, match="reads its own table"):
        ModelConfig(tower="transformer", rows="distilled")
    with pytest.raises(UserError, match="cannot be split"):
        model.split_documents(model.tokenizer.encode(TEXTS))
    config = TrainConfig(base=tiny_encoder, tower="transformer")
    assert batch_size_for(config, 10**6) == 128


def test_a_folder_whose_encoder_is_wrong_is_one_line(model: TwoTowersModel, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    sound = json.loads(path.read_text())
    wrong: list[object] = [
        None, [], {}, {"model_type": 3}, {"model_type": "no such"},
        sound["encoder"] | {"hidden_size": 25}, sound["encoder"] | {"hidden_size": "x"},
        sound["encoder"] | {"num_hidden_layers": 2},
    ]  # fmt: skip
    for encoder in wrong:
        path.write_text(json.dumps(sound | {"encoder": encoder}))
        resealed(path.parent)
        with pytest.raises(UserError, match="save the model again"):
            TwoTowersModel.load(tmp_path / "model")
    path.write_text(json.dumps(sound | {"encoder": sound["encoder"] | {"auto_map": {"AutoModel": "evil.Model"}}}))
    resealed(path.parent)
    assert torch.equal(TwoTowersModel.load(tmp_path / "model").encode_queries(TEXTS), model.encode_queries(TEXTS))
