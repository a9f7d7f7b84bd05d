"""MS MARCO: its rows from the Hub, and the files that it is published as."""

import glob
import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from freemvmt.data.collection import Collection
from freemvmt.data.lines import packed_in
from freemvmt.data.readers.beir import ANOTHER_SPLIT, read_documents, read_queries
from freemvmt.data.readers.qrels import judged_collection, read_qrels
from freemvmt.errors import UserError
from freemvmt.storage.hub import AWAY, MS_MARCO, UTILS, Unavailable, logger, quiet, reachable, reason

if TYPE_CHECKING:
    import datasets

CONFIGS = ("v1.1", "v2.1")
SPLITS = ("train", "validation", "test")


def ms_marco(
    config: str, split: str, *, streaming: bool = False, rows: int | None = None
) -> "datasets.Dataset | datasets.IterableDataset":
    """The first ``rows`` rows (None: all) of a split of MS MARCO, with the columns query, query_id and passages.

    Raises ``Unavailable``; where there is neither a cached copy nor a Hub, before the import of `datasets`.
    """
    for what, value, known in (("config", config, CONFIGS), ("split", split, SPLITS)):
        if value not in known:
            raise UserError(f"MS MARCO has no {what} {value!r}; give one of {', '.join(known)}")
    instead = "give --dataset pydocs, or the path of pairs of your own"
    cached = _ms_marco_is_cached(config)
    if not cached and not reachable():
        raise Unavailable(f"MS MARCO {config} is not in the local cache and {AWAY}; {instead}")
    import datasets

    if not cached:
        what = f"streaming the {split} split of" if streaming else "fetching"
        logger.info("%s MS MARCO %s from the Hugging Face Hub", what, config)
    utils, switch, faults = import_module(UTILS), datasets.config, datasets.exceptions
    before, switch.HF_HUB_OFFLINE = switch.HF_HUB_OFFLINE, cached or switch.HF_HUB_OFFLINE
    try:
        with quiet(datasets.utils), quiet(utils):
            data = datasets.load_dataset(MS_MARCO, config, split=split, streaming=streaming)
    except (OSError, ValueError, faults.DatasetsError, utils.httpx.HTTPError) as error:
        gone = isinstance(error, faults.DatasetNotFoundError) and "the Hub does not have it, or not for you"
        raise Unavailable(f"cannot get MS MARCO {config}: {gone or reason(error)}; {instead}") from error
    finally:
        switch.HF_HUB_OFFLINE = before
    data = data.select_columns(["query", "query_id", "passages"])
    return data if rows is None else data.take(rows)


def _ms_marco_is_cached(config: str) -> bool:
    """Whether `datasets` has prepared that configuration here; told without its import, which takes seconds."""
    from huggingface_hub import constants

    cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME, "datasets")).expanduser()
    return any(cache.glob(f"{MS_MARCO.replace('/', '___')}/{config}/*/*/dataset_info.json"))


# What TREC's deep learning tracks call their files, beside MS MARCO's own.
_TREC = {
    "dl19": ("2019qrels-pass.txt", "msmarco-test2019-queries.tsv"),
    "dl20": ("2020qrels-pass.txt", "msmarco-test2020-queries.tsv"),
}


def ms_marco_tsv(folder: Path, part: str) -> Collection:
    """MS MARCO's own files: ``collection.tsv``, ``queries.PART*.tsv``, ``qrels.PART*.tsv``; TREC's for dl19, dl20."""
    qrels_file = qrels_file_of(folder, (part,))
    if qrels_file is None:
        found = ", ".join(sorted(file.name for file in folder.glob("qrels.*.tsv"))) or "none"
        todo = packed_in(folder, f"qrels.{part}.") or ANOTHER_SPLIT
        raise UserError(f"{folder} has no qrels.{part}.tsv (found: {found}); {todo}")
    queries_file = folder / qrels_file.name.replace("qrels.", "queries.", 1)
    if part in _TREC and qrels_file.name == _TREC[part][0]:
        queries_file = folder / _TREC[part][1]
    elif not queries_file.exists():
        queries_file = folder / f"queries.{part}.tsv"
    queries = read_queries(queries_file)
    ids, documents = read_documents(folder / "collection.tsv")
    return judged_collection(folder.name, ids, documents, queries, read_qrels(qrels_file), qrels_file)


def qrels_file_of(folder: Path, parts: Iterable[str]) -> Path | None:
    for part in parts:
        trec = [folder / _TREC[part][0]] if part in _TREC else []
        for file in (folder / f"qrels.{part}.tsv", *sorted(folder.glob(f"qrels.{glob.escape(part)}.*.tsv")), *trec):
            if file.exists():
                return file
    return None
