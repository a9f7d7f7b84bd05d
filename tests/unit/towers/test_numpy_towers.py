"""Light towers in NumPy give the vectors and the shares of those in PyTorch."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from freemvmt.data.ragged import TokenArray
from freemvmt.errors import UserError
from freemvmt.search.lazy_model import LazyModel
from freemvmt.storage.mapped_tensors import map_tensors
from freemvmt.towers.model_folder import WEIGHTS, weight_files
from freemvmt.towers.numpy_towers import light_towers

from exports import CELLS, TEXTS, VARIANTS, made

MORE: dict[str, dict[str, Any]] = {
    **{name: changes for name, changes in VARIANTS.items() if "transformer" not in changes.values()},
    **{
        f"{cell}, {pooling}, {layers}, {both}, {residual}": {
            "cell": cell, "pooling": pooling, "layers": layers, "bidirectional": both, "residual": residual,
        }
        for cell, pooling, layers, both, residual in itertools.product(
            CELLS, ("mean", "both"), (1, 3), (True, False), (True, False)
        )
    },
    "average beside a recurrence": {"tower": "average", "document_tower": "recurrent"},
}  # fmt: skip


@pytest.mark.parametrize("variant", MORE)
def test_every_light_tower_encodes_and_splits_as_in_torch(variant: str, tiny_base: str, tmp_path: Path) -> None:
    model = made(tiny_base, MORE[variant])
    model.save(tmp_path / "model")
    light = LazyModel(tmp_path / "model")
    assert (light.dim, light.split_side, light.hybrid_weight) == (model.dim, model.split_side, model.hybrid_weight)
    for texts in ([*TEXTS, *TEXTS[::-1]] * 9, TEXTS[:1], TEXTS[5:6], ["", "  "], []):
        for encode in ("encode_queries", "encode_documents"):
            vectors = getattr(light, encode)(texts)
            assert vectors.dtype == np.float32
            np.testing.assert_allclose(vectors, getattr(model, encode)(texts).numpy(), atol=1e-5)
    for texts in (TEXTS, [""], []):
        tokens = model.tokenizer.encode(texts)
        for split in ("split_queries", "split_documents"):
            np.testing.assert_allclose(getattr(light, split)(tokens), getattr(model, split)(tokens).numpy(), atol=1e-5)
    assert light._whole is None


@pytest.mark.parametrize("changes", [{}, {"cell": "gru"}, {"separate_towers": True}])
def test_rows_of_a_byte_a_number_move_a_score_by_less_than_a_hundredth(
    changes: dict[str, Any], tiny_base: str, tmp_path: Path
) -> None:
    model = made(tiny_base, changes)
    model.save(tmp_path)
    whole, small = LazyModel(tmp_path), LazyModel(tmp_path, "int8")
    moved = np.linalg.norm(whole.encode_queries(TEXTS) - small.encode_queries(TEXTS), axis=1)
    assert 0 < moved.max() < 0.01  # a cosine moves by no more than that
    assert np.array_equal(whole.encode_documents(TEXTS), small.encode_documents(TEXTS))
    rows = small._towers["query"]._table
    assert rows._numbers.nbytes + rows._scales.nbytes < 0.4 * whole._towers["query"]._table._table.nbytes


def test_the_token_table_is_not_copied(tiny_base: str, tmp_path: Path) -> None:
    made(tiny_base, {}).save(tmp_path)
    base = LazyModel(tmp_path)._towers["query"]._table._table
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert not base.flags.writeable


def test_weights_that_do_not_fit_or_are_not_finite_are_refused(tiny_base: str, tmp_path: Path) -> None:
    model = made(tiny_base, {"cell": "gru"})
    model.save(tmp_path)
    config = model.config
    (towers, *_) = light_towers(tmp_path, weight_files(config), config, "fp32").values()
    with pytest.raises(UserError, match="ids that the token table has no rows for"):
        towers.encode(TokenArray(np.array([10**6], np.int32), np.array([0, 1])))
    for changes in ({"hidden": 9}, {"layers": 2}, {"cell": "lstm"}, {"pooling": "both"}, {"dim": 7}):
        with pytest.raises(UserError, match="the weights do not fit"):
            light_towers(tmp_path, weight_files(config), dataclasses.replace(config, **changes), "fp32")
    with torch.no_grad():
        model.document_tower.table.fill_(torch.nan)
    model.save(tmp_path)
    with pytest.raises(UserError, match="not finite"):
        LazyModel(tmp_path).encode_queries(TEXTS)


def test_a_damaged_file_of_weights_is_refused_in_one_line(tiny_base: str, tmp_path: Path) -> None:
    model = made(tiny_base, {})
    model.save(tmp_path)
    (name,) = weight_files(model.config)
    assert name == WEIGHTS
    sound = (tmp_path / name).read_bytes()
    size = int.from_bytes(sound[:8], "little")
    header = json.loads(sound[8 : 8 + size])
    outside = {**header["document.table"], "data_offsets": [0, 2**40]}
    headers = [
        [], {"a": 1}, {"a": {}}, {"document.table": outside}, {"document.table": {**outside, "data_offsets": [8, 0]}},
        {"a": {**outside, "dtype": "I99"}}, {"a": {**outside, "shape": [-2, 3]}}, {"a": {**outside, "more": 1}},
    ]  # fmt: skip
    damaged = [b"", sound[:7], sound[:100], (2**63).to_bytes(8, "little") + sound[8:], sound[:-4]]
    for entry in headers:
        text = json.dumps(entry).encode()
        damaged.append(len(text).to_bytes(8, "little") + text + sound[8 + size :])
    for content in damaged:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"is damaged \(.*\); save the model again"):
            map_tensors(tmp_path / name)
