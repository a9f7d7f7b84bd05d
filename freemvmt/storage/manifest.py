"""Detects changed files: a manifest has the size and SHA-256 of each file, and a checksum of itself."""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from freemvmt.errors import UserError
from freemvmt.runtime.console import count_of
from freemvmt.storage.digests import sha256_of_text
from freemvmt.storage.files import atomic_file, sha256_of

Shape = Mapping[str, Any]  # name -> the type of its value, or the shape of an object
_THREADED_FROM = 2**20  # bytes; fewer are hashed sooner than threads start
FileHashes = dict[str, dict[str, Any]]  # path in the folder -> {"bytes": size, "sha256": digest}


def hash_files(folder: Path, names: Iterable[str]) -> FileHashes:
    """The size and SHA-256 of the files ``names`` in ``folder``."""
    sizes = {name: (folder / name).stat().st_size for name in sorted(names)}
    if sum(sizes.values()) < _THREADED_FROM:
        digests = {name: sha256_of(folder / name) for name in sizes}
    else:
        largest_first = sorted(sizes, key=lambda name: -sizes[name])
        with ThreadPoolExecutor(2) as pool:  # hashing releases the GIL
            digests = dict(
                zip(largest_first, pool.map(lambda name: sha256_of(folder / name), largest_first), strict=True)
            )
    return {name: {"bytes": size, "sha256": digests[name]} for name, size in sizes.items()}


def verify_files(folder: Path, hashes: Mapping[str, Any], hint: str) -> None:
    """Raise ``UserError`` unless each file has the size and SHA-256 in ``hashes``, and its name stays in ``folder``.

    ``hint`` says how the user makes the files again ("index the corpus again").
    """
    hint = f"{hint} or fetch it again"
    for name, entry in hashes.items():
        if not is_inside(name):
            raise UserError(f"{folder} names a file outside of it ({name!r}); {hint}")
        if not isinstance(entry, Mapping) or _wrong_entry(entry, {"bytes": int, "sha256": str}):
            raise UserError(f"{folder} does not say what {name} was; {hint}")
    try:
        sizes = {name: (folder / name).stat().st_size for name in hashes}
        actual = hash_files(folder, [name for name, size in sizes.items() if size == hashes[name]["bytes"]])
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"{error.filename} is missing; {hint}") from error
    for name, entry in hashes.items():
        if (size := sizes[name]) != entry["bytes"]:
            raise UserError(f"{folder / name} has {count_of(size, 'byte')}, not the {entry['bytes']:,} written; {hint}")
        if actual[name]["sha256"] != entry["sha256"]:
            raise UserError(f"{folder / name} was changed since it was written; {hint}")


def is_inside(name: str) -> bool:
    """Whether a name in a manifest stays in its folder: it is relative, without ``..`` and without zero bytes."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def write_manifest(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as JSON, whole or not at all, with a checksum of itself."""
    with atomic_file(path) as part:
        part.write_text(manifest_text(content), encoding="utf-8")


def read_manifest(
    path: Path, key: str, version: int, shape: Shape, maker: str = "index", what: str = "corpus"
) -> dict[str, Any]:
    """Read what ``write_manifest`` wrote; ``UserError`` unless its entry ``key`` is the format number ``version``.

    The entries must have the types in ``shape``: a checksum detects damage, but not a manifest that others wrote.
    Messages name the command ``maker``, which makes such a folder from ``what``.
    """
    hint, folder_hint = f"{maker} the {what} again", f"give a folder that `two-towers {maker}` wrote"
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"there is no {path}; {folder_hint}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); {hint}") from error
    if not isinstance(content, dict) or key not in content:
        raise UserError(f"{path} is of something else; {folder_hint}")
    if content[key] != version:
        is_older = type(content[key]) is int and content[key] < version
        version_hint = hint if is_older else "update two-towers"
        raise UserError(f"{path} has format {content[key]!r}, this version reads {version}; {version_hint}")
    verify_manifest(path, text, content, hint)
    check_shape(path, content, shape, hint)
    return content


def check_shape(path: Path, content: Mapping[str, Any], shape: Shape, hint: str) -> None:
    """Raise ``UserError`` unless the entries of ``content``, read from ``path``, have the types in ``shape``."""
    if missing := _wrong_entry(content, shape):
        raise UserError(f"{path} does not say what it should ({missing}); {hint}")


def _wrong_entry(content: Mapping[str, Any], shape: Shape) -> str | None:
    """The name of the first entry that is missing or has another type."""
    for name, expected in shape.items():
        value = content.get(name)
        if isinstance(expected, Mapping):
            if not isinstance(value, Mapping):
                return name
            if (inner := _wrong_entry(value, expected)) is not None:
                return f"{name}.{inner}"
        elif type(value) is not expected:
            return name
    return None


def verify_manifest(path: Path, text: str, content: dict[str, Any], hint: str) -> None:
    """Remove the checksum from ``content``, the parsed ``text``; ``UserError`` if the text was changed."""
    content.pop("checksum", None)
    if text != manifest_text(content):
        raise UserError(f"{path} was changed since it was written; {hint} or fetch it again")


def manifest_text(content: Mapping[str, Any]) -> str:
    """``content`` as JSON with its checksum: the only valid text for it, byte by byte."""
    plain = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return json.dumps({**content, "checksum": sha256_of_text(plain)}, indent=1) + "\n"
