"""Encoding by Ray Data, on this machine or a cluster: each actor has the model and writes whole shards.

Actors load the model by its name, so every machine must see it, and the output, under the same path. What they make
are the shards that the local engine makes.
"""

import itertools
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from freemvmt.errors import UserError
from freemvmt.export.vectors import Engine, Shard, Side, Stored, Work, fingerprint, key_of, vectors_of, write_shard
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.cores import cores
from freemvmt.runtime.optional import needed

_WAITING = 4  # shards for each processor that are handed out together


def on_ray(
    model: TwoTowersModel, name: str, output: Path, side: Side, stored: Stored, address: str | None = None
) -> Engine:
    """Ray at ``address``, None: started here. ``name`` is what ``model`` was loaded by."""
    ray = needed("ray")
    name = str(Path(name).absolute()) if Path(name).exists() else name
    told = {"name": name, "output": str(output.absolute()), "side": side, "stored": stored}
    told["made_by"] = fingerprint(model, side, stored)

    def made(asked: Iterator[Work]) -> Iterator[Shard]:
        processors = 0  # of the cluster, once there is work for it
        try:
            while some := list(itertools.islice(asked, _WAITING * (processors or cores()))):
                missing = []
                for work in some:
                    if key_of(output / work.file) == work.key:
                        yield Shard(work.file, len(work.ids), work.key, None)
                    else:
                        missing.append(work)
                if missing:
                    processors = processors or _started(ray, address)
                    yield from _handed_out(ray, missing, told, processors)
        except (ray.exceptions.RayError, ConnectionError) as error:
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, UserError):
                raise UserError(str(cause)) from error
            reason = (str(cause).strip() or type(cause).__name__).splitlines()[-1][:300]
            raise UserError(f"Ray has failed ({reason}); look at its log, and run again to go on") from error
        finally:
            if processors:
                ray.shutdown()

    return made


def _started(ray: Any, address: str | None) -> int:
    """Start Ray, or join the one at ``address``; how many processors it has."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return int(ray.cluster_resources().get("CPU", 1))


def _handed_out(ray: Any, missing: list[Work], told: dict[str, str], processors: int) -> Iterator[Shard]:
    """A row a shard, so that no shard is divided."""
    rows = [{"number": w.number, "key": w.key, "ids": w.ids, "texts": w.texts} for w in missing]
    actors = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(processors, len(rows))))
    found = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _Encoder, fn_constructor_kwargs=told, compute=actors, num_cpus=1
    )
    for row in found.iter_rows():
        yield Shard(row["file"], row["documents"], row["key"], row["seconds"])


class _Encoder:
    """What an actor is: it encodes the texts of a row and writes its shard."""

    def __init__(self, name: str, output: str, side: Side, stored: Stored, made_by: str) -> None:
        self._model = TwoTowersModel.load(name)
        self._output, self._side, self._stored = Path(output), side, stored
        if fingerprint(self._model, side, stored) != made_by:
            raise UserError(f"{name} is another model on one of the machines; put the same one under that path")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        clock = time.perf_counter()
        work = Work(int(row["number"]), str(row["key"]), list(row["ids"]), list(row["texts"]))
        write_shard(self._output, work, vectors_of(self._model, work.texts, self._side), self._stored)
        seconds = time.perf_counter() - clock
        return {"file": work.file, "documents": len(work.ids), "key": work.key, "seconds": seconds}
