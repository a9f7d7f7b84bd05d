"""The Linux control groups of this process: in a container they limit its cores and its memory."""

from collections.abc import Iterator
from pathlib import Path

ROOT, OWN_FILE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def control_groups(controller: str, root: Path = ROOT, own_file: Path = OWN_FILE) -> Iterator[Path]:
    """The folders of this process' groups of ``controller`` (version 1 or 2) and of their ancestors.

    ``root`` is where control groups are mounted, the file ``own_file`` lists those of this process.
    """
    try:
        lines = [line.split(":", 2) for line in own_file.read_text().splitlines()]
    except OSError:  # not Linux
        return
    for _, controllers, path in (line for line in lines if len(line) == 3):
        named = root / controllers if (root / controllers).is_dir() else root / controller
        hierarchy = named if controllers else root
        if controllers and controller not in controllers.split(","):
            continue
        own_group = hierarchy / path.lstrip("/")
        for group in (own_group, *own_group.parents):
            if group.is_relative_to(hierarchy):
                yield group
