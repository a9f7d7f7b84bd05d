"""Files that are what they were when they were written: sizes, SHA-256, and JSON that carries its own checksum."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from freemvmt.errors import UserError
from freemvmt.files import sha256_of, whole_file

Seals = dict[str, dict[str, Any]]  # path in the folder -> {"bytes": size, "sha256": digest}


def seal(folder: Path, names: Iterable[str]) -> Seals:
    """Sizes and digests of files in ``folder``."""
    wanted = sorted(names)
    with ThreadPoolExecutor(2) as pool:  # hashing lets go of the interpreter
        digests = list(pool.map(lambda name: sha256_of(folder / name), wanted))
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": digest}
        for name, digest in zip(wanted, digests, strict=True)
    }


def check_seals(folder: Path, seals: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ``UserError`` unless every file is there with the bytes that it was sealed with."""
    try:
        sizes = {name: (folder / name).stat().st_size for name in seals}
        found = seal(folder, [name for name, size in sizes.items() if size == seals[name]["bytes"]])
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"{error.filename} is missing; index the corpus again or fetch the bundle again") from error
    for name, known in seals.items():
        if (size := sizes[name]) != known["bytes"]:
            reason = f"has {size:,} bytes, not the {known['bytes']:,} that were written"
            raise UserError(f"{folder / name} {reason}; index the corpus again or fetch the bundle again")
        if found[name]["sha256"] != known["sha256"]:
            raise UserError(
                f"{folder / name} was changed since it was written; index the corpus again or fetch it again"
            )


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as JSON, whole or not at all, with a checksum of itself."""
    with whole_file(path) as part:
        part.write_text(_sealed(content), encoding="utf-8")


def read_sealed(path: Path, kind: str, wanted: int) -> dict[str, Any]:
    """What ``write_sealed`` wrote, if its ``kind`` entry is the number ``wanted``; else ``UserError``."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"there is no {path}; give the folder of a bundle that `two-towers index` wrote") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); index the corpus again") from error
    if not isinstance(content, dict) or kind not in content:
        raise UserError(f"{path} is not a bundle's; give the folder of a bundle that `two-towers index` wrote")
    if content[kind] != wanted:
        raise UserError(f"{path} has format {content[kind]!r}, this version reads {wanted}; update two-towers")
    content.pop("checksum", None)
    if text != _sealed(content):
        raise UserError(f"{path} was changed since it was written; index the corpus again or fetch it again")
    return content


def _sealed(content: Mapping[str, Any]) -> str:
    """The one text that stands for ``content``: no byte of it can be another."""
    plain = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    checksum = hashlib.sha256(plain.encode()).hexdigest()
    return json.dumps({**content, "checksum": checksum}, indent=1) + "\n"
