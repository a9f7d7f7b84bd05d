"""BM25 with tantivy, over documents in memory or in a bundle, where they come and go; and the durable home of changes.

A change (documents deleted, documents added) is one commit: it is there whole or not at all, also after a crash. Each
document has a row, a number never given twice. Documents of the first indexing bring only their words; one that was
added later also carries itself, as bytes.

The words are ours (analysis.py): tantivy sees them with blanks in between. It fixes BM25's k1 at 1.2 and b at 0.75. A
query is never parsed: its words become term queries, each weighing as often as it stands in the query.
"""

import re
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tantivy
from numpy.typing import NDArray

from freemvmt.data.documents import is_storable
from freemvmt.errors import UserError
from freemvmt.search.index.analysis import spaced_words, words_of
from freemvmt.search.index.ranking import Ranking
from freemvmt.storage.files import flush

LOCKS = (".tantivy-meta.lock", ".tantivy-writer.lock")
_OWN_FILE = re.compile(r"meta\.json|\.managed\.json|[0-9a-f]{32}(\.[0-9]+)?\.[a-z]+")
_BULK_MEMORY, _COMMIT_MEMORY = 256_000_000, 15_000_000  # bytes; the second is tantivy's least
_LAST_ROW = 2**62


def files_in(folder: Path) -> list[str]:
    """The names of tantivy's own files in ``folder``, its locks left out: what else stands there is not ours."""
    return [file.name for file in folder.iterdir() if _OWN_FILE.fullmatch(file.name)]


@dataclass(frozen=True)
class Entry:
    """A document as it is written: ``payload`` is kept and given back, and may be empty."""

    row: int
    id: str
    content: str
    facets: Sequence[str] = ()
    payload: bytes = b""


@dataclass(frozen=True, eq=False)
class Found:
    """The rows (n,) int64 of documents and their BM25 scores (n,) float32, best first."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


def ranking_of(found: Sequence[Found], k: int) -> Ranking:
    """What was found for each query, (queries, k)."""
    documents, scores = np.full((len(found), k), -1, np.int64), np.zeros((len(found), k), np.float32)
    for row, one in enumerate(found):
        documents[row, : len(one.rows)], scores[row, : len(one.rows)] = one.rows, one.scores
    return Ranking(documents, scores)


class Words:
    """An index in ``folder``, made by ``create``. What can be read of it is a ``Snapshot``."""

    def __init__(self, folder: Path, *, writable: bool) -> None:
        self._folder = folder
        self._writable = writable
        self._mirror: Callable[[], object] | None = None  # takes the links away
        self._open()

    def _open(self) -> None:
        folder = self._folder
        try:
            if not self._writable:
                # tantivy makes a lock file beside what it reads; where it may not, it reads through links.
                self.close()
                folder = Path(tempfile.mkdtemp(prefix="two-towers-"))
                self._mirror = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
                for name in files_in(self._folder):
                    (folder / name).symlink_to((self._folder / name).resolve())
            self._index = tantivy.Index.open(str(folder))
            self._index.config_reader(reload_policy="manual")
        except (ValueError, OSError) as error:
            raise UserError(f"{self._folder} cannot be read ({error}); index the corpus again") from error

    @classmethod
    def create(cls, folder: Path, entries: Iterable[Entry]) -> None:
        """Make an index of ``entries`` in the empty ``folder``. Raises ``UserError`` when it cannot be written."""
        try:
            index = tantivy.Index(_schema(), path=str(folder))
        except ValueError as error:
            raise _unwritable(folder, error) from error
        _write(folder, index, _BULK_MEMORY, (), entries)
        for name in LOCKS:
            (folder / name).unlink(missing_ok=True)

    def snapshot(self) -> "Snapshot":
        """What is committed now; it stays as it is whatever is committed later.

        Raises ``UserError`` where files are gone: those of a state that another process has left behind meanwhile.
        """
        if self._writable:
            try:
                self._index.reload()
            except ValueError as error:
                raise UserError(f"{self._folder} cannot be read ({error}); index the corpus again") from error
        else:
            self._open()
        return Snapshot(self._index)

    def close(self) -> None:
        """Let go of the links, where there are some."""
        if self._mirror is not None:
            self._mirror()

    def commit(self, deleted: Sequence[str], added: Sequence[Entry]) -> None:
        """Take the documents of those ids out and put ``added`` in: both or, after a crash or an error, neither.

        Raises ``UserError`` when the folder cannot be written to.
        """
        _write(self._folder, self._index, _COMMIT_MEMORY, deleted, added)


class Snapshot:
    """One committed state of the index, safe to be read by several threads."""

    def __init__(self, index: Any) -> None:
        self._schema = index.schema
        self._searcher = index.searcher()
        self._in_order = self._searcher.num_segments <= 1 and not self._from_row(len(self), 1)

    @classmethod
    def of(cls, contents: Iterable[str]) -> "Snapshot":
        """An index in memory: the rows are the places in ``contents``."""
        index = tantivy.Index(_schema())
        _write(None, index, _BULK_MEMORY, (), (Entry(row, "", text) for row, text in enumerate(contents)))
        index.reload()
        return cls(index)

    def __len__(self) -> int:
        return int(self._searcher.num_docs)

    def rank(
        self, query: str, k: int, rows: NDArray[np.int64] | None = None, facets: Sequence[Sequence[str]] = ()
    ) -> Found:
        """The best ``k`` documents that share a word with ``query``.

        ``rows`` keeps only those rows; of each list in ``facets`` a document must have one.
        """
        q = tantivy.Query
        terms = Counter(words_of(query))
        should, must = tantivy.Occur.Should, tantivy.Occur.Must
        parts = [(should, self._term(word, count)) for word, count in terms.items()]
        if not parts or k < 1 or (rows is not None and not len(rows)):
            return Found(np.empty(0, np.int64), np.empty(0, np.float32))
        needed_too = [q.term_set_query(self._schema, "facet", list(group)) for group in facets]
        if rows is not None:
            needed_too.append(q.term_set_query(self._schema, "row", rows.tolist()))
        wanted = q.boolean_query(parts)
        if needed_too:  # these must match too, and add nothing to the score
            filters = [(must, q.const_score_query(query, 0.0)) for query in needed_too]
            wanted = q.boolean_query([(must, wanted), *filters])
        return self._best(wanted, k)

    def _best(self, wanted: Any, k: int) -> Found:
        """The best ``k`` documents that ``wanted`` finds; of equal scores the lower row comes first.

        tantivy gives them so from an index that is one piece and has not been changed; else all that are as good as the
        last one are looked at.
        """
        most = k
        while True:
            hits = self._searcher.search(wanted, most, count=False).hits
            scores = np.array([score for score, _ in hits], np.float32)
            if len(hits) < most or self._in_order or scores[-1] < scores[k - 1]:
                break
            most *= 4
        rows = self._rows([address for _, address in hits])
        order = np.lexsort((rows, -scores))[:k]
        return Found(rows[order], scores[order])

    def _term(self, word: str, count: int) -> Any:
        query = tantivy.Query.term_query(self._schema, "words", word, "freq")
        return query if count == 1 else tantivy.Query.boost_query(query, float(count))

    def row_of(self, name: str) -> int | None:
        """The row of the document with that id, or None."""
        if not is_storable(name):
            return None
        query = tantivy.Query.term_query(self._schema, "id", name, "basic")
        rows = self._rows([address for _, address in self._searcher.search(query, 1, count=False).hits])
        return int(rows[0]) if len(rows) else None

    def rows(self) -> NDArray[np.int64]:
        """The rows of all documents, in no order."""
        found = self._searcher.search(tantivy.Query.all_query(), max(len(self), 1), count=False)
        return self._rows([address for _, address in found.hits])

    def payloads(self, first: int) -> list[tuple[int, bytes]]:
        """(row, payload) of the documents whose row is ``first`` or more, by row."""
        addresses = self._from_row(first, max(len(self), 1))
        rows = self._rows(addresses).tolist()
        kept = [self._searcher.doc(address).get_first("payload") or b"" for address in addresses]
        return sorted(zip(rows, kept, strict=True))

    def _from_row(self, first: int, most: int) -> list[Any]:
        """The addresses of at most ``most`` documents whose row is ``first`` or more."""
        kind = tantivy.FieldType.Integer
        query = tantivy.Query.range_query(self._schema, "row", kind, first, _LAST_ROW)
        return [address for _, address in self._searcher.search(query, most, count=False).hits]

    def _rows(self, addresses: list[Any]) -> NDArray[np.int64]:
        return np.array(self._searcher.fast_field_values("row", addresses) if addresses else [], np.int64)


def _write(folder: Path | None, index: Any, memory: int, deleted: Iterable[str], added: Iterable[Entry]) -> None:
    """One commit, of an index in ``folder`` or in memory."""
    writer = None
    try:
        writer = index.writer(memory, 1)
        for name in deleted:
            writer.delete_documents_by_term("id", name)
        for entry in added:
            writer.add_document(_stored(entry))
        writer.commit()
        writer.wait_merging_threads()
        if folder is not None:
            flush(folder)  # tantivy syncs its files, but not the name of the last of them, which makes the commit
    except (ValueError, OSError) as error:
        raise _unwritable(folder or "memory", error) from error
    finally:
        del writer  # the next one waits for its lock, which an error that is kept would keep


def _unwritable(folder: Path | str, error: Exception) -> UserError:
    return UserError(f"{folder} cannot be written to ({error}); free some space or write elsewhere")


def _schema() -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("words", tokenizer_name="whitespace", index_option="freq")
    builder.add_text_field("facet", tokenizer_name="raw", index_option="basic")
    builder.add_integer_field("row", fast=True, indexed=True)
    builder.add_bytes_field("payload", stored=True)
    return builder.build()


def _stored(entry: Entry) -> Any:
    document = tantivy.Document()
    document.add_text("id", entry.id)
    document.add_text("words", spaced_words(entry.content))
    for facet in entry.facets:
        document.add_text("facet", facet)
    document.add_integer("row", entry.row)
    if entry.payload:
        document.add_bytes("payload", entry.payload)
    return document
