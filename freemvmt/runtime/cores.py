"""The number of cores that this process may use: in a container or under `taskset`, fewer than the machine has."""

import math
import os
from pathlib import Path

from freemvmt.runtime.control_groups import OWN_FILE, ROOT, control_groups


def cores() -> int:
    """The number of cores that this process may use, at least 1: those it is bound to, limited by its container."""
    quota = _granted()
    return max(1, min(bound(), bound() if quota is None else math.ceil(quota)))


def bound() -> int:
    """The number of cores that the system runs this process on."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13; it obeys PYTHON_CPU_COUNT as well
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _granted(root: Path = ROOT, own_file: Path = OWN_FILE) -> float | None:
    """The CPU quota of this process' control groups, in cores; None without a limit. The smallest quota counts."""
    quotas = (_quota_of(group) for group in control_groups("cpu", root, own_file))
    return min((quota for quota in quotas if quota is not None), default=None)


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
