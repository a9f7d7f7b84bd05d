"""How much memory is left, on the machine and in the container."""

from pathlib import Path

import pytest

from freemvmt.runtime import memory

GIB = 2**30


def tree(folder: Path, files: dict[str, str], own: str) -> tuple[Path, Path, Path]:
    """A machine with 8 GiB to spare, a tree of control groups, and what names those of this process."""
    for name, text in files.items():
        path = folder / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "own").write_text(own)
    (folder / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:  {8 * 2**20} kB\n")
    return folder / "meminfo", folder / "groups", folder / "own"


@pytest.mark.parametrize(
    ("files", "own", "left"),
    [
        ({}, "0::/\n", 8.0),
        ({"a/memory.max": "max\n", "a/memory.current": "5\n"}, "0::/a\n", 8.0),
        ({"a/memory.max": f"{4 * GIB}\n", "a/memory.current": f"{GIB}\n"}, "0::/a\n", 3.0),
        ({"a/memory.max": f"{4 * GIB}\n", "a/memory.current": f"{GIB}\n"}, "0::/a/b\n", 3.0),  # what is above counts
        (
            {
                "memory.max": f"{4 * GIB}\n",
                "memory.current": f"{3 * GIB}\n",
                "memory.stat": f"active_file 7\ninactive_file {2 * GIB}\n",
            },
            "0::/\n",
            3.0,
        ),
        ({"memory.max": "5\n", "memory.current": "7\n"}, "0::/\n", 0.0),
        (
            {
                "memory/x/memory.limit_in_bytes": f"{2 * GIB}\n",
                "memory/x/memory.usage_in_bytes": f"{GIB}\n",
                "memory/x/memory.stat": "inactive_file 7\ntotal_inactive_file 0\n",
            },
            "4:cpu:/\n7:memory:/x\n",
            1.0,
        ),
    ],
)
def test_what_is_left(tmp_path: Path, files: dict[str, str], own: str, left: float) -> None:
    assert memory.available(*tree(tmp_path, files, own)) == left * GIB


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    assert memory.available(tmp_path / "none") is None
    assert memory.peak(tmp_path / "none") is None
    (tmp_path / "status").write_text("Name: x\nVmHWM:\t    12 kB\n")
    assert memory.peak(tmp_path / "status") == 12 * 1024
