"""The readers of text under atheris: mutations that follow which lines of the readers a file has reached.

    uv run --with atheris python benchmarks/fuzz_coverage.py [--seconds 60] [--only "qrels"]

As `fuzz.py`: what is read must be what a plain reader finds, and all else one line. atheris never ends by itself but on
a failure, which it prints with the bytes that led to it; so each target runs in a process of its own for a while.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import record

NAMES = ("rows, JSONL", "pairs, TSV", "corpus, JSONL", "qrels", "run")


def main() -> int:
    """Run each target for a while, print, write results/fuzz_coverage.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=int, default=60)
    arguments.add_argument("--only", choices=NAMES)
    given = arguments.parse_args()
    if given.only:
        _endless(given.only, given.seconds)
    found: dict[str, Any] = {}
    for name in NAMES:
        command = [sys.executable, str(Path(__file__).resolve()), "--only", name, "--seconds", str(given.seconds)]
        with tempfile.TemporaryDirectory() as place:  # where atheris leaves the bytes that failed
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, errors="replace", check=False)
            led = [file.read_bytes()[:2000].hex() for file in Path(place).iterdir()]
        runs = [line.split() for line in done.stderr.splitlines() if line.startswith("Done ")]
        tried = int(runs[-1][1]) if runs else 0
        found[name] = {"tried": tried, "failed": done.returncode != 0 or not tried}
        sys.stdout.write(f"{name:<16} {found[name]}\n")
        if found[name]["failed"]:
            sys.stdout.write(done.stderr[-2000:])
            found[name] |= {"bytes": led, "said": done.stderr[-500:]}
        sys.stdout.flush()
    protocol = f"atheris, {given.seconds} s a target, from the sound file; a right result or one line"
    sys.stdout.write(f"wrote {record.write('fuzz_coverage', protocol, [1], {'targets': found}, ['atheris'])}\n")
    return int(any(one["failed"] for one in found.values()))


def _endless(name: str, seconds: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["freemvmt.data", "freemvmt.evaluation"]):
        import fuzz
        from fuzz_targets import text_targets

    logging.disable(logging.WARNING)
    place = Path(tempfile.mkdtemp())
    target, folder = next(one for one in text_targets(place) if one[0].name == name)
    file = target.files(folder)[0]
    (place / "corpus").mkdir(exist_ok=True)
    (place / "known").mkdir()
    (place / "known" / "sound").write_bytes(file.read_bytes())

    def once(content: bytes) -> None:
        file.write_bytes(content)
        if (outcome := fuzz.outcome_of(target, folder, [])) not in ("read", "refused"):
            raise RuntimeError(outcome)

    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-max_len=4096", "-seed=1", str(place / "known")], once)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
