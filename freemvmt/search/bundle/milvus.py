"""A bundle whose documents are in Milvus: the folder holds the model, and where they are.

Each indexing fills a collection of its own; the bundle that names it takes the place of the one before in one step, and
the collection of that one is dropped when those who serve it have had the time to open the new one.
"""

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from freemvmt.errors import UserError
from freemvmt.runtime.console import Console
from freemvmt.search.bundle.recall import Probes
from freemvmt.search.index import dense as vectors
from freemvmt.search.index.ranking import Vectors
from freemvmt.search.stores.filters import Kind
from freemvmt.search.stores.layout import FIELDS_FILE, FORMAT, STORE_FILE, TEXTS_FILE, Identity
from freemvmt.search.stores.milvus.client import Client, Place
from freemvmt.search.stores.milvus.store import MilvusStore
from freemvmt.search.stores.texts import Texts
from freemvmt.storage.manifest import Shape, read_sealed, write_sealed

EXACT_BELOW = 100_000  # documents; beyond, a graph
_GRACE = 10.0  # seconds in which who serves a bundle opens the one that took its place
_SHAPE: Shape = {"uri": str, "base": str, "collection": str}


def place_of(store: str, kind: vectors.Kind | None, stored: vectors.Stored) -> Place:
    """Where ``store`` is; ``UserError`` for an index that Milvus does not make for us."""
    if kind not in (None, "exact", "hnsw") or stored != "fp32":
        raise UserError("--store takes --kind exact or hnsw and --quantize fp32; leave the others out")
    return Place.of(store)


def into_milvus(
    place: Place,
    part: Path,
    chunks: Sequence[Vectors],
    probes: Probes,
    kind: vectors.Kind | None,
    kinds: dict[str, Kind],
    console: Console,
) -> tuple[str, dict[str, Any]]:
    """Put the documents of ``part`` and their vectors into a new collection, which ``part`` then names.

    The folder that ``part`` lies in remembers the collection until the bundle is there, so that the next try takes away
    what a killed one left. Returns the name of the collection and what the manifest says of the index.
    """
    work = part.parent
    clock = time.perf_counter()
    texts = Texts.read(part / TEXTS_FILE)
    size = len(texts)
    chosen: Literal["exact", "hnsw"] = "exact" if kind == "exact" or (kind is None and size < EXACT_BELOW) else "hnsw"
    _drop_named_in(work)
    client = Client(place)
    name = f"{place.collection}_{secrets.token_hex(4)}"
    for folder in (work, part):
        content = {"store": FORMAT, "uri": place.uri, "base": place.collection, "collection": name}
        write_sealed(folder / STORE_FILE, content)
    try:
        client.create(name, chunks[0].shape[1], chosen)
        client.close()
        store = open_store(part, (0, 0))
        with console.progress("milvus", size) as bar:
            store.fill((texts[row] for row in range(size)), chunks, kinds, bar.advance)
        found = store.view().dense(probes.queries, 10, None)
        hits = (found.documents >= 0) & (found.scores >= probes.tenth - 1e-5)
        recall = round(float(hits.sum() / (len(probes.queries) * min(10, size))), 4)
        store.close()
    except UserError:
        _drop_named_in(work)
        raise
    for file in (TEXTS_FILE, FIELDS_FILE):
        (part / file).unlink()
    console.line(
        f"milvus    {place}, {chosen}; recall@10 {recall:.4f} against exact search", time.perf_counter() - clock
    )
    return name, {"kind": chosen, "stored": "fp32", "recall@10": recall}


def open_store(folder: Path, identity: Identity) -> MilvusStore:
    """The documents that the bundle in ``folder`` names."""
    named = read_sealed(folder / STORE_FILE, "store", FORMAT, _SHAPE)
    place = Place(named["uri"], named["base"])
    return MilvusStore(folder, identity, place.checked(folder / STORE_FILE), named["collection"])


def drop_after_grace(named: dict[str, Any] | None) -> None:
    """Drop the collection that ``named_in`` found, once who serves it has had the time to open its successor."""
    if named is not None:
        time.sleep(_GRACE)
        _drop(named)


def named_in(folder: Path) -> dict[str, Any] | None:
    """What the bundle in ``folder`` says of its collection; None where it names none."""
    try:
        return read_sealed(folder / STORE_FILE, "store", FORMAT, _SHAPE)
    except UserError:
        return None


def _drop_named_in(folder: Path) -> None:
    if (named := named_in(folder)) is not None:
        _drop(named)
        (folder / STORE_FILE).unlink()


def _drop(named: dict[str, Any]) -> None:
    client = Client(Place(named["uri"], named["base"]))
    client("drop_collection", named["collection"])  # one that is not there is no error
    client.close()
