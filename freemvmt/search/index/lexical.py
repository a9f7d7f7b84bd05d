"""BM25 with tantivy, in memory or in the folder of a bundle, where the index also stores every later change.

A change (documents deleted, documents added) is one commit: after a crash it is complete or absent. Each document has a
row, a number that is never used twice. The documents of the first indexing are indexed by their words only; a document
that is added later also stores itself, as bytes.

``analysis`` makes the words; tantivy only splits them at blanks. BM25's k1 is 1.2 and b is 0.75: tantivy allows no
others. A query is never parsed: each word becomes a term query, weighted by how often the word occurs in the query.
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

from freemvmt.errors import UserError
from freemvmt.search.index.analysis import spaced_words, words_of
from freemvmt.search.index.ranking import Ranking
from freemvmt.storage.files import flush, is_storable

LOCKS = (".tantivy-meta.lock", ".tantivy-writer.lock")
_TANTIVY_FILE = re.compile(r"meta\.json|\.managed\.json|[0-9a-f]{32}(\.[0-9]+)?\.[a-z]+")
_BULK_MEMORY, _COMMIT_MEMORY = 256_000_000, 15_000_000  # bytes; the second is the minimum of tantivy
_MAX_ROW = 2**62
_SAMPLE = 16  # rows of the base whose places are compared
_TIES = 64  # more hits than are wanted, in which the last ones with equal scores mostly end


def files_in(folder: Path) -> list[str]:
    """The names of tantivy's files in ``folder``, without its locks and without files of others."""
    return [file.name for file in folder.iterdir() if _TANTIVY_FILE.fullmatch(file.name)]


@dataclass(frozen=True)
class IndexedDocument:
    """A document as it is written; ``payload`` is stored with it and may be empty."""

    row: int
    id: str
    content: str
    facets: Sequence[str] = ()
    payload: bytes = b""


@dataclass(frozen=True, eq=False)
class LexicalHits:
    """The rows (n,) int64 of the hits and their BM25 scores (n,) float32, best first."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


def ranking_of(hits: Sequence[LexicalHits], k: int) -> Ranking:
    """The ``hits`` of each query as one ranking, (queries, k)."""
    documents, scores = np.full((len(hits), k), -1, np.int64), np.zeros((len(hits), k), np.float32)
    for row, query_hits in enumerate(hits):
        documents[row, : len(query_hits.rows)], scores[row, : len(query_hits.rows)] = query_hits.rows, query_hits.scores
    return Ranking(documents, scores)


class LexicalIndex:
    """The index in ``folder``, made by ``create``; it is read through a ``LexicalSnapshot``.

    ``base`` is the number of rows of the first indexing, if it is known: equal scores are then ordered sooner.
    """

    def __init__(self, folder: Path, *, writable: bool, base: int = 0) -> None:
        self._folder = folder
        self._writable = writable
        self._base = base
        self._remove_links: Callable[[], object] | None = None
        self._open()

    def _open(self) -> None:
        folder = self._folder
        try:
            if not self._writable:
                # tantivy makes a lock file beside the index, so a read-only folder is read through links elsewhere.
                self.close()
                folder = Path(tempfile.mkdtemp(prefix="two-towers-"))
                self._remove_links = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
                for name in files_in(self._folder):
                    (folder / name).symlink_to((self._folder / name).resolve())
            self._index = tantivy.Index.open(str(folder))
            self._index.config_reader(reload_policy="manual")
        except (ValueError, OSError) as error:
            raise UserError(f"{self._folder} cannot be read ({error}); index the corpus again") from error

    @classmethod
    def create(cls, folder: Path, entries: Iterable[IndexedDocument]) -> None:
        """Make an index of ``entries`` in the empty ``folder``; ``UserError`` when it cannot be written."""
        try:
            index = tantivy.Index(_schema(), path=str(folder))
        except ValueError as error:
            raise _write_error(folder, error) from error
        _write(folder, index, _BULK_MEMORY, (), entries)
        for name in LOCKS:
            (folder / name).unlink(missing_ok=True)

    def snapshot(self) -> "LexicalSnapshot":
        """The newest committed state; later commits do not change it.

        Raises ``UserError`` when files are missing because another process has committed meanwhile.
        """
        if self._writable:
            try:
                self._index.reload()
            except ValueError as error:
                raise UserError(f"{self._folder} cannot be read ({error}); index the corpus again") from error
        else:
            self._open()
        return LexicalSnapshot(self._index, self._base)

    def close(self) -> None:
        """Delete the temporary links, if there are any."""
        if self._remove_links is not None:
            self._remove_links()

    def commit(self, deleted: Sequence[str], added: Sequence[IndexedDocument]) -> None:
        """Delete the documents with the ids ``deleted`` and add ``added``, in one commit.

        After a crash or an error neither has happened. Raises ``UserError`` when the folder cannot be written to.
        """
        _write(self._folder, self._index, _COMMIT_MEMORY, deleted, added)


class LexicalSnapshot:
    """One committed state of an index; several threads may read it."""

    def __init__(self, index: Any, base: int = 0) -> None:
        self._schema = index.schema
        self._searcher = index.searcher()
        self._is_in_order = self._searcher.num_segments <= 1 and not self._from_row(len(self), 1)
        self._end_of_base = 0 if self._is_in_order else self._end_of(base)

    def _end_of(self, base: int) -> int:
        """The end of the rows of the ``base``, if they are in one segment, which then holds them in order; else 0.

        It is so if all rows of a sample have the same distance to their places in one segment. A merge of segments
        keeps the order of each.
        """
        sample = np.linspace(0, base - 1, _SAMPLE, dtype=np.int64).tolist() if base else []
        rows_of_sample = [tantivy.Query.term_query(self._schema, "row", row, "basic") for row in sample]
        query = tantivy.Query.boolean_query([(tantivy.Occur.Should, row) for row in rows_of_sample])
        addresses = [address for _, address in self._searcher.search(query, _SAMPLE, count=False).hits]
        rows = self._rows(addresses).tolist()
        places = {(address.segment_ord, address.doc - row) for address, row in zip(addresses, rows, strict=True)}
        return max(rows) + 1 if len(places) == 1 else 0

    @classmethod
    def of(cls, contents: Iterable[str]) -> "LexicalSnapshot":
        """An index in memory; a row is a position in ``contents``."""
        index = tantivy.Index(_schema())
        _write(None, index, _BULK_MEMORY, (), (IndexedDocument(row, "", text) for row, text in enumerate(contents)))
        index.reload()
        return cls(index)

    def __len__(self) -> int:
        return int(self._searcher.num_docs)

    def rank(
        self, query: str, k: int, rows: NDArray[np.int64] | None = None, facets: Sequence[Sequence[str]] = ()
    ) -> LexicalHits:
        """The ``k`` best documents that share a word with ``query``.

        With ``rows``, only documents in those rows count. A document must have one facet of each list in ``facets``.
        """
        q = tantivy.Query
        terms = Counter(words_of(query))
        should, must = tantivy.Occur.Should, tantivy.Occur.Must
        clauses = [(should, self._term(word, count)) for word, count in terms.items()]
        if not clauses or k < 1 or (rows is not None and not len(rows)):
            return LexicalHits(np.empty(0, np.int64), np.empty(0, np.float32))
        restrictions = [q.term_set_query(self._schema, "facet", list(group)) for group in facets]
        if rows is not None:
            restrictions.append(q.term_set_query(self._schema, "row", rows.tolist()))
        combined = q.boolean_query(clauses)
        if restrictions:  # a document must match these too; they do not change its score
            filters = [(must, q.const_score_query(restriction, 0.0)) for restriction in restrictions]
            combined = q.boolean_query([(must, combined), *filters])
        return self._best(combined, k)

    def _best(self, tantivy_query: Any, k: int) -> LexicalHits:
        """The ``k`` best hits of ``tantivy_query``; of two equal scores, the lower row comes first.

        tantivy orders equal scores by segment, and by place in it. This is the order of rows only in an unchanged index
        of one segment. From any other index, more hits are read and sorted here, until none that is left out can be
        better than hit ``k``: it has a lower score, or the last hit is a row of the base, after which all rows are
        higher.
        """
        limit = k if self._is_in_order else k + _TIES
        while True:
            hits = self._searcher.search(tantivy_query, limit, count=False).hits
            if not hits:
                return LexicalHits(np.empty(0, np.int64), np.empty(0, np.float32))
            values, addresses = zip(*hits, strict=True)
            rows, scores = self._rows(addresses), np.array(values, np.float32)
            if self._is_in_order:
                return LexicalHits(rows, scores)
            order = np.lexsort((rows, -scores))[:k]
            last = max(rows[-1], rows[order[-1]])
            if len(hits) < limit or values[-1] < values[k - 1] or last < self._end_of_base:
                return LexicalHits(rows[order], scores[order])
            limit *= 2

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
        """The rows of all documents, in any order."""
        result = self._searcher.search(tantivy.Query.all_query(), max(len(self), 1), count=False)
        return self._rows([address for _, address in result.hits])

    def payloads(self, first: int) -> list[tuple[int, bytes]]:
        """(row, payload) of the documents whose row is ``first`` or more, sorted by row."""
        addresses = self._from_row(first, max(len(self), 1))
        rows = self._rows(addresses).tolist()
        contents = [self._searcher.doc(address).get_first("payload") or b"" for address in addresses]
        return sorted(zip(rows, contents, strict=True))

    def _from_row(self, first: int, limit: int) -> list[Any]:
        """tantivy's addresses of at most ``limit`` documents whose row is ``first`` or more."""
        kind = tantivy.FieldType.Integer
        query = tantivy.Query.range_query(self._schema, "row", kind, first, _MAX_ROW)
        return [address for _, address in self._searcher.search(query, limit, count=False).hits]

    def _rows(self, addresses: Sequence[Any]) -> NDArray[np.int64]:
        return np.array(self._searcher.fast_field_values("row", addresses) if addresses else [], np.int64)


def _write(
    folder: Path | None, index: Any, memory: int, deleted: Iterable[str], added: Iterable[IndexedDocument]
) -> None:
    """Commit one change of an index in ``folder``, or in memory where that is None."""
    writer = None
    try:
        writer = index.writer(memory, 1)
        for name in deleted:
            writer.delete_documents_by_term("id", name)
        for entry in added:
            writer.add_document(_tantivy_document(entry))
        writer.commit()
        writer.wait_merging_threads()
        if folder is not None:
            flush(folder)  # tantivy syncs its files, but not the renaming of the last one, which is the commit
    except (ValueError, OSError) as error:
        raise _write_error(folder or "memory", error) from error
    finally:
        del writer  # frees its lock for the next writer, even while the error is still referenced


def _write_error(folder: Path | str, error: Exception) -> UserError:
    return UserError(f"{folder} cannot be written to ({error}); free some space or write elsewhere")


def _schema() -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("words", tokenizer_name="whitespace", index_option="freq")
    builder.add_text_field("facet", tokenizer_name="raw", index_option="basic")
    builder.add_integer_field("row", fast=True, indexed=True)
    builder.add_bytes_field("payload", stored=True)
    return builder.build()


def _tantivy_document(entry: IndexedDocument) -> Any:
    document = tantivy.Document()
    document.add_text("id", entry.id)
    document.add_text("words", spaced_words(entry.content))
    for facet in entry.facets:
        document.add_text("facet", facet)
    document.add_integer("row", entry.row)
    if entry.payload:
        document.add_bytes("payload", entry.payload)
    return document
