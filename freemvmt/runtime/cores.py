"""The number of cores that this process may use: in a container or under `taskset`, fewer than the machine has."""

import math
import os
from pathlib import Path

_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int:
    """The number of cores that this process may use, at least 1: those it is bound to, limited by its container."""
    quota = _granted(_CGROUPS, _OWN_CGROUPS)
    return max(1, min(bound(), bound() if quota is None else math.ceil(quota)))


def bound() -> int:
    """The number of cores that the system runs this process on."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13; it obeys PYTHON_CPU_COUNT as well
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _granted(root: Path, own_file: Path) -> float | None:
    """The CPU quota of this process' Linux control groups, in cores; None without a limit.

    ``root`` is where control groups are mounted, the file ``own_file`` lists those of this process. The smallest quota
    of a group and its ancestors counts.
    """
    try:
        lines = [line.split(":", 2) for line in own_file.read_text().splitlines()]
    except OSError:  # not Linux
        return None
    quotas = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        hierarchy = root if not controllers else root / controllers if (root / controllers).is_dir() else root / "cpu"
        if controllers and "cpu" not in controllers.split(","):
            continue
        own_group = hierarchy / path.lstrip("/")
        for group in (own_group, *own_group.parents):
            if group.is_relative_to(hierarchy) and (quota := _quota_of(group)) is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _quota_of(group: Path) -> float | None:
    """The quota of one group in cores, from the files of cgroup version 2 or 1; None without a limit."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return float(quota) / float(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def limit_to_container() -> None:
    """Limit the threads of the libraries of this process to its container's quota; to be called before they are loaded.

    Libraries see the cores that the process is bound to, but not the quota. ``OMP_NUM_THREADS``, if set, is kept.
    """
    if cores() < bound():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
