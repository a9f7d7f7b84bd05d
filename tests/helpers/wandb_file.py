"""Reads back the ``.wandb`` file that W&B 0.31 writes of a run: what tests of the tracker look at.

A 7-byte header, then LevelDB's log format: blocks of 32 KiB, in them records with a header of checksum (4 bytes),
length (2) and type (1: whole, 2: first, 3: middle, 4: last part), each record one protobuf ``Record``.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32 * 1024
HEADER = struct.Struct("<IHB")


@dataclass
class RunFile:
    """What one run recorded."""

    project: str = ""
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[str]] = field(default_factory=dict)  # "type:name" -> paths
    exit_code: int | None = None

    def series(self, name: str) -> dict[int, Any]:
        """A metric's values by step."""
        return {row["_step"]: row[name] for row in self.history if name in row}


def read(folder: Path) -> RunFile:
    """The one run below ``folder``; if this process wrote it, that must be over."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # a run's finish does not wait for the service to have written the end of the file
    (path,) = folder.rglob("*.wandb")
    run = RunFile()
    for data in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.project, run.name = record.run.project, record.run.display_name
            run.config |= _items(record.run.config.update)
        elif kind == "config":
            run.config |= _items(record.config.update)
        elif kind == "history":
            run.history.append(_items(record.history.item))
        elif kind == "summary":
            run.summary |= _items(record.summary.update)
        elif kind == "artifact":
            paths = [entry.path for entry in record.artifact.manifest.contents]
            run.artifacts[f"{record.artifact.type}:{record.artifact.name}"] = paths
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[bytes]:
    at, parts = 7, b""
    while at + HEADER.size <= len(data):
        if BLOCK - at % BLOCK < HEADER.size:  # too little room for a header: the block's end is empty
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(data, at)
        at += HEADER.size
        if kind == 0:
            return
        parts += data[at : at + length]
        at += length
        if kind in (1, 4):
            yield parts
            parts = b""
