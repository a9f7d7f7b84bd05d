"""Four embedded engines behind one small protocol: add, delete, search by vector and by words, read texts.

What ``add`` and ``delete`` did is durable when they return, and replaces what had the same number. Each adapter is
written as short as its engine allows and is counted by ``lines_of``: what a live corpus would cost us in code.
"""

import inspect
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from engine_types import Engine, Filter, Found, Rows
from numpy.typing import NDArray


class LanceDb:
    """One LanceDB table with an index a column; rows that its indexes lack are searched one by one until ``settle``."""

    def __init__(self, folder: Path, dim: int) -> None:
        import lancedb

        names = {"number": pa.int64(), "text": pa.string(), "source": pa.string(), "words": pa.int64()}
        self.schema = pa.schema({**names, "vector": pa.list_(pa.float32(), dim)})
        self.table = lancedb.connect(folder).create_table("documents", schema=self.schema, exist_ok=True)
        self.unindexed = 0
        if not self.table.list_indices():
            self._index()

    def _index(self) -> None:
        from lancedb.index import FTS, Bitmap, BTree

        for column, index in (("text", FTS()), ("number", BTree()), ("words", BTree()), ("source", Bitmap())):
            self.table.create_index(column, config=index)

    def add(self, rows: Rows) -> None:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.vectors.ravel()), rows.vectors.shape[1])
        columns = [pa.array(rows.numbers), pa.array(rows.texts), pa.array(rows.sources), pa.array(rows.words), vectors]
        upsert = self.table.merge_insert("number").when_matched_update_all().when_not_matched_insert_all()
        upsert.execute(pa.table(columns, schema=self.schema))
        self.unindexed += len(rows.numbers)
        if self.unindexed >= 10_000 and len(self.table.list_indices()) == 5:
            self._optimize()

    def _optimize(self) -> None:
        self.table.optimize(cleanup_older_than=timedelta(seconds=1))
        self.unindexed = 0

    def settle(self) -> None:
        from lancedb.index import IvfHnswSq

        self._index()
        self.table.create_index("vector", config=IvfHnswSq(distance_type="dot", num_partitions=1))
        self._optimize()

    def delete(self, numbers: Sequence[int]) -> None:
        self.table.delete(f"number in ({','.join(map(str, numbers))})")

    def dense(self, vector: NDArray[np.float32], k: int, filter: Filter | None = None) -> Found:
        asked = self.table.search(vector).distance_type("dot").limit(k).select(["number", "_distance"])
        numbers, distances = self._found(asked, filter, "_distance")
        return numbers, 1 - distances

    def bm25(self, query: str, k: int, filter: Filter | None = None) -> Found:
        from lancedb.query import MatchQuery

        asked = self.table.search(MatchQuery(query, "text"), query_type="fts").limit(k).select(["number", "_score"])
        return self._found(asked, filter, "_score")

    def _found(self, asked: Any, filter: Filter | None, score: str) -> Found:
        found = (asked.where(filter.sql(), prefilter=True) if filter else asked).to_arrow()
        return found["number"].to_numpy(), found[score].to_numpy()

    def texts(self, numbers: Sequence[int]) -> list[str]:
        wanted = f"number in ({','.join(map(str, numbers))})"
        found = self.table.search().where(wanted).limit(len(numbers)).select(["number", "text"]).to_arrow()
        texts = dict(zip(found["number"].to_pylist(), found["text"].to_pylist(), strict=True))
        return [texts[number] for number in numbers]

    def numbers(self) -> list[int]:
        found: list[int] = self.table.search().select(["number"]).limit(None).to_arrow()["number"].to_pylist()
        return found


class MilvusLite:
    """Milvus Lite through pymilvus: the same calls reach a Milvus server. Its BM25 has stop words but no stemmer."""

    def __init__(self, folder: Path, dim: int) -> None:
        from pymilvus import DataType, Function, FunctionType, MilvusClient

        folder.mkdir(parents=True, exist_ok=True)
        self.client = MilvusClient(str(folder / "documents.db"))
        if self.client.has_collection("documents"):
            self.client.load_collection("documents")
            return
        schema = self.client.create_schema()
        schema.add_field("number", DataType.INT64, is_primary=True)
        filters = ["lowercase", {"type": "stop", "stop_words": ["_english_"]}]
        analyzer = {"tokenizer": "standard", "filter": filters}
        schema.add_field("text", DataType.VARCHAR, max_length=65_535, enable_analyzer=True, analyzer_params=analyzer)
        schema.add_field("source", DataType.VARCHAR, max_length=100)
        schema.add_field("words", DataType.INT64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(Function("bm25", FunctionType.BM25, ["text"], ["sparse"]))
        indexes = self.client.prepare_index_params()
        dense = {"M": 16, "efConstruction": 200}
        indexes.add_index("vector", index_type="HNSW", metric_type="IP", params=dense)
        indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
        self.client.create_collection("documents", schema=schema, index_params=indexes)

    def add(self, rows: Rows) -> None:
        names = ("number", "text", "source", "words", "vector")
        columns = (rows.numbers.tolist(), rows.texts, rows.sources, rows.words.tolist(), list(rows.vectors))
        documents = [dict(zip(names, document, strict=True)) for document in zip(*columns, strict=True)]
        for start in range(0, len(documents), 1_000):
            self.client.upsert("documents", documents[start : start + 1_000])

    def settle(self) -> None:
        self.client.flush("documents")
        self.client.load_collection("documents")

    def delete(self, numbers: Sequence[int]) -> None:
        self.client.delete("documents", ids=list(numbers))

    def dense(self, vector: NDArray[np.float32], k: int, filter: Filter | None = None) -> Found:
        wide = 512 if filter else 64  # a filtered walk loses its way: wider helps, and does not end it
        return self._search(vector, "vector", k, filter, {"params": {"ef": max(k, wide)}})

    def bm25(self, query: str, k: int, filter: Filter | None = None) -> Found:
        numbers, scores = self._search(query, "sparse", k, filter, {})
        return numbers, -scores if scores[:1].sum() < 0 else scores  # its BM25 comes as a distance

    def _search(self, wanted: Any, field: str, k: int, filter: Filter | None, how: dict[str, Any]) -> Found:
        fields = {"anns_field": field, "limit": k, "output_fields": ["number"], "search_params": how}
        hits = self.client.search("documents", [wanted], filter=filter.sql() if filter else "", **fields)[0]
        numbers = np.array([hit["number"] for hit in hits], np.int64)
        return numbers, np.array([hit["distance"] for hit in hits], np.float32)

    def texts(self, numbers: Sequence[int]) -> list[str]:
        found = self.client.get("documents", ids=list(numbers), output_fields=["number", "text"])
        texts = {row["number"]: row["text"] for row in found}
        return [texts[number] for number in numbers]

    def numbers(self) -> list[int]:
        return [row["number"] for row in self.client.query("documents", "number >= 0", output_fields=["number"])]


def parts_of(name: str) -> tuple[type[Engine], list[Any]]:
    """The adapter called ``name``, and all code of ours that it needs."""
    import engine_faiss as ours

    engines: dict[str, tuple[type[Engine], list[Any]]] = {
        "lancedb": (LanceDb, [LanceDb]),
        "milvus-lite": (MilvusLite, [MilvusLite]),
        "faiss+tantivy": (ours.FaissTantivy, [ours.FaissTantivy, ours.Vectors, ours.until_enough]),
        "faiss+bm25s+sqlite": (ours.FaissBm25sSqlite, [ours.FaissBm25sSqlite, ours.Vectors, ours.until_enough]),
    }
    return engines[name]


def lines_of(name: str) -> int:
    """Lines of the adapter that are not empty, with what it shares."""
    return sum(bool(line.strip()) for part in parts_of(name)[1] for line in inspect.getsource(part).splitlines())
