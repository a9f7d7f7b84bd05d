"""Bundles whose documents are in Milvus: the folder holds the model and the location of the collection.

Each build fills a new collection. The new bundle replaces the old one in one step; the old collection is dropped later,
when servers have had time to open the new bundle.
"""

import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from freemvmt.errors import UserError
from freemvmt.runtime.console import Console
from freemvmt.search.index import dense as vectors
from freemvmt.search.index.ranking import Vectors
from freemvmt.search.stores.filters import FieldKind
from freemvmt.search.stores.layout import FIELDS_FOLDER, FORMAT, STORE_FILE, TEXTS, Identity
from freemvmt.search.stores.milvus.client import Client, MilvusAddress
from freemvmt.search.stores.milvus.store import MilvusStore
from freemvmt.search.stores.texts import Texts
from freemvmt.storage.manifest import Shape, read_manifest, write_manifest

_HNSW_FROM = 100_000  # documents; fewer are searched one by one
_GRACE = 10.0  # seconds that servers have to open the new bundle
_SHAPE: Shape = {"uri": str, "base": str, "collection": str}


class Probes(NamedTuple):
    """Queries to measure recall with.

    ``queries`` (probes, dim) are their vectors; ``tenth`` (probes, 1) is the score of the tenth best document of each
    query by exact search.
    """

    queries: Vectors
    tenth: Vectors


def place_of(store: str, kind: vectors.IndexKind | None, stored: vectors.Quantization) -> MilvusAddress:
    """The place that ``store`` names; ``UserError`` for a ``kind`` or ``stored`` that is not supported in Milvus."""
    if kind not in (None, "exact", "hnsw") or stored != "fp32":
        raise UserError("--store takes --kind exact or hnsw and --quantize fp32; leave the others out")
    return MilvusAddress.of(store)


def build_in_milvus(
    place: MilvusAddress,
    folder: Path,
    chunks: Sequence[Vectors],
    probes: Probes,
    kind: vectors.IndexKind | None,
    kinds: dict[str, FieldKind],
    console: Console,
) -> tuple[str, dict[str, Any]]:
    """Insert the documents of ``folder`` and their vectors into a new collection, and write its location to ``folder``.

    The location is also written to the parent folder, so that the next build can drop the collection of a build that
    was killed. Returns the name of the collection and the manifest's ``index``.
    """
    work = folder.parent
    start = time.perf_counter()
    texts = Texts(folder)
    size = len(texts)
    index_kind: Literal["exact", "hnsw"] = (
        "exact" if kind == "exact" or (kind is None and size < _HNSW_FROM) else "hnsw"
    )
    _drop_collection_of(work)
    client = Client(place)
    name = f"{place.collection}_{secrets.token_hex(4)}"
    for target in (work, folder):
        content = {"store": FORMAT, "uri": place.uri, "base": place.collection, "collection": name}
        write_manifest(target / STORE_FILE, content)
    try:
        client.create(name, chunks[0].shape[1], index_kind)
        client.close()
        store = open_store(folder, (0, 0))
        with console.progress("milvus", size) as bar:
            store.fill((texts[row] for row in range(size)), chunks, kinds, bar.advance)
        ranking = store.view().dense(probes.queries, 10, None)
        hits = (ranking.documents >= 0) & (ranking.scores >= probes.tenth - 1e-5)
        recall = round(float(hits.sum() / (len(probes.queries) * min(10, size))), 4)
        store.close()
    except UserError:
        _drop_collection_of(work)
        raise
    for file in folder.glob(f"{TEXTS}.*"):
        file.unlink()
    shutil.rmtree(folder / FIELDS_FOLDER)
    console.line(
        f"milvus    {place}, {index_kind}; recall@10 {recall:.4f} against exact search", time.perf_counter() - start
    )
    return name, {"kind": index_kind, "stored": "fp32", "recall@10": recall}


def open_store(folder: Path, identity: Identity) -> MilvusStore:
    """The store at the location that the bundle in ``folder`` names."""
    location = read_manifest(folder / STORE_FILE, "store", FORMAT, _SHAPE)
    place = MilvusAddress(location["uri"], location["base"])
    return MilvusStore(folder, identity, place.checked(folder / STORE_FILE), location["collection"])


def drop_after_grace(location: dict[str, Any] | None) -> None:
    """Drop the collection at ``location``, if any, after servers have had time to open the new bundle."""
    if location is not None:
        time.sleep(_GRACE)
        _drop(location)


def location_in(folder: Path) -> dict[str, Any] | None:
    """The location (uri, base, collection) that the bundle in ``folder`` names, or None."""
    try:
        return read_manifest(folder / STORE_FILE, "store", FORMAT, _SHAPE)
    except UserError:
        return None


def _drop_collection_of(folder: Path) -> None:
    if (location := location_in(folder)) is not None:
        _drop(location)
        (folder / STORE_FILE).unlink()


def _drop(location: dict[str, Any]) -> None:
    client = Client(MilvusAddress(location["uri"], location["base"]))
    client("drop_collection", location["collection"])  # no error if it does not exist
    client.close()
