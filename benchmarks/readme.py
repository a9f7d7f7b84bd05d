"""Every command of README.md, as written, in a fresh clone with an empty home folder: does a newcomer get through?

    uv run python benchmarks/readme.py

Writes what each took and ended with to results/readme.json.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import record

ROOT = Path(__file__).parent.parent
ADDRESS = "http://127.0.0.1:8000"  # that README gives `two-towers serve`


def commands(readme: str) -> list[str]:
    """The lines of the shell blocks of ``readme``."""
    blocks = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def main() -> int:
    """Run them all; stop at the first that fails."""
    with tempfile.TemporaryDirectory() as folder:
        clone, home = Path(folder) / "two-towers", Path(folder) / "home"
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        pairs = [{"query": f"what is number {n}", "passage": f"{n} is the number after {n - 1}"} for n in range(1000)]
        document = {"id": "tower", "title": "Tower", "text": "A building taller than it is wide.", "package": "mine"}
        (clone / "documents.jsonl").write_text(json.dumps(document) + "\n", encoding="utf-8")
        (clone / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
        # The cache of uv is the machine's, so that packages are not fetched anew; all else is new.
        cache = subprocess.run(["uv", "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
        # What this machine needs to reach a registry stays; what would make it more than a bare one goes.
        ours = ("HF_", "HUGGING", "WANDB_", "TWO_TOWERS_", "XDG_", "PYTHON", "VIRTUAL_ENV", "TRANSFORMERS_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment |= {"HOME": str(home), "UV_CACHE_DIR": cache}
        runs, place = [], clone
        for line in commands((clone / "README.md").read_text(encoding="utf-8")):
            command = line.partition("#")[0].strip()
            sys.stdout.write(f"$ {command}\n")
            sys.stdout.flush()
            started = time.perf_counter()
            # A block that begins with `cd` stays there until the next block's own `uv run two-towers`.
            place = clone / "freemvmt" if command.startswith("cd freemvmt") or place != clone else clone
            if command.startswith("uv run two-towers"):
                place = clone
            shell = command.replace("cd freemvmt && ", "")
            code = _served(shell, place, environment) if "serve" in command else _ran(shell, place, environment)
            runs.append({"command": command, "seconds": round(time.perf_counter() - started, 1), "exit": code})
            if code:
                break
        protocol = "a fresh clone, an empty home folder, a warm cache of packages, no Hub and no W&B key"
        sys.stdout.write(f"wrote {record.write('readme', protocol, [0], {'runs': runs})}\n")
        return max(run["exit"] for run in runs)


def _ran(shell: str, place: Path, environment: dict[str, str]) -> int:
    return subprocess.run(
        shell, shell=True, cwd=place, env=environment, stdin=subprocess.DEVNULL, check=False
    ).returncode


def _served(shell: str, place: Path, environment: dict[str, str]) -> int:
    """Wait until the address that README names is ready and its page answers, then stop the server as Ctrl-C does."""
    with subprocess.Popen(["bash", "-c", f"exec {shell}"], cwd=place, env=environment) as server:
        try:
            for _ in range(600):
                try:
                    pages = [urllib.request.urlopen(f"{ADDRESS}{path}", timeout=5).read() for path in ("/ready", "/")]
                    assert all(pages)
                    break
                except OSError:
                    if server.poll() is not None:
                        break
                    time.sleep(0.2)
        finally:
            server.send_signal(signal.SIGINT)
        return server.wait(timeout=60)


if __name__ == "__main__":
    sys.exit(main())
