"""The vectors of a corpus that is being indexed: made chunk by chunk, kept in checked files, mapped one at a time."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from freemvmt.console import Console
from freemvmt.errors import UserError
from freemvmt.files import sha256_of, whole_file
from freemvmt.model import TwoTowersModel
from freemvmt.search.documents import content_of
from freemvmt.search.exact import top_k
from freemvmt.search.stores.protocol import Vectors
from freemvmt.search.vectors import VectorIndex


def mapped(path: Path) -> pa.Table:
    """The table in an Arrow file, mapped and not read."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read ({reason}); index the corpus again") from error


def contents_of(batch: pa.RecordBatch) -> list[str]:
    """What is encoded and indexed of some documents."""
    columns = (batch.column(name).to_pylist() for name in ("title", "text"))
    return [content_of(title, text) for title, text in zip(*columns, strict=True)]


class Chunks(Sequence[Vectors]):
    """Vectors in files, each mapped when it is asked for and only as long as it is held: memory holds one at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, number: int) -> Vectors: ...

    @overload
    def __getitem__(self, number: slice) -> "Chunks": ...

    def __getitem__(self, number: int | slice) -> "Vectors | Chunks":
        if isinstance(number, slice):
            return Chunks(self._paths[number])
        chunk: Vectors = np.load(self._paths[number], mmap_mode="r", allow_pickle=False)
        return chunk


def encoded(model: TwoTowersModel, table: pa.Table, folder: Path, console: Console) -> Chunks:
    """The vectors of all documents, chunk by chunk, each in a file; a sound chunk is not made again."""
    folder.mkdir(exist_ok=True)
    made_by = model.digest()
    paths: list[Path] = []
    with console.progress("encoding", len(table)) as bar:
        for number, batch in enumerate(table.to_batches()):
            texts = contents_of(batch)
            key = made_by.copy()
            key.update(json.dumps(texts).encode())
            path = folder / f"{number:06d}-{key.hexdigest()[:32]}.npy"
            sum_file = path.with_suffix(".sha256")
            if not (path.exists() and sum_file.exists() and sum_file.read_text() == sha256_of(path)):
                content = io.BytesIO()  # numpy, writing to a file itself, does not say why it could not
                np.save(content, model.encode_documents(texts).cpu().numpy())
                with whole_file(path) as part:
                    part.write_bytes(content.getbuffer())
                with whole_file(sum_file) as part:
                    part.write_text(sha256_of(path))
            paths.append(path)
            bar.advance(len(texts))
    return Chunks(paths)


def tenths(queries: Vectors, chunks: Chunks) -> Vectors:
    """(queries, 1): the score of the true tenth best document of each query."""
    asked = torch.from_numpy(queries)
    best = torch.cat(
        [torch.from_numpy(top_k(asked, torch.from_numpy(np.array(chunk)), 10).scores) for chunk in chunks], 1
    )
    tenth: Vectors = best.topk(min(10, best.shape[1])).values[:, -1:].numpy()
    return tenth


def recall_of(index: VectorIndex, queries: Vectors, chunks: Chunks) -> float:
    """Share of the true ten best that ``index`` finds; a document as good as the true tenth counts."""
    found = index.search(queries, min(10, len(index)))
    numbers = np.maximum(found.documents, 0)
    named = _rows_of(chunks, numbers.ravel())
    scores = np.einsum("qd,qkd->qk", queries, named.reshape(*numbers.shape, -1))
    hits = (found.documents >= 0) & (scores >= tenths(queries, chunks) - 1e-6)
    return round(float(hits.mean()), 4)


def _rows_of(chunks: Chunks, numbers: NDArray[np.int64]) -> Vectors:
    """(numbers, dim): each chunk is mapped once, and let go of."""
    size, dim = chunks[0].shape
    found = np.empty((len(numbers), dim), np.float32)
    for part in np.unique(numbers // size).tolist():
        wanted = numbers // size == part
        found[wanted] = chunks[part][numbers[wanted] % size]
    return found
