"""A site without a server, in headless Chromium over `python -m http.server`: what it weighs, how fast it is, and
whether it finds what the server finds.

    uv run python benchmarks/browser_site.py --data FOLDER --bundles PYDOCS MSMARCO [--minisearch FOLDER] [--dim 64]
    uv run python benchmarks/browser_site.py --data FOLDER --bundles MSMARCO --first-hit

With --first-hit, only what is fetched before the first hit is drawn.
Tokens are compared on the texts of every collection in FOLDER. Rankings are compared with the server's exact search,
BM25 and fusion over the same int8 numbers. FOLDER of --minisearch is the unpacked npm package, the rival: words alone,
over the same passages in the same browser.
"""

import argparse
import gzip
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pyarrow.parquet as pq
import record
import torch
from chromium import find_chromium
from playwright.sync_api import Browser, Page, sync_playwright
from torch.nn import functional as F

from freemvmt.data.corpus import read_corpus
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.export.site.export import export_site, restored
from freemvmt.search.index.exact import top_k
from freemvmt.search.index.fusion import DEPTH, fuse
from freemvmt.search.index.ranking import Ranking
from freemvmt.search.methods import best_passages
from freemvmt.search.retriever import Retriever

SEED = 0
LOADS = 5  # visits in a fresh profile
FIRST_HITS = 50  # the same, to count what is fetched
BATCH = 2000  # texts that are given to the page at once
OPEN = (
    "const { open } = await import(new URL('page/search.js', location.href));"
    "window.search = await open(); await search.complete();"
)
ASK = "const { ask } = await import(new URL('page/ask.js', location.href));"
PROTOCOL = (
    "headless Chromium and `python -m http.server` on one machine; first search: from the load event of a fresh "
    "profile to the ten hits by both methods, with texts and shares of words, all files still to be fetched; next "
    "searches: 200 real queries never asked before, ranked alone, and with passages fetched and words explained; "
    "hybrid, k 10"
)


FIRST_HIT_PROTOCOL = (
    "headless Chromium and `python -m http.server` on one machine; each query in a fresh profile, its address opened; "
    "counted is every file whose request begins before the first hit is drawn: as it lies in the folder, and with page "
    "and manifest compressed by the host (gzip, level 6)"
)


def main() -> int:
    """Measure, print and write results/site.json, or results/site_first_hit.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--bundles", type=Path, nargs="+", required=True)
    arguments.add_argument("--minisearch", type=Path)
    arguments.add_argument("--dim", type=int, default=64)
    arguments.add_argument("--texts", type=int, default=0, help="of a collection of Parquet at most; 0: all")
    arguments.add_argument("--first-hit", action="store_true")
    asked = arguments.parse_args()
    record.require_quiet()
    queries = [json.loads(line)["text"] for line in (asked.data / "msmarco-dev-a" / "queries.jsonl").open()][:200]
    if asked.first_hit:
        say(f"wrote {first_hits(asked.bundles, asked.dim, queries[:FIRST_HITS])}")
        return 0
    figures: dict[str, Any] = {"dim": asked.dim, "sites": {}, "tokens": {}}
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        for bundle in asked.bundles:
            folder = Path(place) / bundle.name
            clock = time.perf_counter()
            site = export_site(bundle, folder, dim=asked.dim)
            found: dict[str, Any] = {"documents": site.documents, "mb": round(site.bytes / 1e6, 2)}
            found |= {"recall@10": round(site.recall, 3), "export_s": round(time.perf_counter() - clock, 1)}
            found["mb_of"] = sizes(folder)
            with hosted(folder) as address:
                found |= speed(browser, address, queries)
                found["equal_top_10"] = equality(browser, address, bundle, folder, asked.dim, queries)
            if asked.minisearch:
                found["minisearch"] = rival(browser, bundle, asked.minisearch, queries)
            figures["sites"][bundle.name] = found
            say(f"{bundle.name}: {found}")
        with hosted(Path(place) / asked.bundles[0].name) as address:
            page = opened(browser, address)
            tokenizer = Retriever.load(asked.bundles[0], verify=False).model.tokenizer  # type: ignore[union-attr]
            for name, texts in collections(asked.data, asked.texts):
                figures["tokens"][name] = {"texts": len(texts), "different": different(page, tokenizer, texts)}
                say(f"{name}: {figures['tokens'][name]}")
        figures["chromium"] = browser.version
        browser.close()
    say(f"wrote {record.write('site', PROTOCOL, [SEED], figures, ('tantivy',))}")
    return 0


def first_hits(bundles: Sequence[Path], dim: int, queries: Sequence[str]) -> Path:
    """Measure what sites fetch before the first hit; the path of the result."""
    figures: dict[str, Any] = {"dim": dim, "queries": len(queries), "sites": {}}
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        for bundle in bundles:
            folder = Path(place) / bundle.name
            site = export_site(bundle, folder, dim=dim)
            found: dict[str, Any] = {"documents": site.documents, "passages": site.passages, "mb_of": sizes(folder)}
            with hosted(folder) as address:
                found |= before_first_hit(browser, address, folder, queries)
            figures["sites"][bundle.name] = found
            say(f"{bundle.name}: {found}")
        figures["chromium"] = browser.version
        browser.close()
    return record.write("site_first_hit", FIRST_HIT_PROTOCOL, [SEED], figures, ("tantivy",))


def before_first_hit(browser: Browser, address: str, folder: Path, queries: Sequence[str]) -> dict[str, Any]:
    """Kilobytes and requests before the first hit of each query is drawn."""
    watch = (
        "new MutationObserver((_, watch) => { if (!document.querySelector('.hit')) return; watch.disconnect();"
        "window.hitAt = performance.now(); }).observe(document, { childList: true, subtree: true });"
    )
    names = (
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".filter(({ name, startTime }) => startTime < hitAt && name.startsWith('http')).map(({ name }) => name)"
    )
    rows = []
    for query in queries:
        context = browser.new_context()
        page = context.new_page()
        page.add_init_script(watch)
        page.goto(f"{address}?q={quote(query)}")
        page.wait_for_selector(".hit", state="attached")
        files = [folder / (urlsplit(name).path.strip("/") or "index.html") for name in page.evaluate(names)]
        contents = [file.read_bytes() for file in files]
        packed = [
            content if file.parts[-3:-1].count("data") or file.parent.name == "data" else gzip.compress(content, 6)
            for file, content in zip(files, contents, strict=True)
        ]
        rows.append([sum(map(len, contents)) / 1e3, sum(map(len, packed)) / 1e3, len(files)])
        context.close()
    kinds = zip(("kb", "kb_gzip", "requests"), np.array(rows).T, strict=True)
    return {
        name: {"p50": round(float(np.median(values)), 1), "most": round(float(values.max()), 1)}
        for name, values in kinds
    }


@contextmanager
def hosted(folder: Path) -> Iterator[str]:
    """The address of `python -m http.server` over ``folder``."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/").close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()


def sizes(folder: Path) -> dict[str, float]:
    """Million bytes of the parts of a site."""
    found: dict[str, float] = {}
    for file in (file for file in folder.rglob("*") if file.is_file()):
        parts = file.relative_to(folder).parts
        name = "page" if parts[0] != "data" else parts[1].removesuffix(".bin")
        name = "words" if name in ("start", "lengths") else name
        found[name] = found.get(name, 0) + file.stat().st_size / 1e6
    return {name: round(size, 3) for name, size in sorted(found.items())}


def opened(browser: Browser, address: str) -> Page:
    """The page in a fresh profile, its search in ``window.search``."""
    page = browser.new_context().new_page()
    page.goto(address)
    page.evaluate(f"async () => {{ {OPEN} }}")
    return page


def speed(browser: Browser, address: str, queries: Sequence[str]) -> dict[str, Any]:
    """Milliseconds of the first search after the load event, and of the next ones."""
    firsts = []
    search = (
        f"async (query) => {{ {ASK} const body = {{ query, method: 'hybrid', k: 10, explain: true }};"
        "const signal = new AbortController().signal, began = performance.now();"
        "let answer = await ask('search', signal, body);"
        "if (answer.rest) { await answer.rest(); answer = await ask('search', signal, body); }"
        "const { took_ms, hits } = answer;"
        "return [performance.now() - began, took_ms, hits.length]; }"
    )
    for number in range(LOADS):
        context = browser.new_context()
        page = context.new_page()
        page.goto(address, wait_until="load")
        firsts.append(page.evaluate(search, queries[number])[0])
        context.close()
    page = opened(browser, address)
    page.evaluate(search, "a first one, to warm up")
    turns = np.array([page.evaluate(search, query) for query in queries])
    again = np.array([page.evaluate(search, query) for query in queries])  # passages are there
    page.context.close()
    return {
        "first_search_ms": [round(value, 1) for value in firsts],
        "ranked_ms": quantiles(turns[:, 1]),
        "answered_ms": quantiles(turns[:, 0]),
        "answered_again_ms": quantiles(again[:, 0]),
    }


def quantiles(values: Any) -> dict[str, float]:
    """Median and 99th percentile."""
    return {f"p{share}": round(float(np.percentile(values, share)), 2) for share in (50, 99)}


def equality(
    browser: Browser, address: str, bundle: Path, folder: Path, dim: int, queries: Sequence[str]
) -> dict[str, Any]:
    """Of the queries, how many have the same ten best, in order, as by the server's search over the same numbers."""
    retriever = Retriever.load(bundle, verify=False)
    assert retriever.model is not None
    table, vectors = (restored(gzip.decompress((folder / "data" / f"{name}.bin").read_bytes()), dim)
                      for name in ("table", "documents"))  # fmt: skip
    tokens = [torch.from_numpy(retriever.model.tokenizer.encode([query]).ids).long() for query in queries]
    encoded = F.normalize(torch.stack([table[ids].sum(0) for ids in tokens]))
    view, weight = retriever.store.view(), retriever.model.hybrid_weight

    def rank_by(method: str) -> Ranking:
        """The server's best passage of each document; nothing was deleted, so a passage's number is its row."""

        def rank(rows: Any, depth: int, width: int) -> tuple[Ranking, dict[str, Ranking]]:
            dense = top_k(encoded[rows], vectors, depth)
            lexical = view.lexical([queries[row] for row in rows], depth, None)
            fused = fuse(dense, lexical, weight, width)
            first = lexical if method == "bm25" else dense
            return {"dense": dense, "bm25": lexical, "hybrid": fused}[method], {"first": first}

        return best_passages(view, rank, np.arange(len(queries)), 10, DEPTH)[0]

    wanted = {method: rank_by(method) for method in ("dense", "bm25", "hybrid")}
    page = opened(browser, address)
    ranked = (
        "async ([queries, method]) => { const all = [];"
        "for (const query of queries) { const { rows, scores } = await search.rank(query, method, 10);"
        "all.push([rows, scores]); } return all; }"
    )
    found: dict[str, Any] = {}
    for method, ranking in wanted.items():
        same = same_scores = 0
        ours = page.evaluate(ranked, [list(queries), method])
        for (rows, scores), numbers, theirs in zip(ours, ranking.documents, ranking.scores, strict=True):
            kept = numbers[:10][numbers[:10] >= 0]
            same += rows == kept.tolist()
            same_scores += len(rows) == len(kept) and np.allclose(scores, theirs[: len(kept)], rtol=1e-5, atol=1e-6)
        found[method] = {"queries": len(queries), "equal": same, "equal_scores": int(same_scores)}
    page.context.close()
    return found


def rival(browser: Browser, bundle: Path, package: Path, queries: Sequence[str]) -> dict[str, Any]:
    """MiniSearch over the same passages: the size of its stored index, and what loading and searching it take."""
    store = Retriever.load(bundle, verify=False).store
    view: Any = store.view()
    texts = [document.content for document in view.documents(view.numbers())]
    context = browser.new_context()
    page = context.new_page()
    page.add_script_tag(path=package / "dist" / "umd" / "index.js")
    page.evaluate("window.index = new MiniSearch({ fields: ['text'] }); window.next = 0")
    add = "(texts) => { for (const text of texts) index.add({ id: next++, text }); }"
    for start in range(0, len(texts), BATCH):
        page.evaluate(add, texts[start : start + BATCH])
    stored = page.evaluate("window.stored = JSON.stringify(index)")
    load = "() => { const began = performance.now(); window.index = MiniSearch.loadJSON(stored, { fields: ['text'] });"
    loaded = page.evaluate(load + "return performance.now() - began; }")
    one = "(query) => { const began = performance.now(); index.search(query); return performance.now() - began; }"
    took = [page.evaluate(one, query) for query in queries]
    context.close()
    size = len(gzip.compress(stored.encode(), 6)) / 1e6
    return {"index_mb_gzip": round(size, 2), "load_ms": round(loaded), "ranked_ms": quantiles(took)}


def collections(data: Path, most: int) -> Iterator[tuple[str, list[str]]]:
    """Each collection's name and texts: documents and queries."""
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        if (folder / "corpus.jsonl").is_file():
            texts = [document.content for document in read_corpus(str(folder))]
            texts += [json.loads(line)["text"] for line in (folder / "queries.jsonl").open(encoding="utf-8")]
            yield folder.name, texts
            continue
        seen: dict[str, None] = {}
        for file in sorted(folder.glob("*.parquet")):
            for row in pq.read_table(file, columns=["query", "passages"]).to_pylist():
                seen |= dict.fromkeys([row["query"], *row["passages"]["passage_text"]])
        yield folder.name, list(seen)[: most or None]


def different(page: Page, tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    """How many texts have other token ids in the page."""
    encode = "(texts) => texts.map((text) => search.tokenizer.encode(text).ids.join(' '))"
    wrong = 0
    for start in range(0, len(texts), BATCH):
        block = texts[start : start + BATCH]
        tokens = tokenizer.encode(block)
        ids = [tokens.ids[first:stop].tolist() for first, stop in zip(tokens.offsets, tokens.offsets[1:], strict=False)]
        ours = page.evaluate(encode, block)
        wrong += sum(" ".join(map(str, one)) != other for one, other in zip(ids, ours, strict=True))
    return wrong


def say(text: str) -> None:
    """One line of progress."""
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
