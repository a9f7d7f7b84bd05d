"""Nearest vectors among many, by inner product, with FAISS: exact, or by a faster index whose recall was measured.

All kinds hold the vectors themselves (``storage``: 4, 2 or 1 byte a dimension). ``exact`` scans them; ``pq`` scans a
sketch of 4 bits a pair of dimensions, which stays in the cache, and scores the best of it again by ``storage`` (André
et al. 2017, Quicker ADC); ``ivf`` scans the sketches of the nearest cells alone (Jégou et al. 2011); ``binary`` has a
sketch of 1 bit a dimension (Gao and Long 2024, RaBitQ); ``hnsw`` walks a graph over them (Malkov and Yashunin 2016).
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from freemvmt.errors import UserError
from freemvmt.runtime.console import Bar
from freemvmt.runtime.cores import cores
from freemvmt.runtime.optional import needed
from freemvmt.search.index.ranking import Ranking

Kind = Literal["exact", "pq", "ivf", "binary", "hnsw"]
Stored = Literal["fp32", "fp16", "int8"]
Vectors = NDArray[np.float32]  # (n, dim)

EXACT_BELOW = 100_000  # vectors; up to here a scan takes milliseconds
PQ_FROM = 1000  # its sketch is fitted to at least so many
PQ_BELOW = 1_000_000  # a scan of sketches; beyond, of some cells alone
STORAGE_FILE, SKETCH_FILE = "vectors.faiss", "sketch.faiss"

_TRAINING = 50_000  # vectors that a sketch is fitted to
_PER_CELL = 40  # and that each cell is fitted to
_CELLS_SCANNED = 128
_SKETCHED = ("pq", "ivf", "binary")
_REFINED, _REFINED_LEAST = 2, 256  # of k documents asked for, so many times k, and so many, are scored again
_REFINED_OF_CELLS = 2  # so many times as many where cells are scanned
_HNSW_LINKS, _HNSW_CONSTRUCTION, _HNSW_SEARCH = 32, 200, 128
_BATCH = 16  # queries from which more than one thread pays


def _check_quantizable(kind: Kind, dim: int, size: int) -> None:
    """Raise ``UserError`` where a product quantizer cannot be made of so many vectors of that size."""
    if kind not in ("pq", "ivf"):
        return
    if dim % 2:
        raise UserError(f"--kind {kind} needs an even number of dimensions, these have {dim}; use hnsw")
    if size < PQ_FROM:
        raise UserError(f"--kind {kind} needs {PQ_FROM:,} documents or more, these are {size:,}; use exact")


def kind_for(size: int, dim: int) -> Kind:
    """The kind that suits ``size`` vectors."""
    if size < EXACT_BELOW:
        return "exact"
    if dim % 2:
        return "hnsw"
    return "pq" if size < PQ_BELOW else "ivf"


def _cells(size: int) -> int:
    """Of so many vectors: the power of two below the square root, and enough vectors in each cell to fit it to."""
    return int(2 ** int(math.log2(min(math.sqrt(size), size / _PER_CELL))))


class VectorIndex:
    """Vectors numbered from 0 in the order in which they were given; it never changes once it is built.

    ``kind``, ``stored`` say what it is. Safe to be searched by several threads at once.
    """

    def __init__(self, kind: Kind, stored: Stored, storage: Any, fast: Any) -> None:
        self.kind: Kind = kind
        self.stored: Stored = stored
        self._storage = storage
        self._fast = fast
        self._index = storage
        if kind in _SKETCHED:
            self._index = needed("faiss").IndexRefine(fast, storage)
        elif kind == "hnsw":
            fast.storage, fast.own_fields = storage, False
            self._index = fast

    @classmethod
    def build(
        cls, kind: Kind, stored: Stored, dim: int, blocks: Sequence[Vectors], bar: Bar | None = None
    ) -> "VectorIndex":
        """An index of all ``blocks``, one behind the other, each (n, dim); ``bar`` advances by vectors."""
        faiss = needed("faiss")
        size = sum(map(len, blocks))
        _check_quantizable(kind, dim, size)
        metric = faiss.METRIC_INNER_PRODUCT
        storage = _storage(faiss, stored, dim)
        fast: Any = None
        if kind == "pq":
            fast = faiss.IndexPQFastScan(dim, dim // 2, 4, metric)
        elif kind == "ivf":
            fast = faiss.index_factory(dim, f"IVF{_cells(size)},PQ{dim // 2}x4fs", metric)
        elif kind == "binary":
            fast = faiss.IndexRaBitQFastScan(dim, metric)
        whole = storage
        if kind == "hnsw":
            whole = fast = faiss.IndexHNSW(storage, _HNSW_LINKS)  # adds to the storage what it is given
            fast.hnsw.efConstruction = _HNSW_CONSTRUCTION
        wanted = max(_TRAINING, _PER_CELL * fast.nlist) if kind == "ivf" else _TRAINING
        sample = np.concatenate([np.array(block[:: max(1, size // wanted)]) for block in blocks])
        if not storage.is_trained and size:
            whole.train(sample)
        for block in blocks:
            whole.add(block)
            if bar is not None:
                bar.advance(len(block))
        if kind in _SKETCHED and size:
            fast.train(sample)
            for block in blocks:
                fast.add(block)
        return cls(kind, stored, storage, fast)

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
    def read(cls, folder: Path, kind: Kind, stored: Stored) -> "VectorIndex":
        """Read what ``write`` wrote; ``UserError`` when the files are not such an index."""
        faiss = needed("faiss")
        assert kind in get_args(Kind)
        try:
            storage = faiss.read_index(str(folder / STORAGE_FILE), faiss.IO_FLAG_MMAP_IFC)
            fast = None if kind == "exact" else faiss.read_index(str(folder / SKETCH_FILE), _skip(faiss, kind))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"{folder}: the vectors cannot be read ({reason}); index the corpus again") from error
        return cls(kind, stored, storage, fast)

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
        with _threads(faiss, len(queries)):
            return self._ranking(faiss, queries, k, among)

    def _ranking(self, faiss: Any, queries: Vectors, k: int, among: NDArray[np.bool_] | None) -> Ranking:
        if among is not None:
            bits = np.packbits(among, bitorder="little")
            chosen = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(len(among), faiss.swig_ptr(bits)))
            scores, numbers = self._storage.search(queries, k, params=chosen)
        elif self.kind == "hnsw":
            wide = faiss.SearchParametersHNSW(efSearch=max(k, _HNSW_SEARCH))
            scores, numbers = self._index.search(queries, k, params=wide)
        elif self.kind in _SKETCHED:
            wide = faiss.IndexRefineSearchParameters(k_factor=max(_REFINED, _REFINED_LEAST / k))
            if self.kind == "ivf":
                wide.k_factor *= _REFINED_OF_CELLS
                wide.base_index_params = cells = faiss.SearchParametersIVF(nprobe=_CELLS_SCANNED)  # noqa: F841 - held
            scores, numbers = self._index.search(queries, k, params=wide)
        else:
            scores, numbers = self._index.search(queries, k)
        if len(short := np.flatnonzero(numbers[:, -1] < 0)):  # many equal vectors lead a graph or a sketch astray
            scores[short], numbers[short] = self._storage.search(queries[short], k)
        return Ranking(numbers, scores)


@contextmanager
def _threads(faiss: Any, queries: int) -> Iterator[None]:
    """Search with as many threads as the caller lets OpenMP have, and one for few queries, which cost more than they
    bring there. The caller's setting, which is its thread's own, is as before in the end."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if queries < _BATCH else min(before, cores()))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _storage(faiss: Any, stored: Stored, dim: int) -> Any:
    if stored == "fp32":
        return faiss.IndexFlatIP(dim)
    kinds = {"fp16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit}
    return faiss.IndexScalarQuantizer(dim, kinds[stored], faiss.METRIC_INNER_PRODUCT)


def _skip(faiss: Any, kind: Kind) -> int:
    return int(faiss.IO_FLAG_SKIP_STORAGE) if kind == "hnsw" else 0
