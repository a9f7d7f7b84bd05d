"""The tables of docs/scale.md: what was measured up to MS MARCO's size, and what follows from it for more.

Every number of the plan is a measured one and the formula of `plan_of`; the machine and its price are said.
"""

import math
from typing import Any

import numpy as np
from record import read

PLAN = (8_841_823, 100_000_000, 1_000_000_000, 10_000_000_000)
CORES, GIB, PRICE = 16, 128, 0.80  # of one machine; dollars an hour, about what such a machine is rented for
FULL = 0.7  # share of a machine's memory that documents may take


def scale_table() -> str:
    """Time, memory and latency by the number of passages."""
    result = read("msmarco_scale")
    rows = result["rows"]
    sizes = " | ".join(f"{row['passages']:,}" for row in rows)
    lines = [f"| passages | {sizes} |", "|---" * (len(rows) + 1) + "|"]

    def line(title: str, cells: list[str]) -> None:
        lines.append(f"| {title} | {' | '.join(cells)} |")

    line("text, GB", [f"{row['text_bytes'] / 1e9:.2f}" for row in rows])
    for stage, title in (
        ("reading", "reading, s"),
        ("encoding", "tokens and vectors, s"),
        ("vectors", "index of the vectors, s"),
        ("words", "index of the words, s"),
    ):
        line(title, [f"{row['stages_s'][stage]:,.0f}" for row in rows])
    line("text to dense index, s", [f"{_dense_seconds(row):,.0f}" for row in rows])
    line("**text to bundle, s**", [f"**{row['seconds']:,.0f}**" for row in rows])
    line("peak memory, GiB", [f"{row['peak_mib'] / 1024:.1f}" for row in rows])
    line("bundle, GB", [f"{row['bundle_bytes'] / 1e9:.2f}" for row in rows])
    line("index", [f"{row['index']['kind']}, {row['index']['stored']}" for row in rows])
    line("recall@100 against exact search", [f"{row['search']['recall@100']:.3f}" for row in rows])
    for method in ("dense", "bm25", "hybrid"):
        cells = [f"{row['search'][method]['p50_ms']:.1f}, {row['search'][method]['p99_ms']:.1f}" for row in rows]
        line(f"{method}, p50 and p99, ms", cells)
    line("memory of the process that searches, GiB", [f"{row['search']['mib'] / 1024:.1f}" for row in rows])
    return (
        "\n".join(lines) + f"\n\n{result['protocol']}. {result['machine']['cores']} cores.\n"
        "Made by `uv run python benchmarks/msmarco_scale.py --data FOLDER --model MODEL --work FOLDER`."
    )


def plan_table() -> str:
    """Machines, time, money and latency by the number of passages."""
    titles = "shards | machines | disk in all, TB | encode, min | index, min | hybrid, ms | $ an hour"
    lines = [f"| passages | {titles} |", "|---" * 8 + "|"]
    for passages in PLAN:
        plan = plan_of(passages)
        at_least = "≥ " if plan["quantile"] > 0.99 else ""
        lines.append(
            f"| {passages:,} | {plan['shards']:,} | {plan['machines']:,} | {plan['disk_tb']:.2f} "
            f"| {plan['encode_min']:.1f} | {plan['index_min']:.0f} | {at_least}{plan['hybrid_ms']:.0f} "
            f"| {plan['dollars_an_hour']:,.2f} |"
        )
    return "\n".join(lines)


def plan_of(passages: int) -> dict[str, float]:
    """What so many passages take, in shards of the largest measured size or less.

    A shard is a process as it was measured, with its cores; a machine has as many as its memory and its cores hold. All
    are made, and asked, at once. A query waits for the slowest: of S shards the median query waits for the quantile
    0.5 ^ (1 / S) of what one takes, read off between the measured percentiles.
    """
    result = read("msmarco_scale")
    measured, cores = result["rows"][-1], result["machine"]["cores"]
    size = measured["passages"]
    shards = math.ceil(passages / size)
    in_memory = int(FULL * GIB * 1024 / measured["search"]["mib"])
    quantile = 0.5 ** (1 / shards)
    latency = measured["search"]["hybrid"]
    share = min(passages / shards / size, 1.0)
    return {
        "shards": shards,
        "machines": math.ceil(shards / min(CORES // cores, in_memory)),
        "disk_tb": passages * measured["bundle_bytes"] / size / 1e12,
        "encode_min": measured["stages_s"]["encoding"] * share / 60,
        "index_min": measured["seconds"] * share / 60,
        "quantile": quantile,
        "hybrid_ms": float(np.interp(quantile, (0.5, 0.95, 0.99), [latency[f"p{p}_ms"] for p in (50, 95, 99)])),
        "dollars_an_hour": math.ceil(shards / min(CORES // cores, in_memory)) * PRICE,
    }


def _dense_seconds(row: dict[str, Any]) -> float:
    return sum(row["stages_s"][stage] for stage in ("reading", "encoding", "vectors"))


def streaming_table() -> str:
    """Peak memory by the number of pairs, streamed and not."""
    result = read("streaming_memory")
    lines = ["| pairs | `--streaming`, MiB | s | all in memory, MiB | s |", "|---|---|---|---|---|"]
    for times in (1, 10):
        cells = []
        for streaming in (True, False):
            row = next(one for one in result["rows"] if (one["times"], one["streaming"]) == (times, streaming))
            cells += [f"{row['peak_mib']:,}", f"{row['seconds']:.0f}"]
        lines.append(f"| {row['pairs']:,} | {' | '.join(cells)} |")
    made = "Made by `uv run python benchmarks/streaming_memory.py --data FOLDER`."
    return "\n".join(lines) + f"\n\n{result['protocol']}.\n{made}"


def encoding_table() -> str:
    """Seconds of each engine."""
    result = read("encode_engines")
    lines = ["| engine | s, median of three | documents/s |", "|---|---|---|"]
    for name, seconds in result["median"].items():
        rate = "" if name.endswith("start") else f"{result['documents'] / seconds:,.0f}"
        lines.append(f"| {name} | {seconds:.1f} | {rate} |")
    said = f"{result['documents']:,} documents in shards of {result['shard']:,}; {result['protocol']}."
    made = "Made by `scripts/alone uv run --extra ray python benchmarks/encode_engines.py --data FOLDER --model MODEL`."
    return "\n".join(lines) + f"\n\n{said}\n{made}"
