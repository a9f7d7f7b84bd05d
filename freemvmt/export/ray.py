"""Encode a corpus with Ray Data, on this machine or on a cluster: each actor loads the model and writes whole shards.

Actors load the model by its name, so the model and the output folder must have the same path on every machine. The
shards are the same as those of the local engine.
"""

import itertools
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from freemvmt.config import Side
from freemvmt.errors import UserError
from freemvmt.export.vectors import Engine, Shard, ShardTask, Stored, fingerprint, key_of, vectors_of, write_shard
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.cores import cores
from freemvmt.runtime.optional import require

_SHARDS_PER_PROCESSOR = 4  # shards in one Ray job, for each processor


def on_ray(
    model: TwoTowersModel, name: str, output: Path, side: Side, stored: Stored, address: str | None = None
) -> Engine:
    """An engine on Ray at ``address``; None starts Ray on this machine. ``name`` is the path or name of ``model``."""
    ray = require("ray")
    name = str(Path(name).absolute()) if Path(name).exists() else name
    settings = {"name": name, "output": str(output.absolute()), "side": side, "stored": stored}
    settings["made_by"] = fingerprint(model, side, stored)

    def ray_engine(tasks: Iterator[ShardTask]) -> Iterator[Shard]:
        processors = 0  # of the cluster; 0 until Ray is started
        try:
            while batch := list(itertools.islice(tasks, _SHARDS_PER_PROCESSOR * (processors or cores()))):
                missing = []
                for task in batch:
                    if key_of(output / task.file) == task.key:
                        yield Shard(task.file, len(task.ids), task.key, None)
                    else:
                        missing.append(task)
                if missing:
                    processors = processors or _start_ray(ray, address)
                    yield from _encode_missing(ray, missing, settings, processors)
        except (ray.exceptions.RayError, ConnectionError) as error:
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, UserError):
                raise UserError(str(cause)) from error
            reason = (str(cause).strip() or type(cause).__name__).splitlines()[-1][:300]
            raise UserError(f"Ray has failed ({reason}); look at its log, and run again to go on") from error
        finally:
            if processors:
                ray.shutdown()

    return ray_engine


def _start_ray(ray: Any, address: str | None) -> int:
    """Start Ray, or connect to the one at ``address``; return its number of processors."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return int(ray.cluster_resources().get("CPU", 1))


def _encode_missing(ray: Any, missing: list[ShardTask], settings: dict[str, str], processors: int) -> Iterator[Shard]:
    """Encode those shards as one Ray job; each row of the data set is one shard, so that no shard is divided."""
    rows = [{"number": task.number, "key": task.key, "ids": task.ids, "texts": task.texts} for task in missing]
    actors = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(processors, len(rows))))
    results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _ShardEncoder, fn_constructor_kwargs=settings, compute=actors, num_cpus=1
    )
    for result in results.iter_rows():
        yield Shard(result["file"], result["documents"], result["key"], result["seconds"])


class _ShardEncoder:
    """An actor that encodes the texts of a row and writes them as a shard."""

    def __init__(self, name: str, output: str, side: Side, stored: Stored, made_by: str) -> None:
        self._model = TwoTowersModel.load(name)
        self._output, self._side, self._stored = Path(output), side, stored
        if fingerprint(self._model, side, stored) != made_by:
            raise UserError(f"{name} is another model on one of the machines; put the same one under that path")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        task = ShardTask(int(row["number"]), str(row["key"]), list(row["ids"]), list(row["texts"]))
        write_shard(self._output, task, vectors_of(self._model, task.texts, self._side), self._stored)
        seconds = time.perf_counter() - start
        return {"file": task.file, "documents": len(task.ids), "key": task.key, "seconds": seconds}
