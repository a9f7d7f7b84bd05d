from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from freemvmt.config import ModelConfig
from freemvmt.model import TwoTowersModel
from freemvmt.towers.pretrained import half_whitened
from freemvmt.towers.transformer import TransformerTower


def test_half_whitening_is_what_it_says() -> None:
    outputs = torch.randn(200, 6) @ torch.randn(6, 6) + 3
    rows = half_whitened(outputs, 0.05).double().numpy()
    assert rows.mean(0) == pytest.approx(0, abs=1e-6)
    assert rows.std(ddof=1) == pytest.approx(0.05, rel=1e-3)
    left, values, _ = np.linalg.svd((outputs - outputs.mean(0)).double().numpy(), full_matrices=False)
    expected = left * np.sqrt(values)  # (left * values) / sqrt(values)
    expected *= 0.05 / expected.std(ddof=1)
    assert np.abs(rows) == pytest.approx(np.abs(expected), abs=1e-5)  # a component has no sign


def test_rows_come_from_each_token_alone_and_are_kept(
    tiny_encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWO_TOWERS_CACHE", str(tmp_path))
    config = ModelConfig(base=tiny_encoder, rows="distilled")
    table = TwoTowersModel(config).document_tower.table.detach()
    raw = TwoTowersModel(ModelConfig(base=tiny_encoder)).document_tower.table.detach()
    assert table.shape == raw.shape
    assert float(table.std()) == pytest.approx(float(raw.std()), rel=1e-3)
    (kept,) = (tmp_path / "rows").iterdir()
    outputs = load_file(kept)["outputs"]
    assert torch.equal(half_whitened(outputs, float(raw.std())), table)
    assert torch.equal(TwoTowersModel(ModelConfig(base=tiny_encoder, rows="encoded")).document_tower.table, outputs)

    monkeypatch.setattr(TransformerTower, "forward", None)  # not needed again
    assert torch.equal(TwoTowersModel(config).document_tower.table.detach(), table)
    monkeypatch.undo()
    monkeypatch.setenv("TWO_TOWERS_CACHE", str(tmp_path))
    kept.write_bytes(b"nothing")
    assert torch.equal(TwoTowersModel(config).document_tower.table.detach(), table)
