"""The vectors of a corpus while it is indexed, in files of one chunk each, with checksums."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa

from freemvmt.data.documents import content_of
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import Console
from freemvmt.search.index.ranking import Vectors
from freemvmt.storage.files import atomic_file, sha256_of


def memory_mapped(path: Path) -> pa.Table:
    """The table in an Arrow file, memory-mapped; ``UserError`` if it cannot be read."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read ({reason}); index the corpus again") from error


def contents_of(batch: pa.RecordBatch) -> list[str]:
    """The content (title and text) of each document in ``batch``, which is encoded and indexed."""
    columns = (batch.column(name).to_pylist() for name in ("title", "text"))
    return [content_of(title, text) for title, text in zip(*columns, strict=True)]


class Chunks(Sequence[Vectors]):
    """A sequence of files of vectors; each access maps one file, and nothing else is held in memory."""

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


def encode_chunks(model: TwoTowersModel, table: pa.Table, folder: Path, console: Console) -> Chunks:
    """Encode all documents, one file in ``folder`` for each record batch; a file with the right checksum is reused."""
    folder.mkdir(exist_ok=True)
    model_digest = model.digest()
    paths: list[Path] = []
    with console.progress("encoding", len(table)) as bar:
        for number, batch in enumerate(table.to_batches()):
            texts = contents_of(batch)
            key = model_digest.copy()
            key.update(json.dumps(texts).encode())
            path = folder / f"{number:06d}-{key.hexdigest()[:32]}.npy"
            checksum_file = path.with_suffix(".sha256")
            if not (path.exists() and checksum_file.exists() and checksum_file.read_text() == sha256_of(path)):
                content = io.BytesIO()  # np.save to a path hides the reason when it fails
                np.save(content, model.encode_documents(texts).cpu().numpy())
                with atomic_file(path) as temporary:
                    temporary.write_bytes(content.getbuffer())
                with atomic_file(checksum_file) as temporary:
                    temporary.write_text(sha256_of(path))
            paths.append(path)
            bar.advance(len(texts))
    return Chunks(paths)
