"""Tables of speed, from results/{encode,training,full_corpus,hybrid_search,startup,scaling,cpu_cost}.json."""

from collections.abc import Sequence

from record import read

SHORT = (0, 2, 5, 7, 8)  # the rows that README shows


def short_speed_table() -> str:
    """Five rows of the table of speed: encoding, training, exact search with its metrics, a bundle, the start."""
    return speed_table(SHORT)


def speed_table(shown: Sequence[int] | None = None) -> str:
    """A row a claim: the work, who it is measured against, ours, theirs, the ratio, and the script."""
    encode, training, corpus = read("encode"), read("training"), read("full_corpus")
    hybrid, startup = read("hybrid_search"), read("startup")
    rows: list[tuple[str, str, str, str, str, str]] = []
    mine = encode["ways"]["two-towers"]
    for name in ("sentence-transformers", "model2vec"):
        other = encode["ways"][name]
        rows.append(
            (
                f"encode {encode['passages']:,} passages of {encode['words_per_passage']:.0f} words, passages/s",
                name,
                f"{mine['passages_per_second']:,}",
                f"{other['passages_per_second']:,}",
                _times(other["times_as_long"], other["range"]),
                "encode",
            )
        )
    ours, peer = training["ways"]["two-towers, triplet"], training["ways"]["sentence-transformers"]
    rows.append(
        (
            "train one epoch of `qa` (108,867 pairs), batch 2,048, Parquet to saved model, s",
            "sentence-transformers",
            f"{ours['seconds']:.1f}",
            f"{peer['seconds']:.1f}",
            _times(peer["seconds_ratio"], peer["seconds_range"]),
            "training",
        )
    )
    rows.append(
        (
            "its largest memory, MiB",
            "sentence-transformers",
            f"{ours['peak_mib']:,.0f}",
            f"{peer['peak_mib']:,.0f}",
            _times(peer["peak_mib_ratio"], peer["peak_mib_range"]),
            "training",
        )
    )
    for part, work, name in (
        ("search", "the exact best 100", "FAISS flat"),
        ("evaluation", "the exact best 100 and all metrics", "sentence-transformers"),
    ):
        found = corpus[part]
        title = f"{work}, {found['queries']:,} queries over {corpus['documents']:,} passages, s"
        times, span = found[name]["times_as_long"], found[name]["range"]
        cells = (f"{found['two-towers']['seconds']:.1f}", f"{found[name]['seconds']:.1f}")
        rows.append((title, name, *cells, _times(times, span), "full_corpus"))
    for name in ("two-towers, in memory", "two-towers, bundle"):
        ratio = hybrid["ours_times_the_sum"][name]
        where = name.partition(", ")[2]
        rows.append(
            (
                f"hybrid search, {hybrid['documents']:,} passages, {where}, queries/s",
                "bm25s + FAISS, no fusion",
                f"{2000 / hybrid['ways'][name]['seconds']:,.0f}",
                f"{2000 / hybrid['ways']['bm25s + FAISS']['seconds']:,.0f}",
                _times(round(1 / ratio["median"], 2), [1 / ratio["range"][1], 1 / ratio["range"][0]]),
                "hybrid_search",
            )
        )
    ways = startup["ways"]
    other = ways["import sentence_transformers"]
    rows.append(
        (
            "`two-towers --help` beside `import sentence_transformers`, s",
            "sentence-transformers",
            f"{ways['two-towers --help']['seconds']:.2f}",
            f"{other['seconds']:.2f}",
            _times(other["times_as_long"], other["range"]),
            "startup",
        )
    )
    for name in (name for name in ways if name.startswith("two-towers search")):
        rows.append(
            (
                f"`two-towers search`, {name.partition(', ')[2]}, s",
                "",
                f"{ways[name]['seconds']:.2f}",
                "",
                "",
                "startup",
            )
        )
    others = {"after_pause_ms": "one after a pause", "hundredth_ms": "its hundredth"}
    for name in (name for name in startup if name.startswith("served")):
        served = startup[name]
        rows.extend(
            (
                f"a server's first answer beside {title}, {name.partition(', ')[2]}, ms",
                "itself",
                f"{served['first_ms']:.1f}",
                f"{served[key]:.1f}",
                "",
                "startup",
            )
            for key, title in others.items()
            if key in served  # an older result has no pause
        )
    rows.append(("quickstart, cold, s", "", f"{startup['quickstart']['seconds']:.0f}", "", "", "startup"))
    head = "| work | beside | ours | theirs | ratio (range) | `benchmarks/` |\n|---|---|---|---|---|---|\n"
    rows = rows if shown is None else [rows[number] for number in shown]
    return head + "\n".join(f"| {' | '.join(row)} |" for row in rows) + f"\n\n{_machines([row[-1] for row in rows])}"


def training_table() -> str:
    """What an epoch gives and costs, and how good each is on collections that none has seen."""
    result = read("training")
    collections = list(result["against_the_peer"])
    head = ["one epoch, batch 2,048", "seconds", "with imports", "MiB", *collections, "mean"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, found in result["ways"].items():
        scores = [f"{found['ndcg@10'][at]:.3f}" + arrow(result["against_the_peer"][at].get(name)) for at in collections]
        cells = [f"{found['seconds']:.1f}", f"{found['whole']:.1f}", f"{found['peak_mib']:,.0f}"]
        mean = f"{found['mean_ndcg@10']:.3f}"
        lines.append(f"| {' | '.join([name, *cells, *scores, mean])} |")
    return (
        "\n".join(lines)
        + "\n\nNDCG@10 over the full corpus, mean of five seeds; ↑ better and ↓ worse than sentence-transformers with "
        "p < 0.05 in a paired randomisation test."
    )


def roofline_table() -> str:
    """What the work needs, what the machine gives, and how near we are."""
    encode, training, corpus = read("encode"), read("training"), read("full_corpus")
    roof, roofs, product = encode["roofline"], training["roofs"], corpus["roofline"]
    rows = encode["stages"]["average and scale"]["seconds"]
    steps, pairs = 54, 2016
    operations = 2 * pairs * pairs * 384 * steps / 1e9
    whole = corpus["all_queries"]
    least = product["seconds_of_the_whole_product_at_that_speed"]
    lines = [
        "| work | it needs | the machine gives | so at least | measured |",
        "|---|---|---|---|---|",
        f"| encode: rows of the table | {roof['bytes_of_rows'] / 1e9:.1f} GB ({roof['tokens']:,} tokens x 384 x 4) | "
        f"{roof['cached_rows_gb_per_second']:.0f} GB/s of rows that lie in the cache, "
        f"{roof['memory_read_gb_per_second']:.0f} GB/s from memory | "
        f"{roof['bytes_of_rows'] / 1e9 / roof['cached_rows_gb_per_second']:.2f} s | {rows:.2f} s |",
        f"| encode: tokens | {encode['stages']['tokenise']['seconds']:.2f} s in nanotoken, both cores | | "
        f"{encode['stages']['tokenise']['seconds']:.2f} s | whole: {encode['ways']['two-towers']['seconds']:.2f} s |",
        f"| train, triplet: choose the hardest | {operations:.0f} GFLOP ({steps} x 2 x 2,016² x 384) | "
        f"{roofs['matrix_gflops']:.0f} GFLOP/s (fp32; bf16 is not native here) | "
        f"{operations / roofs['matrix_gflops']:.1f} s | see below |",
        f"| exact search, {whole['queries']:,} queries | {2 * whole['queries'] * corpus['documents'] * 384 / 1e12:.1f} "
        f"TFLOP | {product['matrix_gflops']:.0f} GFLOP/s | {least:.0f} s | {whole['two-towers_seconds']:.0f} s "
        f"(FAISS {whole['FAISS flat_seconds']:.0f} s), {whole['gib_above_the_vectors']:.2f} GiB above the vectors |",
    ]
    return "\n".join(lines)


def scaling_table() -> str:
    """Seconds and memory by size, and the slopes."""
    result = read("scaling")
    sizes = [str(size) for size in result["sizes"]]
    titles = {
        "encode": "encode",
        "train": "train, one epoch",
        "index": "index",
        "index, light": "index, transformer documents",
        "search": "search, hybrid, one query",
        "index, pq": "index, `--kind pq`",
        "search, pq": "search, hybrid, one query, `--kind pq`",
        "search, light": "search, hybrid, light query over transformer documents",
    }
    head = ["", *(f"{int(size):,}" for size in sizes), "slope: time", "memory"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    if "kinds" in result:  # an older result has one kind
        lines.append(f"| kind of index | {' | '.join(result['kinds'][size] for size in sizes)} |  |  |")
    for stage, title in titles.items():
        if not any(stage in result["stages"][size] for size in sizes):
            continue  # measured before there was such a stage
        cells = []
        for size in sizes:
            found = result["stages"][size].get(stage)
            if found is None:
                cells.append("")
                continue
            taken = f"{found['seconds'] * 1000:.1f} ms" if "search" in stage else f"{found['seconds']:.1f} s"
            cells.append(f"{taken}, {found['mib']:,} MiB")
        slopes = result["slopes"].get(stage)
        grown = [f"{slopes[key]:.2f}" if slopes else "" for key in ("seconds", "mib")]
        lines.append(f"| {' | '.join([title, *cells, *grown])} |")
    return "\n".join(lines)


def cpu_table() -> str:
    """CPU seconds a thousand queries, by the number of documents; the ratio to the first way in the last column."""
    result = read("cpu_cost")
    sizes = result["sizes"]
    names = [name for name in next(iter(sizes.values())) if not name.startswith("average query")]
    head = ["CPU seconds a thousand queries", *(f"{int(size):,} documents" for size in sizes)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in names:
        cells = []
        for found in sizes.values():
            figure = found.get(name)
            cells.append(f"{figure['cpu_seconds']:.2f} ({figure['times_ours']:.1f})" if figure else "")
        lines.append(f"| {' | '.join([name, *cells])} |")
    return (
        "\n".join(lines) + f"\n\nIn brackets: how many times the first row. {result['protocol']}. "
        f"{result['machine']['processor']}.\nMade by `OMP_NUM_THREADS=1 uv run python benchmarks/cpu_cost.py "
        "--data FOLDER --work FOLDER`."
    )


def _times(ratio: float, span: list[float]) -> str:
    return f"**{ratio:.1f}** ({span[0]:.1f} to {span[1]:.1f})"


def arrow(test: dict[str, float] | None) -> str:
    """Whether a test says better, worse, or neither."""
    if test is None or test["p_value"] >= 0.05:
        return ""
    return " ↑" if test["difference"] > 0 else " ↓"


def gpu_table() -> str:
    """The same work on the cores beside a GPU and on the GPU."""
    result = read("gpu")
    rows = []
    for tower, found in result["training"].items():
        cpu, cuda = found["cpu"], found["cuda"]
        good = (
            f"val ndcg@10 {cpu['val_ndcg_10']:.4f} / {cuda['val_ndcg_10']:.4f}; {cuda['gpu_memory_mb']:,} MB of the GPU"
        )
        rows.append((f"train, {tower}, pairs/s", cpu["pairs_a_second"], cuda["pairs_a_second"], good))
    for tower, found in result["encoding"].items():
        same = f"largest difference of a number of a vector {found['largest_difference']:.1e}"
        cpu, cuda = (found[f"{device}_passages_a_second"] for device in ("cpu", "cuda"))
        rows.append((f"encode, {tower}, passages/s", cpu, cuda, same))
    found = result["exact_search"]
    cpu, cuda = (round(1000 / found[f"{device}_seconds"]) for device in ("cpu", "cuda"))
    rows.append(("exact best 100 of 1,000,000, queries/s", cpu, cuda, f"{found['same_ids']:.0%} the same ids"))
    head = f"| | {result['machine']['cores']} cores | {result['gpu']} | ratio | |\n|---|---|---|---|---|\n"
    lines = [f"| {name} | {a:,} | {b:,} | **{b / a:.1f}** | {same} |" for name, a, b, same in rows]
    if documents := result.get("documents"):
        ours, peer = documents["two-towers"], documents["sentence-transformers"]
        lines.append(
            f"| encode, transformer, passages/s, beside sentence-transformers on the GPU | {peer:,} | {ours:,} "
            f"| **{ours / peer:.1f}** | least cosine {documents['least_cosine']} |"
        )
    return (
        head + "\n".join(lines) + f"\n\ntorch {result['versions']['torch']}. Made by `uv run python benchmarks/gpu.py`."
    )


def _machines(names: Sequence[str]) -> str:
    """The processors of the results ``names``, which may be of several days, and the versions of the peers."""
    results = {name: read(name) for name in dict.fromkeys(names)}
    measured: dict[str, list[str]] = {}
    for name, result in results.items():
        machine = result["machine"]
        measured.setdefault(f"{machine['cores']} cores of {machine['processor']}", []).append(f"`{name}`")
    first, *others = sorted(measured, key=lambda machine: -len(measured[machine]))
    parts = [first, *(f"{', '.join(measured[machine])} on {machine}" for machine in others)]
    versions = {key: value for result in results.values() for key, value in result["versions"].items()}
    peers = ("torch", "sentence-transformers", "model2vec", "nanotoken")
    parts.append(", ".join(f"{name} {versions[name]}" for name in peers))
    return f"No GPU; {'; '.join(parts)}. On a GPU: docs/performance.md."
