"""The vectors of a corpus that is being indexed: made chunk by chunk, kept in checked files, mapped one at a time."""

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
from freemvmt.storage.files import sha256_of, whole_file


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
