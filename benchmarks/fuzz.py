"""Two thousand mutations of every file that the program reads: a right result or one line, never anything else.

    uv run python benchmarks/fuzz.py [--mutations 2000]

Bytes are flipped, cut off, taken out, doubled, put in. What was written under a sum must be refused, or made anew, or
give what it gave before; a text that can still be read must give what a plain reader of the same format finds in it.
A traceback, an error of several lines, another result, or ten seconds without any is a failure. The seed is fixed.
"""

import argparse
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import record
from fuzz_targets import Target, make

from freemvmt.errors import UserError

SEED, PATIENCE = 0, 10  # seconds


def mutated(content: bytes, draw: random.Random) -> bytes:
    """``content`` with something of it changed."""
    place = draw.randrange(len(content)) if content else 0
    size = draw.choice([1, 2, 8, 64, 1000])
    ways: list[Callable[[], bytes]] = [
        lambda: content[:place] + bytes([(content[place] + draw.randrange(1, 256)) % 256]) + content[place + 1 :],
        lambda: content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :],
        lambda: content[:place],
        lambda: content[:place] + content[place + size :],
        lambda: content[: place + size] + content[place:],
        lambda: content[:place] + draw.randbytes(size) + content[place:],
        lambda: content[:place] + draw.choice(_POISON) + content[place:],
        lambda: content[:place] + bytes(size) + content[place + size :],
        lambda: b"",
        lambda: content + draw.choice(_POISON),
    ]
    return draw.choice(ways if content else ways[-2:])()


_POISON = [
    b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\0", b"\n", b"\r", b"\r\n", b"\t", b'"', b"\\", b"{", b"}",
    b"[" * 5000, b"9" * 5000, b"1e999", b"-1", b"NaN", b"\xe2\x80\xa8", b"\xc2\x85", b"\\ud800", b"true", b"null",
    b"/../", b"PK\3\4",
]  # fmt: skip


def outcome_of(target: Target, folder: Path, right: list[Any]) -> str:
    """What comes of reading ``folder``: "as before", "read", "refused", or what is wrong."""
    try:
        with _in_time():
            found = target.read(folder)
    except UserError as error:
        lines = str(error).splitlines()
        return "refused" if len(lines) == 1 and "; " in lines[0] else f"an error of {len(lines)} lines: {error}"
    except TimeoutError:
        return f"more than {PATIENCE} s"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        return f"{type(error).__name__}: {error}"
    if any(found == one for one in right):
        return "as before"
    if target.truth is None:
        return "another result"
    try:
        wanted = target.truth(folder)
    except ValueError as error:
        return f"read, though it is {error}"
    return "read" if found == wanted else f"read as {found!r:.300}, not {wanted!r:.300}"


@contextmanager
def _in_time() -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz(target: Target, sound: Path, mutations: int, seed: int) -> tuple[Counter[str], list[str]]:
    """(how often each good outcome was seen, what went wrong) of ``mutations`` of the files in the folder ``sound``."""
    draw, seen, wrong = random.Random(f"{target.name} {seed}"), Counter[str](), []
    right = [target.read(sound)] + ([target.also(sound)] if target.also else [])
    names = [file.relative_to(sound) for file in target.files(sound)]
    with tempfile.TemporaryDirectory() as place:
        for number in range(mutations):
            folder = shutil.copytree(sound, Path(place) / str(number))
            name = draw.choice(names)
            (folder / name).write_bytes(mutated((sound / name).read_bytes(), draw))
            outcome = outcome_of(target, folder, right)
            if outcome in ("as before", "read", "refused"):
                seen[outcome] += 1
            else:
                wrong.append(f"{target.name}, {name}, mutation {number}: {outcome}")
            shutil.rmtree(folder)
    return seen, wrong


def main() -> int:
    """Mutate, read, print, write results/fuzz.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--mutations", type=int, default=2000)
    mutations = arguments.parse_args().mutations
    logging.disable(logging.WARNING)
    found: dict[str, Any] = {}
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        targets = make(Path(place))
        for number, (target, sound) in enumerate(targets):
            started = time.perf_counter()
            share = mutations * (number + 1) // len(targets) - mutations * number // len(targets)
            seen, wrong = fuzz(target, sound, share, SEED)
            found[target.name] = dict(sorted(seen.items())) | {"wrong": len(wrong)}
            failures += wrong
            seconds = time.perf_counter() - started
            sys.stdout.write(
                f"{target.name:<22} {found[target.name]}  {seconds:.0f} s\n"
                + "".join(f"  {one}\n" for one in wrong[:5])
            )
            sys.stdout.flush()
    protocol = (
        f"{mutations} seeded mutations of the files named, a tenth of a second to ten seconds each; see the script"
    )
    figures = {"mutations": mutations, "files": found, "failures": failures}
    sys.stdout.write(f"wrote {record.write('fuzz', protocol, [SEED], figures)}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
