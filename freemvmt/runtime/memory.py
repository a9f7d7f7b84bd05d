"""How much memory more processes can take: the machine's, limited by the container. Known on Linux alone."""

from pathlib import Path

from freemvmt.runtime.control_groups import OWN_FILE, ROOT, control_groups

_MACHINE, _OWN_STATUS = Path("/proc/meminfo"), Path("/proc/self/status")


def available(machine: Path = _MACHINE, root: Path = ROOT, own_file: Path = OWN_FILE) -> int | None:
    """The bytes that can be allocated without swapping and within this process' container; None if not known."""
    free = _number_after("MemAvailable:", machine)
    if free is None:
        return None
    limits = (_left_in(group) for group in control_groups("memory", root, own_file))
    return min([1024 * free, *(limit for limit in limits if limit is not None)])


def peak(own_status: Path = _OWN_STATUS) -> int | None:
    """The most memory that this process has had, in bytes; None if not known."""
    kilobytes = _number_after("VmHWM:", own_status)
    return None if kilobytes is None else 1024 * kilobytes


def _left_in(group: Path) -> int | None:
    """The bytes that one control group still has; None without a limit. Cached files can give way, so they count."""
    for limit_name, used_name, cached in (
        ("memory.max", "memory.current", "inactive_file "),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
    ):
        try:
            limit, used = (int((group / name).read_text()) for name in (limit_name, used_name))
        except (OSError, ValueError):  # another version of control groups, or "max"
            continue
        return max(0, limit - used + (_number_after(cached, group / "memory.stat") or 0))
    return None


def _number_after(name: str, path: Path) -> int | None:
    """The number behind ``name`` at the start of a line of a file."""
    try:
        lines = path.read_text().splitlines()
        return next((int(line.removeprefix(name).split()[0]) for line in lines if line.startswith(name)), None)
    except (OSError, ValueError, IndexError):
        return None
