"""Nearest vectors among many, by inner product, with FAISS: exact, or by a faster index whose recall was measured.

All kinds hold the vectors themselves (``storage``: float32, or int8 when quantised). ``exact`` scans them; ``pq`` scans
a sketch of 4 bits a pair of dimensions, which stays in the cache, and scores the best of it again by ``storage``
(André et al. 2017, Quicker ADC); ``hnsw`` walks a graph over them (Malkov and Yashunin 2016).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from freemvmt.console import Bar
from freemvmt.errors import UserError
from freemvmt.extras import needed
from freemvmt.search.exact import Ranking

Kind = Literal["exact", "pq", "hnsw"]
Vectors = NDArray[np.float32]  # (n, dim)

EXACT_BELOW = 100_000  # vectors; up to here a scan takes milliseconds
PQ_FROM = 1000  # its sketch is fitted to at least so many
PQ_BELOW = 1_000_000  # a scan of sketches; beyond, the graph is faster
STORAGE_FILE, SKETCH_FILE = "vectors.faiss", "sketch.faiss"

_TRAINING = 50_000  # vectors that a sketch is fitted to
_REFINED, _REFINED_LEAST = 2, 256  # of k documents asked for, so many times k, and so many, are scored again
_HNSW_LINKS, _HNSW_CONSTRUCTION, _HNSW_SEARCH = 32, 200, 128
_BATCH = 16  # queries from which more than one thread pays


def kind_for(size: int, dim: int) -> Kind:
    """The kind that suits ``size`` vectors."""
    if size < EXACT_BELOW:
        return "exact"
    return "pq" if size < PQ_BELOW and dim % 2 == 0 else "hnsw"


class VectorIndex:
    """Vectors numbered from 0 in the order in which they were given; it never changes once it is built.

    ``kind``, ``quantized`` say what it is. Safe to be searched by several threads at once.
    """

    def __init__(self, kind: Kind, quantized: bool, storage: Any, fast: Any) -> None:
        self.kind: Kind = kind
        self.quantized = quantized
        self._storage = storage
        self._fast = fast
        self._index = storage
        if kind == "pq":
            self._index = needed("faiss").IndexRefine(fast, storage)
        elif kind == "hnsw":
            fast.storage, fast.own_fields = storage, False
            self._index = fast

    @classmethod
    def build(
        cls, kind: Kind, quantized: bool, dim: int, blocks: Sequence[Vectors], bar: Bar | None = None
    ) -> "VectorIndex":
        """An index of all ``blocks``, one behind the other, each (n, dim); ``bar`` advances by vectors."""
        faiss = needed("faiss")
        if kind == "pq" and dim % 2:
            raise UserError(f"--kind pq needs an even number of dimensions, these vectors have {dim}; use hnsw")
        metric = faiss.METRIC_INNER_PRODUCT
        if quantized:
            storage = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, metric)
        else:
            storage = faiss.IndexFlatIP(dim)
        fast: Any = faiss.IndexPQFastScan(dim, dim // 2, 4, metric) if kind == "pq" else None
        whole = storage
        if kind == "hnsw":
            whole = fast = faiss.IndexHNSW(storage, _HNSW_LINKS)  # adds to the storage what it is given
            fast.hnsw.efConstruction = _HNSW_CONSTRUCTION
        size = sum(map(len, blocks))
        if kind == "pq" and size < PQ_FROM:
            raise UserError(f"--kind pq needs {PQ_FROM:,} documents or more, these are {size:,}; use exact")
        sample = np.concatenate([block[:: max(1, size // _TRAINING)] for block in blocks])
        if not storage.is_trained and size:
            whole.train(sample)
        for block in blocks:
            whole.add(block)
            if bar is not None:
                bar.advance(len(block))
        if kind == "pq":
            fast.train(sample)
            for block in blocks:
                fast.add(block)
        return cls(kind, quantized, storage, fast)

    def write(self, folder: Path) -> None:
        """Write the files of the index into ``folder``."""
        faiss = needed("faiss")
        try:
            faiss.write_index(self._storage, str(folder / STORAGE_FILE))
            if self._fast is not None:
                faiss.write_index(self._fast, str(folder / SKETCH_FILE), _skip(faiss, self.kind))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(
                f"{folder}: the vectors cannot be written ({reason}); free some space or write elsewhere"
            ) from error

    @classmethod
    def read(cls, folder: Path, kind: Kind, quantized: bool) -> "VectorIndex":
        """Read what ``write`` wrote; ``UserError`` when the files are not such an index."""
        faiss = needed("faiss")
        assert kind in get_args(Kind)
        try:
            storage = faiss.read_index(str(folder / STORAGE_FILE), faiss.IO_FLAG_MMAP_IFC)
            fast = None if kind == "exact" else faiss.read_index(str(folder / SKETCH_FILE), _skip(faiss, kind))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"{folder}: the vectors cannot be read ({reason}); index the corpus again") from error
        return cls(kind, quantized, storage, fast)

    def __len__(self) -> int:
        return int(self._storage.ntotal)

    @property
    def dim(self) -> int:
        """Size of a vector."""
        return int(self._storage.d)

    def vector(self, number: int) -> Vectors:
        """Vector ``number``, (dim,), as it is stored."""
        vector: Vectors = self._storage.reconstruct(number)
        return vector

    def search(self, queries: Vectors, k: int, among: NDArray[np.bool_] | None = None) -> Ranking:
        """The ``k`` vectors nearest to each of ``queries`` (n, dim); fewer than ``k`` vectors fill up with -1.

        ``among`` (vectors,) keeps only some vectors and is always answered exactly, by a scan of those.
        """
        faiss = needed("faiss")
        k = min(k, len(self) if among is None else int(among.sum()))
        if not k or not len(queries):
            return Ranking(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
        # Threads cost a lone query more than they bring; the setting is this thread's own.
        faiss.omp_set_num_threads(1 if len(queries) < _BATCH else os.cpu_count() or 1)
        if among is not None:
            bits = np.packbits(among, bitorder="little")
            chosen = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(len(among), faiss.swig_ptr(bits)))
            scores, numbers = self._storage.search(queries, k, params=chosen)
        elif self.kind == "hnsw":
            wide = faiss.SearchParametersHNSW(efSearch=max(k, _HNSW_SEARCH))
            scores, numbers = self._index.search(queries, k, params=wide)
        elif self.kind == "pq":
            wide = faiss.IndexRefineSearchParameters(k_factor=max(_REFINED, _REFINED_LEAST / k))
            scores, numbers = self._index.search(queries, k, params=wide)
        else:
            scores, numbers = self._index.search(queries, k)
        if len(short := np.flatnonzero(numbers[:, -1] < 0)):  # many equal vectors lead a graph or a sketch astray
            scores[short], numbers[short] = self._storage.search(queries[short], k)
        return Ranking(numbers, scores)


def _skip(faiss: Any, kind: Kind) -> int:
    return int(faiss.IO_FLAG_SKIP_STORAGE) if kind == "hnsw" else 0
