"""Arrow's files read without Arrow: what pyarrow wrote comes out, and what is damaged crashes nothing."""

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from freemvmt.search.stores.arrow import Array, read_arrow

TYPES: dict[str, pa.DataType] = {
    "text": pa.large_string(),
    "whole": pa.int64(),
    "fraction": pa.float64(),
    "small": pa.int8(),
    "flag": pa.bool_(),
    "both": pa.struct([("whole", pa.int64()), ("fraction", pa.float64())]),
}


def table(draw: random.Random, rows: int, nulls: float) -> pa.Table:
    def value(name: str) -> Any:
        if draw.random() < nulls:
            return None
        return {
            "text": lambda: draw.choice(["", "a", "été", "日本", "a\0b", "x" * 300]),
            "whole": lambda: draw.randint(-(2**63), 2**63 - 1),
            "fraction": lambda: draw.choice([0.0, -0.0, 1e300, draw.random()]),
            "small": lambda: draw.randint(-128, 127),
            "flag": lambda: draw.random() < 0.5,
            "both": lambda: {"whole": draw.choice([None, 2**53 + 1]), "fraction": draw.choice([None, 0.5])},
        }[name]()

    return pa.table({name: pa.array([value(name) for _ in range(rows)], type) for name, type in TYPES.items()})


def write(path: Path, content: pa.Table, chunk: int | None = None, **options: Any) -> Path:
    written = pa.ipc.IpcWriteOptions(**options)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, content.schema, options=written) as writer:
        writer.write_table(content, chunk)
    return path


def values_of(array: Array) -> list[Any]:
    if array.type == "struct":
        parts = [values_of(part) for part in array.parts]
        found: list[Any] = [dict(zip(("whole", "fraction"), pair, strict=True)) for pair in zip(*parts, strict=True)]
    elif array.type == "text":
        whole, ends = array.values.tobytes(), array.offsets.tolist()
        found = [whole[start:stop].decode() for start, stop in itertools.pairwise(ends)]
    else:
        found = array.values.tolist()
    if array.valid is None:
        return found
    return [value if there else None for value, there in zip(found, array.valid.tolist(), strict=True)]


@pytest.mark.parametrize("nulls", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("rows", "chunk"), [(1, None), (8, None), (1000, None), (1000, 77), (0, None)])
def test_what_arrow_wrote_is_read(tmp_path: Path, rows: int, chunk: int | None, nulls: float) -> None:
    content = table(random.Random(rows), rows, nulls)
    batches = read_arrow(write(tmp_path / "t.arrow", content, chunk))
    assert sum(batch.rows for batch in batches) == rows
    assert len(batches) == (-(-rows // chunk) if chunk else min(rows, 1))
    for name in TYPES:
        read = [value for batch in batches for value in values_of(batch.columns[name])]
        assert read == content[name].to_pylist()
    for batch in batches:
        assert not batch.columns["whole"].values.flags.owndata  # mapped


def test_what_no_bundle_holds_is_refused(tmp_path: Path) -> None:
    content = table(random.Random(0), 50, 0.1)
    others = {
        "text of another kind": pa.table({"a": pa.array(["a"], pa.string())}),
        "numbers of another size": pa.table({"a": pa.array([1], pa.int32())}),
        "floats of another size": pa.table({"a": pa.array([1], pa.float32())}),
        "lists": pa.table({"a": pa.array([[1]], pa.list_(pa.int64()))}),
        "a dictionary": pa.table({"a": pa.array(["a"]).dictionary_encode()}),
    }
    for name, other in others.items():
        with pytest.raises(ValueError, match="of a kind that no bundle has"):
            read_arrow(write(tmp_path / f"{name}.arrow", other))
    with pytest.raises(ValueError, match="compressed"):
        read_arrow(write(tmp_path / "small.arrow", content, compression="zstd"))
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("no Arrow at all, but a text")
    for name in ("empty", "text"):
        with pytest.raises(ValueError, match=r"empty|no Arrow file"):
            read_arrow(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_arrow(tmp_path / "nothing")


def test_what_is_damaged_is_refused_or_read_and_crashes_nothing(tmp_path: Path) -> None:
    draw = random.Random(1)
    sound = write(tmp_path / "t.arrow", table(draw, 40, 0.2), 13).read_bytes()
    footer = len(sound) - int.from_bytes(sound[-10:-6], "little") - 10
    refused = 0
    for number in range(3000):
        damaged = bytearray(sound)
        if number % 10 == 0:
            del damaged[draw.randrange(len(damaged)) :]
            damaged += b"ARROW1"
        for _ in range(draw.randint(1, 4)):  # most of them where the places are written
            place = draw.randrange(footer if draw.random() < 0.7 else 0, len(sound))
            damaged[place % len(damaged)] = draw.randrange(256)
        path = tmp_path / "damaged.arrow"
        path.write_bytes(damaged)
        try:
            for batch in read_arrow(path):
                for array in batch.columns.values():
                    np.sum(array.values)
        except (ValueError, OSError):
            refused += 1
    assert refused > 1000
