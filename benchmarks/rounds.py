"""Several ways to do one thing, timed in turns: one round after the other, each way once a round.

A machine's speed drifts; two ways that are timed side by side drift together. So what is reported is a ratio within
each round, and its median with the smallest and the largest.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def in_turns(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each way in each round by ``clock``, after ``warm_up`` rounds that do not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-warm_up, rounds):
        for name, way in ways.items():
            started = clock()
            way()
            if number >= 0:
                times[name].append(clock() - started)
        if number >= 0:
            taken = "  ".join(f"{name} {seconds[-1]:.3f} s" for name, seconds in times.items())
            sys.stdout.write(f"round {number + 1}: {taken}\n")
            sys.stdout.flush()
    return times


def summary(times: Mapping[str, list[float]], ours: str) -> dict[str, Any]:
    """For each way its median seconds, and for the others how many times as long as ``ours`` they took."""
    found: dict[str, Any] = {}
    for name, seconds in times.items():
        found[name] = {"seconds": round(statistics.median(seconds), 4), "rounds": [round(one, 4) for one in seconds]}
        if name != ours:
            ratios = [theirs / mine for theirs, mine in zip(seconds, times[ours], strict=True)]
            found[name]["times_as_long"] = round(statistics.median(ratios), 2)
            found[name]["range"] = [round(min(ratios), 2), round(max(ratios), 2)]
    return found
