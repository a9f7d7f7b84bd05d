"""How many cores this process may use, which in a container or under `taskset` are fewer than the machine has."""

import math
import os
from pathlib import Path

_GROUPS, _MINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int:
    """Cores that this process may keep busy, 1 or more: those it is bound to, and no more than its container grants."""
    granted = _granted(_GROUPS, _MINE)
    return max(1, min(bound(), bound() if granted is None else math.ceil(granted)))


def bound() -> int:
    """Cores that the system runs this process on."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13; it obeys PYTHON_CPU_COUNT as well
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _granted(groups: Path, mine: Path) -> float | None:
    """Cores' worth of time that Linux' control groups let this process have, or None for as much as there is.

    ``groups`` is where they are mounted, ``mine`` names those of this process. The least of a group and of all above
    counts.
    """
    try:
        lines = [line.split(":", 2) for line in mine.read_text().splitlines()]
    except OSError:  # not Linux
        return None
    found = []
    for _, kinds, path in (line for line in lines if len(line) == 3):
        top = groups if not kinds else groups / kinds if (groups / kinds).is_dir() else groups / "cpu"
        if kinds and "cpu" not in kinds.split(","):
            continue
        here = top / path.lstrip("/")
        for group in (here, *here.parents):
            if group.is_relative_to(top) and (share := _share(group)) is not None:
                found.append(share)
    return min(found, default=None)


def _share(group: Path) -> float | None:
    """Quota over period, by the files of version 2 or of version 1; None where there is no limit."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{what}_us").read_text().strip() for what in ("quota", "period"))
        return float(quota) / float(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def obey_container() -> None:
    """Let the libraries of this process start no more threads than its container grants; before they are loaded.

    They see what the process is bound to by themselves, but not a container's share of time. ``OMP_NUM_THREADS``, when
    set, stays.
    """
    if cores() < bound():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
