"""Files that are what they were when they were written: sizes, SHA-256, and JSON that carries its own checksum."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from freemvmt.errors import UserError
from freemvmt.storage.files import sha256_of, whole_file

Shape = Mapping[str, Any]  # name -> the type of its value, or the shape of an object
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


def check_seals(folder: Path, seals: Mapping[str, Any], again: str) -> None:
    """Raise ``UserError`` unless every file is there with the bytes that it was sealed with.

    ``again`` is what makes the files anew ("index the corpus again"); names that lead out of ``folder`` are refused.
    """
    again = f"{again} or fetch it again"
    for name, known in seals.items():
        if not is_inside(name):
            raise UserError(f"{folder} names a file outside of it ({name!r}); {again}")
        if not isinstance(known, Mapping) or _misshapen(known, {"bytes": int, "sha256": str}):
            raise UserError(f"{folder} does not say what {name} was; {again}")
    try:
        sizes = {name: (folder / name).stat().st_size for name in seals}
        found = seal(folder, [name for name, size in sizes.items() if size == seals[name]["bytes"]])
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"{error.filename} is missing; {again}") from error
    for name, known in seals.items():
        if (size := sizes[name]) != known["bytes"]:
            raise UserError(f"{folder / name} has {size:,} bytes, not the {known['bytes']:,} written; {again}")
        if found[name]["sha256"] != known["sha256"]:
            raise UserError(f"{folder / name} was changed since it was written; {again}")


def is_inside(name: str) -> bool:
    """Whether a name from a manifest stays in its folder: relative, without ``..``, a name that a system can have."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as JSON, whole or not at all, with a checksum of itself."""
    with whole_file(path) as part:
        part.write_text(sealed(content), encoding="utf-8")


def read_sealed(
    path: Path, kind: str, wanted: int, shape: Shape, maker: str = "index", what: str = "corpus"
) -> dict[str, Any]:
    """What ``write_sealed`` wrote, if its ``kind`` entry is the number ``wanted``; else ``UserError``.

    A checksum tells what was damaged, not who wrote it: entries must be of the types in ``shape`` all the same.
    ``maker`` is the command that makes such a folder, of ``what``.
    """
    again, give = f"{maker} the {what} again", f"give a folder that `two-towers {maker}` wrote"
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"there is no {path}; {give}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); {again}") from error
    if not isinstance(content, dict) or kind not in content:
        raise UserError(f"{path} is of something else; {give}")
    if content[kind] != wanted:
        older = type(content[kind]) is int and content[kind] < wanted
        mend = again if older else "update two-towers"
        raise UserError(f"{path} has format {content[kind]!r}, this version reads {wanted}; {mend}")
    check_sealed(path, text, content, again)
    if missing := _misshapen(content, shape):
        raise UserError(f"{path} does not say what it should ({missing}); {again}")
    return content


def _misshapen(content: Mapping[str, Any], shape: Shape) -> str | None:
    """The first entry that is missing or of another type."""
    for name, wanted in shape.items():
        found = content.get(name)
        if isinstance(wanted, Mapping):
            if not isinstance(found, Mapping):
                return name
            if (inner := _misshapen(found, wanted)) is not None:
                return f"{name}.{inner}"
        elif type(found) is not wanted:
            return name
    return None


def check_sealed(path: Path, text: str, content: dict[str, Any], again: str) -> None:
    """Take the checksum out of ``content``, which ``text`` holds; ``UserError`` if either is not as it was written."""
    content.pop("checksum", None)
    if text != sealed(content):
        raise UserError(f"{path} was changed since it was written; {again} or fetch it again")


def sealed(content: Mapping[str, Any]) -> str:
    """The one text that stands for ``content``: no byte of it can be another."""
    plain = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    checksum = hashlib.sha256(plain.encode()).hexdigest()
    return json.dumps({**content, "checksum": checksum}, indent=1) + "\n"
