"""MS MARCO: its rows on the Hub, and its original files."""

import glob
import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from freemvmt.data.collection import Collection
from freemvmt.data.lines import unpack_hint
from freemvmt.data.readers.beir import SPLIT_HINT, read_documents, read_queries
from freemvmt.data.readers.qrels import judged_collection, read_qrels
from freemvmt.errors import UserError
from freemvmt.storage.files import name_of
from freemvmt.storage.hub import MS_MARCO, UNREACHABLE, UTILS, Unavailable, logger, quiet, reachable, reason_of

if TYPE_CHECKING:
    import datasets

CONFIGS = ("v1.1", "v2.1")
SPLITS = ("train", "validation", "test")


def ms_marco(
    config: str, split: str, *, streaming: bool = False, rows: int | None = None
) -> "datasets.Dataset | datasets.IterableDataset":
    """The first ``rows`` rows (None: all) of a split of MS MARCO, with the columns query, query_id and passages.

    Raises ``Unavailable``. Without a cached copy and without the Hub, it raises before it imports `datasets`.
    """
    for kind, value, choices in (("config", config, CONFIGS), ("split", split, SPLITS)):
        if value not in choices:
            raise UserError(f"MS MARCO has no {kind} {value!r}; give one of {', '.join(choices)}")
    hint = "give --dataset pydocs, or the path of pairs of your own"
    cached = _ms_marco_is_cached(config)
    if not cached and not reachable():
        raise Unavailable(f"MS MARCO {config} is not in the local cache and {UNREACHABLE}; {hint}")
    import datasets

    if not cached:
        kind = f"streaming the {split} split of" if streaming else "fetching"
        logger.info("%s MS MARCO %s from the Hugging Face Hub", kind, config)
    hub_utils, settings, exceptions = import_module(UTILS), datasets.config, datasets.exceptions
    was_offline, settings.HF_HUB_OFFLINE = settings.HF_HUB_OFFLINE, cached or settings.HF_HUB_OFFLINE
    try:
        with quiet(datasets.utils), quiet(hub_utils):
            data = datasets.load_dataset(MS_MARCO, config, split=split, streaming=streaming)
    except (OSError, ValueError, exceptions.DatasetsError, hub_utils.httpx.HTTPError) as error:
        not_found = isinstance(error, exceptions.DatasetNotFoundError) and "the Hub does not have it, or not for you"
        raise Unavailable(f"cannot get MS MARCO {config}: {not_found or reason_of(error)}; {hint}") from error
    finally:
        settings.HF_HUB_OFFLINE = was_offline
    data = data.select_columns(["query", "query_id", "passages"])
    return data if rows is None else data.take(rows)


def _ms_marco_is_cached(config: str) -> bool:
    """Whether the local cache of `datasets` has that configuration. Does not import `datasets`, which takes seconds."""
    from huggingface_hub import constants

    cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME, "datasets")).expanduser()
    return any(cache.glob(f"{MS_MARCO.replace('/', '___')}/{config}/*/*/dataset_info.json"))


# (qrels, queries) files of TREC's deep learning tracks, in the same folder as MS MARCO's own files.
_TREC_FILES = {
    "dl19": ("2019qrels-pass.txt", "msmarco-test2019-queries.tsv"),
    "dl20": ("2020qrels-pass.txt", "msmarco-test2020-queries.tsv"),
}


def ms_marco_tsv(folder: Path, split: str) -> Collection:
    """A split from ``collection.tsv``, ``queries.SPLIT*.tsv``, ``qrels.SPLIT*.tsv``, or TREC's files (dl19, dl20)."""
    qrels_file = qrels_file_of(folder, (split,))
    if qrels_file is None:
        available = ", ".join(sorted(file.name for file in folder.glob("qrels.*.tsv"))) or "none"
        hint = unpack_hint(folder, f"qrels.{split}.") or SPLIT_HINT
        raise UserError(f"{folder} has no qrels.{split}.tsv (found: {available}); {hint}")
    queries_file = folder / qrels_file.name.replace("qrels.", "queries.", 1)
    if split in _TREC_FILES and qrels_file.name == _TREC_FILES[split][0]:
        queries_file = folder / _TREC_FILES[split][1]
    elif not queries_file.exists():
        queries_file = folder / f"queries.{split}.tsv"
    queries = read_queries(queries_file)
    ids, _, documents = read_documents(folder / "collection.tsv")
    return judged_collection(name_of(folder), ids, documents, queries, read_qrels(qrels_file), qrels_file)


def qrels_file_of(folder: Path, splits: Iterable[str]) -> Path | None:
    for split in splits:
        trec = [folder / _TREC_FILES[split][0]] if split in _TREC_FILES else []
        for file in (folder / f"qrels.{split}.tsv", *sorted(folder.glob(f"qrels.{glob.escape(split)}.*.tsv")), *trec):
            if file.exists():
                return file
    return None
