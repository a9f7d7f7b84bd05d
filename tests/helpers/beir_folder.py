"""Small collections in BEIR's form."""

import json
from pathlib import Path


def write_beir(folder: Path, **qrels: list[str]) -> Path:
    """Ten documents "on N" and queries "query N"; ``qrels``: the judgements of each split, as "q0 d0 1"."""
    documents = [{"_id": f"d{number}", "title": "on", "text": f"{number}"} for number in range(10)]
    queries = [{"_id": f"q{number}", "text": f"query {number}"} for number in range(10)]
    (folder / "qrels").mkdir(parents=True)
    for name, records in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for part, lines in qrels.items():
        rows = ["query-id corpus-id score", *lines]
        (folder / "qrels" / f"{part}.tsv").write_text("".join(row.replace(" ", "\t") + "\n" for row in rows))
    return folder


def beir(folder: Path, documents: dict[str, tuple[str, str]], queries: dict[str, str], qrels: list[str]) -> Path:
    """A BEIR folder; documents as (title, text), qrels as tab-separated lines."""
    (folder / "qrels").mkdir(parents=True)
    lines = [json.dumps({"_id": id, "title": title, "text": text}) for id, (title, text) in documents.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines), "utf-8")
    lines = [json.dumps({"_id": id, "text": text}) for id, text in queries.items()]
    (folder / "queries.jsonl").write_text("\n".join(lines), "utf-8")
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *qrels]), "utf-8")
    return folder
