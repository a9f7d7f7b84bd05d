"""Two engines that we would put together ourselves: FAISS in memory over tantivy, and over SQLite and bm25s."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from engine_types import Filter, Found, Rows
from numpy.typing import NDArray

from freemvmt.search.index.bm25 import BM25


class Vectors:
    """FAISS in memory: rows as they came, compressed up to ``settle`` and flat after it; the dead are masked."""

    def __init__(self, dim: int) -> None:
        import faiss

        faiss.omp_set_num_threads(1)  # one query gains nothing from more
        self.base: Any = None
        self.tail = faiss.IndexFlatIP(dim)
        self.numbers, self.words = np.empty(0, np.int64), np.empty(0, np.int64)
        self.sources, self.alive = np.empty(0, np.object_), np.empty(0, np.bool_)
        self.row_of: dict[int, int] = {}

    def add(self, rows: Rows, stored: bool = False) -> None:
        """Append; ``stored`` when the vectors are in ``base`` already."""
        self.row_of |= {int(number): len(self.numbers) + at for at, number in enumerate(rows.numbers)}
        self.numbers = np.concatenate([self.numbers, rows.numbers])
        self.words = np.concatenate([self.words, rows.words])
        self.sources = np.concatenate([self.sources, np.array(rows.sources, np.object_)])
        self.alive = np.concatenate([self.alive, np.ones(len(rows.numbers), np.bool_)])
        if not stored:
            self.tail.add(np.ascontiguousarray(rows.vectors))

    def remove(self, numbers: Sequence[int]) -> None:
        self.alive[[self.row_of.pop(number) for number in numbers if number in self.row_of]] = False

    def settle(self) -> None:
        import faiss

        vectors = self.tail.reconstruct_n(0, self.tail.ntotal)
        faiss.omp_set_num_threads(0)
        dim = vectors.shape[1]
        self.base = faiss.index_factory(dim, f"PQ{dim // 2}x4fs,Refine(Flat)", faiss.METRIC_INNER_PRODUCT)
        self.base.k_factor = 2
        self.base.train(vectors)
        self.base.add(vectors)
        faiss.omp_set_num_threads(1)
        self.tail.reset()

    def mask(self, filter: Filter) -> NDArray[np.bool_]:
        right = self.alive & (self.words >= filter.low) & (self.words < filter.high)
        return right & (self.sources == filter.source) if filter.source else right

    def search(self, vector: NDArray[np.float32], k: int, filter: Filter | None) -> Found:
        size = self.base.ntotal if self.base else 0
        dead = size - int(self.alive[:size].sum())
        parts = []
        for index, first, count in ((self.base, 0, size), (self.tail, size, self.tail.ntotal)):
            if count and filter is None:
                spare = dead if index is self.base else len(self.alive) - size - int(self.alive[size:].sum())
                parts.append((*index.search(vector[None], min(k + spare, count)), first))
            elif count and filter is not None:
                parts.append((*self._exact(index, vector, k, self.mask(filter)[first : first + count]), first))
        scores = np.concatenate([scores[0] for scores, _, _ in parts])
        rows = np.concatenate([np.where(rows[0] < 0, -1, rows[0] + first) for _, rows, first in parts])
        sound = (rows >= 0) & self.alive[rows]
        scores, rows = scores[sound], rows[sound]
        order = np.argsort(-scores, kind="stable")[:k]
        return self.numbers[rows[order]], scores[order]

    def _exact(self, index: Any, vector: NDArray[np.float32], k: int, mask: NDArray[np.bool_]) -> tuple[Any, Any]:
        import faiss

        flat = faiss.downcast_index(index.refine_index) if index is self.base else index
        bits = np.packbits(mask, bitorder="little")
        some = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        found: tuple[Any, Any] = flat.search(vector[None], min(k, len(mask)), params=some)
        return found


def until_enough(rank: Callable[[int], Found], k: int, vectors: Vectors, mask: NDArray[np.bool_]) -> Found:
    """The ``k`` best of ``rank`` that ``mask`` lets through: it is asked for more until there are ``k`` or no more."""
    depth = 8 * k
    while True:
        numbers, scores = rank(depth)
        right = mask[[vectors.row_of[number] for number in numbers.tolist()]]
        if right.sum() >= k or len(numbers) < depth:
            return numbers[right][:k], scores[right][:k]
        depth *= 8


class FaissTantivy:
    """tantivy is the durable truth (words, texts, metadata, vectors) and BM25; FAISS is its copy in memory."""

    def __init__(self, folder: Path, dim: int) -> None:
        import faiss
        import tantivy

        self.tantivy, self.base_file = tantivy, folder / "base.faiss"
        fields = tantivy.SchemaBuilder()
        for name in ("row", "number", "words"):
            fields.add_integer_field(name, stored=True, indexed=True, fast=True)
        fields.add_text_field("text", stored=True, tokenizer_name="words", index_option="freq")
        fields.add_text_field("source", stored=True, tokenizer_name="raw", index_option="basic")
        fields.add_bytes_field("vector", stored=True)
        self.schema = fields.build()
        folder.mkdir(parents=True, exist_ok=True)
        self.index = tantivy.Index(self.schema, path=str(folder))
        steps, filters = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple()), tantivy.Filter
        for step in (filters.remove_long(40), filters.lowercase(), filters.stopword("english")):
            steps = steps.filter(step)
        self.analyzer = steps.filter(filters.stemmer("english")).build()
        self.index.register_tokenizer("words", self.analyzer)
        self.writer = self.index.writer(64_000_000, 1)
        self.vectors = Vectors(dim)
        if self.base_file.exists():
            self.vectors.base = faiss.read_index(str(self.base_file))
        self._read()

    def _read(self) -> None:
        """Fill the copy in memory. Rows that are gone leave their places empty."""
        self.searcher = self.index.searcher()
        if not (count := self.searcher.num_docs):
            return
        hits = self.searcher.search(self.tantivy.Query.all_query(), count, count=False).hits
        found = sorted((doc["row"][0], doc) for doc in (self.searcher.doc(at) for _, at in hits))
        size = self.vectors.base.ntotal if self.vectors.base else 0
        total = max(size, found[-1][0] + 1)
        numbers, words = np.full(total, -1, np.int64), np.zeros(total, np.int64)
        texts, sources = [""] * total, [""] * total
        vectors = np.zeros((total, self.vectors.tail.d), np.float32)
        for row, doc in found:
            numbers[row], words[row], sources[row] = doc["number"][0], doc["words"][0], doc["source"][0]
            vectors[row] = np.frombuffer(doc["vector"][0], np.float32)
        whole = Rows(numbers, texts, sources, words, vectors)
        self.vectors.add(whole.part(0, size), stored=True)
        self.vectors.add(whole.part(size, total))
        self.vectors.row_of.pop(-1, None)
        self.vectors.alive = numbers >= 0

    def add(self, rows: Rows) -> None:
        first = len(self.vectors.numbers)
        columns = zip(rows.numbers.tolist(), rows.texts, rows.sources, rows.words.tolist(), rows.vectors, strict=True)
        for at, (number, text, source, words, vector) in enumerate(columns):
            if number in self.vectors.row_of:
                self.writer.delete_documents_by_term("number", number)
            document = self.tantivy.Document()
            for name, value in (("row", first + at), ("number", number), ("words", words)):
                document.add_integer(name, value)
            document.add_text("text", text)
            document.add_text("source", source)
            document.add_bytes("vector", vector.tobytes())
            self.writer.add_document(document)
        self._commit()
        self.vectors.remove(rows.numbers.tolist())
        self.vectors.add(rows)

    def _commit(self) -> None:
        self.writer.commit()
        self.index.reload()
        self.searcher = self.index.searcher()

    def settle(self) -> None:
        import faiss

        self.vectors.settle()
        faiss.write_index(self.vectors.base, str(self.base_file))

    def delete(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.writer.delete_documents_by_term("number", number)
        self._commit()
        self.vectors.remove(numbers)

    def dense(self, vector: NDArray[np.float32], k: int, filter: Filter | None = None) -> Found:
        return self.vectors.search(vector, k, filter)

    def bm25(self, query: str, k: int, filter: Filter | None = None) -> Found:
        wanted, occur = self.tantivy.Query, self.tantivy.Occur
        terms = Counter(self.analyzer.analyze(query))
        if not terms:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        one = [(wanted.term_query(self.schema, "text", term, "freq"), float(count)) for term, count in terms.items()]
        words = wanted.boolean_query([(occur.Should, wanted.boost_query(*part)) for part in one])
        if filter is None:
            return self._rank(words, k)
        mask = self.vectors.mask(filter)
        if (rows := np.flatnonzero(mask)).size > 2_000:  # many: a fair part of the hits is right; few: name them
            return until_enough(lambda depth: self._rank(words, depth), k, self.vectors, mask)
        inside = wanted.const_score_query(wanted.term_set_query(self.schema, "row", rows.tolist()), 0.0)
        return self._rank(wanted.boolean_query([(occur.Must, words), (occur.Must, inside)]), k)

    def _rank(self, words: Any, k: int) -> Found:
        hits = self.searcher.search(words, k, count=False).hits
        rows = self.searcher.fast_field_values("row", [at for _, at in hits])
        return self.vectors.numbers[np.array(rows, np.int64)], np.array([score for score, _ in hits], np.float32)

    def texts(self, numbers: Sequence[int]) -> list[str]:
        at = self.tantivy.Query.term_query
        hits = [self.searcher.search(at(self.schema, "number", number), 1, count=False).hits for number in numbers]
        return [self.searcher.doc(hit[0][1])["text"][0] for hit in hits]

    def numbers(self) -> list[int]:
        return list(self.vectors.row_of)


class FaissBm25sSqlite:
    """SQLite is the durable truth; bm25s cannot add, so it is made anew by the first search after a change."""

    def __init__(self, folder: Path, dim: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.vectors = Vectors(dim)
        self.database = sqlite3.connect(folder / "documents.sqlite")
        self.database.execute("pragma journal_mode = wal")
        self.database.execute("pragma synchronous = full")
        columns = "number integer primary key, text text, source text, words integer, vector blob"
        self.database.execute(f"create table if not exists documents ({columns})")
        self.lexical: tuple[BM25, NDArray[np.int64]] | None = None
        if found := self.database.execute("select number, source, words, vector from documents").fetchall():
            numbers, sources, words, blobs = zip(*found, strict=True)
            vectors = np.frombuffer(b"".join(blobs), np.float32).reshape(len(found), dim)
            self.vectors.add(Rows(np.array(numbers), [], list(sources), np.array(words), vectors))

    def add(self, rows: Rows) -> None:
        blobs = [vector.tobytes() for vector in rows.vectors]
        columns = zip(rows.numbers.tolist(), rows.texts, rows.sources, rows.words.tolist(), blobs, strict=True)
        with self.database:
            self.database.executemany("insert or replace into documents values (?, ?, ?, ?, ?)", columns)
        self.vectors.remove(rows.numbers.tolist())
        self.vectors.add(rows)
        self.lexical = None

    def settle(self) -> None:
        self.vectors.settle()
        self._words()

    def _words(self) -> tuple[BM25, NDArray[np.int64]]:
        if self.lexical is None:
            numbers, texts = zip(*self.database.execute("select number, text from documents"), strict=True)
            self.lexical = BM25(texts), np.array(numbers)
        return self.lexical

    def delete(self, numbers: Sequence[int]) -> None:
        with self.database:
            self.database.executemany("delete from documents where number = ?", [(number,) for number in numbers])
        self.vectors.remove(numbers)
        self.lexical = None

    def dense(self, vector: NDArray[np.float32], k: int, filter: Filter | None = None) -> Found:
        return self.vectors.search(vector, k, filter)

    def bm25(self, query: str, k: int, filter: Filter | None = None) -> Found:
        index, numbers = self._words()

        def rank(depth: int) -> Found:
            found = index.rank([query], depth)
            sound = found.documents[0] >= 0
            return numbers[found.documents[0][sound]], found.scores[0][sound]

        if filter is None:
            return rank(k)
        return until_enough(rank, k, self.vectors, self.vectors.mask(filter))

    def texts(self, numbers: Sequence[int]) -> list[str]:
        marks = ",".join("?" * len(numbers))
        found = dict(self.database.execute(f"select number, text from documents where number in ({marks})", numbers))
        return [found[number] for number in numbers]

    def numbers(self) -> list[int]:
        return [number for (number,) in self.database.execute("select number from documents")]
