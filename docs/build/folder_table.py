"""The tables of docs/how-to/folders.md and docs/how-to/long-documents.md."""

from typing import Any

from record import read
from speed_tables import arrow


def folder_table() -> str:
    """Seconds and memory of the commands that read a folder, by its number of files."""
    result = read("folder")
    files = result["files"]
    steps = list(dict.fromkeys(step for found in files.values() for step in found if isinstance(found[step], dict)))
    lines = [f"| | {' | '.join(f'{int(size):,} files' for size in files)} |", "|---" * (len(files) + 1) + "|"]
    for step in steps:
        cells = [
            f"{found[step]['seconds']:.1f} s, {found[step]['peak_mib']:,} MiB" if step in found else ""
            for found in files.values()
        ]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    sizes = " and ".join(f"{found['bytes'] / 1e6:.0f} MB" for found in files.values())
    return (
        "\n".join(lines) + f"\n\n{result['protocol']}; {sizes} of text; {result['machine']['cores']} cores of "
        f"{result['machine']['processor']}.\nMade by `uv run python benchmarks/folder.py`."
    )


def adapt_table() -> str:
    """NDCG@10 of general models, and of what the corpus's own text makes of them."""
    result = read("adapt")
    found: dict[str, Any] = result["collections"]
    lines = [f"| NDCG@10, general → adapted | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    bm25 = [f"{one['bm25']['ndcg@10']:.3f}" for one in found.values()]
    lines.append(f"| BM25 | {' | '.join(bm25)} |")
    models = [title for title in next(iter(found.values())) if title not in ("protocol", "queries", "bm25")]
    lines += _model_rows(found, models, "general", "adapted")
    held_out = [
        f"{name} {one[models[0]]['held_out']} of {one[models[0]]['queries'] + one[models[0]]['held_out']:,}"
        for name, one in found.items()
    ]
    return (
        "\n".join(lines) + f"\n\nMean of {len(result['seeds'])} seeds, judged queries, full corpus, documents by their "
        "first 256 tokens. ↑ better and ↓ worse than the general model with p < 0.05 in a paired randomisation test. "
        f"Queries that were held out for validation: {', '.join(held_out)}."
        f"\nMade by `uv run python benchmarks/adapt.py --data FOLDER --work FOLDER --collections {' '.join(found)}`."
    )


def long_documents_table() -> str:
    """NDCG@10 over whole documents and over passages."""
    result = read("long_documents")
    found: dict[str, Any] = result["collections"]
    head = [f"{name}: {one['documents']:,} documents" for name, one in found.items()]
    lines = [f"| NDCG@10, `--no-cut` → cut | {' | '.join(head)} |", "|---" * (len(found) + 1) + "|"]
    models = [title for title in next(iter(found.values())) if title not in ("documents", "queries")]
    passages = [f"{one[models[0]]['passages']:,}" for one in found.values()]
    lines.append(f"| passages | {' | '.join(passages)} |")
    bm25 = [_change(one[models[0]]["bm25"], "whole", "passages") for one in found.values()]
    lines.append(f"| BM25 | {' | '.join(bm25)} |")
    lines += _model_rows(found, models, "whole", "passages")
    return (
        "\n".join(lines) + f"\n\n{result['protocol'][0].upper()}{result['protocol'][1:]}. Mean of "
        f"{len(result['seeds'])} seeds; ↑ better and ↓ worse than without cutting, p < 0.05 in a paired randomisation "
        "test.\nMade by `uv run python benchmarks/long_documents.py --data FOLDER --work FOLDER`."
    )


def _model_rows(found: dict[str, Any], models: list[str], before: str, after: str) -> list[str]:
    """A row for each of ``models``, dense and in hybrid: both scores in each collection."""
    rows = []
    for title in models:
        for method in ("dense", "hybrid"):
            cells = [_change(one[title][method], before, after) for one in found.values()]
            rows.append(f"| {title}, {method} | {' | '.join(cells)} |")
    return rows


def _change(found: dict[str, Any], before: str, after: str) -> str:
    """Both scores, and an arrow where the second differs from the first."""
    return f"{found[before]['ndcg@10']:.3f} → {found[after]['ndcg@10']:.3f}{arrow(found[after][f'minus_{before}'])}"
