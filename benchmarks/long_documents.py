"""Is a long document found by what stands deep in it? Documents cut into passages, beside their first 256 tokens.

    uv run python benchmarks/long_documents.py --data FOLDER --work FOLDER

The long documents are the docs of the installed packages: a page of everything that a module or class has, each entry
under its name, without its summary. 1,000 summaries of entries that begin beyond the first 256 tokens of their page are
the queries; the page is the answer. SciFact, CISI and Cranfield stand beside them, by their judged queries. Averages of
`qa` and `msmarco`, three seeds, and untrained ones; each ranking is tested against the uncut one, query by query.
WORK keeps the models (`general-0` to `-2`). FOLDER holds the data sets and BEIR folders by name.
"""

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import record
from quality import SEEDS, mean_of, summed_up, tested
from recurrent import trained

from freemvmt.config import DataConfig, Method, TrainConfig
from freemvmt.data.collection import Collection
from freemvmt.data.load import load_collection
from freemvmt.data.readers.pydocs import Docstring, read
from freemvmt.evaluation.metrics import Result, evaluate
from freemvmt.model import TwoTowersModel
from freemvmt.search.retriever import Retriever

PAGES = "pages of installed docs"
COLLECTIONS = ("scifact", "cisi", "cranfield")
QUERIES = 1000
METHODS: tuple[Method, ...] = ("dense", "bm25", "hybrid")


def main() -> int:
    """Measure, print, write results/long_documents.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--work", type=Path, required=True)
    given = arguments.parse_args()
    general = TrainConfig(dataset=tuple(str(given.data / name) for name in ("qa", "msmarco")), wandb=False)
    models = {"untrained": [TwoTowersModel()], "averages of qa and msmarco": trained("general", general, given.work)[0]}
    collections = {PAGES: module_pages(models["untrained"][0])}
    collections |= {name: load_collection(str(given.data / name), "test", DataConfig()) for name in COLLECTIONS}
    found: dict[str, Any] = {}
    for name, collection in collections.items():
        found[name] = {"documents": len(collection.documents), "queries": len(collection.queries)}
        for title, seeds in models.items():
            found[name][title] = compared(seeds, collection)
            sys.stdout.write(f"{name:<24} {title:<28} {found[name][title]}\n")
            sys.stdout.flush()
    protocol = (
        "full corpus; documents of more than 256 tokens cut into passages and ranked by their best one, against the "
        f"first 256 tokens of each (BM25: all words); {PAGES}: {QUERIES:,} summaries of entries that begin beyond "
        "token 256 of a page, drawn by seed 0, and no summary stands on a page"
    )
    sys.stdout.write(f"wrote {record.write('long_documents', protocol, SEEDS, {'collections': found})}\n")
    return 0


def module_pages(model: TwoTowersModel) -> Collection:
    """The pages of the installed docs, and the queries whose answer stands deep in one."""
    pages: dict[str, list[Docstring]] = {}
    for docstring in read():
        pages.setdefault(docstring.name.rpartition(".")[0] or docstring.package, []).append(docstring)
    texts, deep = [], list[tuple[str, str]]()
    for page, entries in pages.items():
        parts = [f"# {page}", *(f"## {entry.name}\n\n{entry.body}" for entry in entries)]
        texts.append("\n\n".join(parts))
        lengths = model.tokenizer.encode([part[: 20 * 256] for part in parts]).lengths  # 256 at most, each
        starts = itertools.accumulate(map(int, lengths))
        deep += [(entry.summary, page) for entry, start in zip(entries, starts, strict=False) if start > 256]
    chosen = np.sort(np.random.default_rng(0).permutation(len(deep))[:QUERIES])
    ids = [str(number) for number in range(len(chosen))]
    return Collection(
        name=PAGES,
        document_ids=list(pages),
        documents=texts,
        query_ids=ids,
        queries=[deep[number][0] for number in chosen],
        qrels={id: {deep[number][1]: 1} for id, number in zip(ids, chosen, strict=True)},
        titles=[f"# {page}" for page in pages],
    )


def compared(models: list[TwoTowersModel], collection: Collection) -> dict[str, Any]:
    """The results of each method over whole documents and over passages, and the number of passages."""
    results: dict[bool, dict[str, list[Result]]] = {cut: {method: [] for method in METHODS} for cut in (False, True)}
    passages = 0
    for model in models:
        for cut, of_methods in results.items():
            retriever = Retriever(
                model, collection.documents, collection.document_ids, cut=cut, titles=collection.titles
            )
            passages = len(retriever.store.all_vectors)
            for method, of_method in of_methods.items():
                of_method.append(evaluate(retriever, collection, method)[0])
    figures: dict[str, Any] = {"passages": passages}
    for method in METHODS:
        whole, by_passage = results[False][method], results[True][method]
        against = tested(mean_of(by_passage), mean_of(whole))
        figures[method] = {"whole": summed_up(whole), "passages": summed_up(by_passage) | {"minus_whole": against}}
    return figures


if __name__ == "__main__":
    sys.exit(main())
