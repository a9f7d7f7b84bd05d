"""The table of docs/reliability.md."""

from record import read
from server_faults import WARM_UP


def reliability_table() -> str:
    """Promise, test and last figure."""
    fuzz, coverage = read("fuzz"), read("fuzz_coverage")
    kills, faults = read("kills"), read("server_faults")
    cost, hostile = read("checkpoint_cost")["towers"], read("hostile")
    cuts = read("power_cut")
    killed = sum(one["while_it_ran"] for one in kills["commands"].values())
    tried = sum(one["tried"] for one in coverage["targets"].values())
    wrong = sum(one["failed"] for one in coverage["targets"].values())
    memory = faults["memory_mb_by_minute"][WARM_UP:]
    p99, files = faults["p99_ms_by_minute"], faults["open_files_by_minute"]
    rows = [
        (
            "a stopped training ends with the bytes of one that was not",
            "`tests/e2e/training/test_checkpoint.py`",
            "equal",
        ),
        (
            "a checkpoint costs less than 3 % of the time",
            "`benchmarks/checkpoint_cost.py`",
            "; ".join(f"{name} {one['seconds']:.2f} s, {one['share_at_default']:.1%}" for name, one in cost.items()),
        ),
        (
            f"{', '.join(f'`{name}`' for name in kills['commands'])} under `kill -9` go on and leave nothing",
            "`benchmarks/kills.py`",
            f"{killed} kills while they ran, {kills['failures']} failures",
        ),
        (
            "after a power cut what was acknowledged is there, and nothing is half",
            "`benchmarks/power_cut.py`",
            f"{cuts['states']:,} states of {len(cuts['tasks'])} tasks, {cuts['failures']} failures",
        ),
        (
            "a damaged file is refused in one line, made anew, or read right",
            "`benchmarks/fuzz.py`",
            f"{fuzz['mutations']:,} mutations of {len(fuzz['files'])} kinds of files, {len(fuzz['failures'])} failures",
        ),
        ("the same of texts, by coverage", "`benchmarks/fuzz_coverage.py`", f"{tried:,} inputs, {wrong} failures"),
        (
            "hostile requests: no fault, no hang",
            "`benchmarks/hostile.py`",
            f"{hostile['requests']:,} requests, {len(hostile['faults']) + len(hostile['hangs'])} failures",
        ),
        (
            "a killed worker takes with it what was under way and what was sent on its open connections",
            "`benchmarks/server_faults.py`",
            f"{faults['kills']} kills: {sum(faults['failed_at_kills'])} failed, "
            f"{sum(faults['in_flight_at_kills'])} were under way; {faults['answered']:,} answered",
        ),
        (
            "a bundle is swapped under load without an error",
            "`benchmarks/server_faults.py`",
            f"{faults['swaps']} swaps, {sum(faults['failed_apart_from_kills'].values())} failed",
        ),
        (
            "memory is flat after the warm-up",
            "`benchmarks/server_faults.py`",
            f"{faults['memory_mb_a_minute_after_warm_up']:+.1f} MB a minute ({min(memory):.0f} to {max(memory):.0f} MB "
            f"from minute {WARM_UP + 1} to {WARM_UP + len(memory)})",
        ),
        (
            "open files and p99 stay as they are",
            "`benchmarks/server_faults.py`",
            f"{min(files)} to {max(files)} files; p99 {min(p99):.0f} to {max(p99):.0f} ms by minute",
        ),
    ]
    return "| promise | test | last figure |\n|---|---|---|\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)
