"""What a static site of two towers of two kinds finds: NDCG@10 in headless Chromium, beside the served bundle's.

    uv run python benchmarks/browser_quality.py --model MODEL --collection FOLDER/msmarco-dl19 [--dims 384 128 64]

MODEL has an average query tower over a transformer's documents, whose vectors come from the cache (`evaluate` fills
it). Each site holds the whole collection, with vectors of that many dimensions; the page ranks every judged query.
Writes results/site_quality.json.
"""

import argparse
import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import record
from browser_site import hosted, opened, say
from chromium import find_chromium
from playwright.sync_api import Page, sync_playwright

from freemvmt.config import DataConfig, Method
from freemvmt.data.collection import Collection
from freemvmt.data.load import load_collection
from freemvmt.evaluation.metrics import Result, bounds_of, evaluate, measure
from freemvmt.export.site.export import export_site
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.retriever import Retriever

METHODS: tuple[Method, ...] = ("bm25", "dense", "hybrid")
DEPTH = 100  # hits of a query; the page gives at most as many
RANK = """async ([queries, method, depth]) => {
  const all = [];
  for (const query of queries) all.push(await search.rank(query, method, depth));
  return all.map(({ rows, scores }) => [rows, Array.from(scores)]);
}"""


def main() -> int:
    """Measure, print, write results/site_quality.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", type=Path, required=True)
    arguments.add_argument("--collection", type=Path, required=True)
    arguments.add_argument("--dims", type=int, nargs="+", default=[384, 128, 64])
    given = arguments.parse_args()
    collection = load_collection(str(given.collection), "test", DataConfig())
    model = TwoTowersModel.load(given.model)
    model.encode_documents = lambda texts: model.cached_vectors("document", list(texts))  # type: ignore[method-assign]
    figures: dict[str, Any] = {"queries": len(collection.queries), "documents": len(collection.documents)}
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        bundle = Path(place) / "bundle"
        build(model, str(given.collection), bundle, kind="exact", cut=False)
        retriever = Retriever.load(bundle)
        figures["served"] = {method: _summary(evaluate(retriever, collection, method)[0]) for method in METHODS}
        say(f"served: {figures['served']}")
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        figures["sites"] = {}
        for dim in given.dims:
            folder = Path(place) / f"site-{dim}"
            site = export_site(bundle, folder, dim=dim, max_mb=1000)
            with hosted(folder) as address:
                page = opened(browser, address)
                found = {method: _summary(_measured(page, folder, collection, method)) for method in METHODS}
            figures["sites"][dim] = {"mb": round(site.bytes / 1e6, 1), "recall@10": round(site.recall, 3), **found}
            say(f"{dim} dimensions: {figures['sites'][dim]}")
        figures["chromium"] = browser.version
        browser.close()
    protocol = (
        f"full corpus of {collection.name}, documents whole; average queries over a transformer's documents, one seed; "
        "Chromium"
    )
    sys.stdout.write(f"wrote {record.write('site_quality', protocol, [0], figures)}\n")
    return 0


def _measured(page: Page, folder: Path, collection: Collection, method: Method) -> Result:
    """The quality of the page's rankings; its site is in ``folder``."""
    names = json.loads(gzip.decompress((folder / "data" / "ids.bin").read_bytes()))
    rankings = page.evaluate(RANK, [list(collection.queries), method, DEPTH])
    run = {
        query: {names[row]: score for row, score in zip(rows, scores, strict=True)}
        for query, (rows, scores) in zip(collection.query_ids, rankings, strict=True)
    }
    return measure(run, collection, method)


def _summary(result: Result) -> dict[str, Any]:
    return {"ndcg@10": round(result.metrics["ndcg@10"], 4), "interval_95": bounds_of(result.intervals["ndcg@10"], 4)}


if __name__ == "__main__":
    sys.exit(main())
