import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from freemvmt.config import TrainConfig
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.trainer.dataset import TrainingData
from freemvmt.trainer.warm_start import warm_start
from freemvmt.training import train, train_and_save

from resealing import resealed


@pytest.fixture(scope="module")
def trained(tiny_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "model"
    return train_and_save(dataclasses.replace(tiny_config, output=str(output)))[1]


def test_a_recurrence_starts_as_the_average_that_was_trained(
    tiny_config: TrainConfig, tiny_data: TrainingData, trained: Path
) -> None:
    config = dataclasses.replace(tiny_config, tower="recurrent", hidden=8, init=str(trained), epochs=1)
    result = train(config, tiny_data)
    average = TwoTowersModel.load(trained)
    assert result.untrained_ndcg_10 == pytest.approx(average.record["scores"]["ndcg@10"], abs=1e-6)
    model = TwoTowersModel(config.model_config())
    gathered = warm_start(model, str(trained))
    assert torch.equal(gathered["document.table"], load_file(trained / "accumulators.safetensors")["document.table"])
    assert float(model.document_tower.table.detach().std() * model.document_tower.scale) == pytest.approx(1, rel=1e-3)
    # What the sums hold back: without them the rows' first steps are those of rows never trained.
    freely = dataclasses.replace(tiny_config, init=str(trained), epochs=1, learning_rate=1e-3)
    held = train(freely, tiny_data).model.document_tower.table
    (trained / "accumulators.safetensors").rename(trained / "aside")
    loose = train(freely, tiny_data).model.document_tower.table
    (trained / "aside").rename(trained / "accumulators.safetensors")
    held, loose, start = held.detach(), loose.detach(), average.document_tower.table.detach()
    assert float((held - start).norm()) < 0.8 * float((loose - start).norm())


def test_every_weight_that_fits_is_taken_and_two_towers_start_from_one(
    tiny_config: TrainConfig, tiny_data: TrainingData, tmp_path: Path
) -> None:
    config = dataclasses.replace(tiny_config, tower="recurrent", hidden=8, dim=24, epochs=1)
    first = train(config, tiny_data).model
    first.save(tmp_path / "first")
    again = TwoTowersModel(config.model_config())
    warm_start(again, str(tmp_path / "first"))
    apart = TwoTowersModel(dataclasses.replace(config, separate_towers=True).model_config())
    assert set(warm_start(apart, str(tmp_path / "first"))) == {"document.table", "query.table"}
    larger = TwoTowersModel(dataclasses.replace(config, hidden=12).model_config())
    warm_start(larger, str(tmp_path / "first"))
    texts = ["a tower of glass", "river and mountain"]
    for model in (again, apart):
        assert torch.equal(model.encode_queries(texts), first.encode_queries(texts))
    assert torch.equal(larger.document_tower.table, first.document_tower.table)


def test_what_does_not_fit_is_one_line(tiny_config: TrainConfig, trained: Path, packaged: Path, tmp_path: Path) -> None:
    table = load_file(packaged / "model.safetensors")["embeddings.word_embeddings.weight"]
    (tmp_path / "base").mkdir()
    save_file({"embeddings.word_embeddings.weight": table[:, :32].contiguous()}, tmp_path / "base/model.safetensors")
    definition = (packaged / "tokenizer.json").read_text()
    (tmp_path / "base/tokenizer.json").write_text(definition)
    narrow = TwoTowersModel(TrainConfig(base=str(tmp_path / "base")).model_config())
    with pytest.raises(UserError, match=r"has a table of \(30522, 48\), this model one of \(30522, 32\)"):
        warm_start(narrow, str(trained))
    (tmp_path / "base/tokenizer.json").write_text(definition.replace('"lowercase":true', '"lowercase":false'))
    other = TwoTowersModel(TrainConfig(base=str(tmp_path / "base")).model_config())
    with pytest.raises(UserError, match="another tokenizer"):
        warm_start(other, str(trained))
    model = TwoTowersModel(tiny_config.model_config())
    kept = (trained / "accumulators.safetensors").read_bytes()
    for wrong, said in ((kept[:100], "damaged"), (None, "does not fit")):
        if wrong is None:
            save_file({"document.table": torch.zeros(5)}, trained / "accumulators.safetensors")
        else:
            (trained / "accumulators.safetensors").write_bytes(wrong)
        with pytest.raises(UserError, match=r"accumulators.safetensors (has|was changed)"):
            warm_start(model, str(trained))
        resealed(trained)
        with pytest.raises(UserError, match=said):
            warm_start(model, str(trained))
    (trained / "accumulators.safetensors").write_bytes(kept)
