"""Vector search by inner product with FAISS: exact, or approximate and faster.

Every kind of index stores the vectors themselves (``storage``: 4, 2 or 1 byte a dimension).

- ``exact`` scans them.
- ``pq`` scans a sketch of 4 bits for each pair of dimensions, which fits into the cache, and scores the best hits
  again with ``storage`` (André et al. 2017, Quicker ADC).
- ``ivf`` scans only the sketches of the nearest cells (Jégou et al. 2011).
- ``binary`` scans a sketch of 1 bit a dimension (Gao and Long 2024, RaBitQ).
- ``hnsw`` walks a graph of the vectors (Malkov and Yashunin 2016).

The sketches of ``pq`` and ``ivf`` compare by Euclidean distance, which orders vectors of length 1 as the inner product
does. Its error grows with the distance of query and vector, that of the inner product with their lengths.
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
from freemvmt.runtime.optional import require
from freemvmt.search.index.ranking import Ranking, Vectors

IndexKind = Literal["exact", "pq", "ivf", "binary", "hnsw"]
Quantization = Literal["fp32", "fp16", "int8"]

EXACT_BELOW = 100_000  # vectors; a scan of fewer takes milliseconds
PQ_FROM = 1000  # vectors; the fewest that a product quantizer is trained on
PQ_BELOW = 1_000_000  # vectors; from here on only some cells are scanned (ivf)
STORAGE_FILE, SKETCH_FILE = "vectors.faiss", "sketch.faiss"

_TRAINING_SIZE = 50_000  # vectors that a sketch is trained on
_TRAINING_PER_CELL = 40  # vectors that a cell is trained on
_CELLS_SCANNED = 112
_SKETCH_KINDS = ("pq", "ivf", "binary")
_RESCORE_FACTOR, _MIN_RESCORED = 2, 256  # max(2 * k, 256) hits of a sketch are scored again with the storage
_IVF_RESCORE_FACTOR = 2  # twice as many in an ivf index
_HNSW_LINKS, _HNSW_CONSTRUCTION, _HNSW_SEARCH = 32, 200, 128
_MIN_BATCH = 16  # queries; fewer are searched faster by one thread


def _check_quantizable(kind: IndexKind, dim: int, size: int) -> None:
    """Raise ``UserError`` unless an index of ``kind`` can be made of ``size`` vectors."""
    if kind not in ("pq", "ivf"):
        return
    if dim % 2:
        raise UserError(f"--kind {kind} needs an even number of dimensions, these have {dim}; use hnsw")
    if size < PQ_FROM:
        raise UserError(f"--kind {kind} needs {PQ_FROM:,} documents or more, these are {size:,}; use exact")


def index_kind_for(size: int, dim: int) -> IndexKind:
    """The default kind for ``size`` vectors."""
    if size < EXACT_BELOW:
        return "exact"
    if dim % 2:
        return "hnsw"
    return "pq" if size < PQ_BELOW else "ivf"


def _cells(size: int) -> int:
    """The number of ivf cells: a power of two, at most sqrt(size), with enough vectors to train each cell."""
    return int(2 ** int(math.log2(min(math.sqrt(size), size / _TRAINING_PER_CELL))))


class VectorIndex:
    """An index of vectors, which are numbered from 0 in the order in which ``build`` got them.

    It does not change after it is built. Several threads may search it at once.
    """

    def __init__(self, kind: IndexKind, stored: Quantization, storage: Any, fast: Any) -> None:
        self.kind: IndexKind = kind
        self.stored: Quantization = stored
        self._storage = storage
        self._fast = fast
        self._index = storage
        if kind in _SKETCH_KINDS:
            self._index = _refined(require("faiss"), fast, storage)
        elif kind == "hnsw":
            fast.storage, fast.own_fields = storage, False
            self._index = fast

    @classmethod
    def build(
        cls, kind: IndexKind, stored: Quantization, dim: int, blocks: Sequence[Vectors], bar: Bar | None = None
    ) -> "VectorIndex":
        """An index of the vectors in ``blocks``, each (n, dim); ``bar`` counts vectors."""
        faiss = require("faiss")
        size = sum(map(len, blocks))
        _check_quantizable(kind, dim, size)
        storage = _storage(faiss, stored, dim)
        fast: Any = None
        if kind == "pq":
            fast = faiss.IndexPQFastScan(dim, dim // 2, 4)
        elif kind == "ivf":
            fast = faiss.index_factory(dim, f"IVF{_cells(size)},PQ{dim // 2}x4fs")
        elif kind == "binary":
            fast = faiss.IndexRaBitQFastScan(dim, faiss.METRIC_INNER_PRODUCT)
        full_index = storage
        if kind == "hnsw":
            full_index = fast = faiss.IndexHNSW(storage, _HNSW_LINKS)  # adding to it adds to the storage
            fast.hnsw.efConstruction = _HNSW_CONSTRUCTION
        sample_size = max(_TRAINING_SIZE, _TRAINING_PER_CELL * fast.nlist) if kind == "ivf" else _TRAINING_SIZE
        sample = np.concatenate([np.array(block[:: max(1, size // sample_size)]) for block in blocks])
        if not storage.is_trained and size:
            full_index.train(sample)
        for block in blocks:
            full_index.add(block)
            if bar is not None:
                bar.advance(len(block))
        if kind in _SKETCH_KINDS and size:
            far = sample[(sample @ sample.mean(0)).argmin()]
            fast.train(_without_zeros(sample, far))
            for block in blocks:
                fast.add(_without_zeros(block, far))
        return cls(kind, stored, storage, fast)

    def write(self, folder: Path) -> None:
        """Write the index into ``folder``; ``UserError`` when it cannot be written."""
        faiss = require("faiss")
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
    def read(cls, folder: Path, kind: IndexKind, stored: Quantization) -> "VectorIndex":
        """Read the index in ``folder``; ``UserError`` when the files are damaged."""
        faiss = require("faiss")
        assert kind in get_args(IndexKind)
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
        """Vector ``number``, (dim,), after quantization."""
        vector: Vectors = self._storage.reconstruct(number)
        return vector

    def search(self, queries: Vectors, k: int, mask: NDArray[np.bool_] | None = None) -> Ranking:
        """The ``k`` vectors nearest to each of ``queries`` (n, dim); missing hits have number -1.

        With ``mask`` (vectors,), only vectors where it is true count, and the search is always an exact scan of those.
        """
        faiss = require("faiss")
        k = min(k, len(self) if mask is None else int(mask.sum()))
        if not k or not len(queries):
            return Ranking(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
        with _threads(faiss, len(queries)):
            return self._ranking(faiss, queries, k, mask)

    def _ranking(self, faiss: Any, queries: Vectors, k: int, mask: NDArray[np.bool_] | None) -> Ranking:
        if mask is not None:
            bits = np.packbits(mask, bitorder="little")
            masked = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(len(mask), faiss.swig_ptr(bits)))
            scores, numbers = self._storage.search(queries, k, params=masked)
        elif self.kind == "hnsw":
            parameters = faiss.SearchParametersHNSW(efSearch=max(k, _HNSW_SEARCH))
            scores, numbers = self._index.search(queries, k, params=parameters)
        elif self.kind in _SKETCH_KINDS:
            parameters = faiss.IndexRefineSearchParameters(k_factor=max(_RESCORE_FACTOR, _MIN_RESCORED / k))
            if self.kind == "ivf":
                parameters.k_factor *= _IVF_RESCORE_FACTOR
                parameters.base_index_params = cells = faiss.SearchParametersIVF(nprobe=_CELLS_SCANNED)  # noqa: F841 - held
            scores, numbers = self._index.search(queries, k, params=parameters)
        else:
            scores, numbers = self._index.search(queries, k)
        if len(incomplete := np.flatnonzero(numbers[:, -1] < 0)):  # many equal vectors can mislead a graph or a sketch
            scores[incomplete], numbers[incomplete] = self._storage.search(queries[incomplete], k)
        return Ranking(numbers, scores)


@contextmanager
def _threads(faiss: Any, queries: int) -> Iterator[None]:
    """Let OpenMP use the caller's number of threads, or one for few queries, for which more threads cost time.

    The caller's setting, which belongs to its thread, is restored at the end.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if queries < _MIN_BATCH else min(before, cores()))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _refined(faiss: Any, sketch: Any, storage: Any) -> Any:
    """An index that chooses by ``sketch`` and scores by ``storage``.

    FAISS wants one metric for both, but only when it makes the index; their scores are never compared.
    """
    own, sketch.metric_type = sketch.metric_type, storage.metric_type
    index = faiss.IndexRefine(sketch, storage)
    sketch.metric_type = own
    return index


def _without_zeros(block: Vectors, far: Vectors) -> Vectors:
    """``block`` with ``far``, (dim,), in place of zeros, which are as near to a query as a cosine of 0.5 is."""
    is_zero = ~np.any(block, axis=1)
    return np.where(is_zero[:, None], far, block) if is_zero.any() else block


def _storage(faiss: Any, stored: Quantization, dim: int) -> Any:
    if stored == "fp32":
        return faiss.IndexFlatIP(dim)
    types = {"fp16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit}
    return faiss.IndexScalarQuantizer(dim, types[stored], faiss.METRIC_INNER_PRODUCT)


def _skip(faiss: Any, kind: IndexKind) -> int:
    return int(faiss.IO_FLAG_SKIP_STORAGE) if kind == "hnsw" else 0
