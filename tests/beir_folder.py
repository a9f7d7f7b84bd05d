"""A small collection in BEIR's form."""

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
