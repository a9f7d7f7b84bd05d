"""The names of a bundle's files, and a stamp that tells one version of a bundle from another."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freemvmt.storage.digests import sha256_of_text

MANIFEST_FILE, STATE_FILE, WORDS_FOLDER, LOCK_FILE = "manifest.json", "words.json", "words", "lock"


Identity = tuple[int, int]


def identity_of(folder: Path) -> Identity:
    """The identity of the bundle in ``folder``: the stamp of its manifest, which differs for every bundle."""
    return stamp_of(folder / MANIFEST_FILE)


def stamp_of(path: Path) -> Identity:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


STORE_FILE, FORMAT = "store.json", 1


TEXTS, FIELDS_FOLDER = "documents", "fields"  # TEXTS begins the names of two files
PASSAGES, TRAILS = "passages", "trails"  # these begin the names of one and of two files


MODEL_FOLDER, PREVIOUS_FOLDER = "model", "previous"


WEIGHT_FILES = tuple(f"{MODEL_FOLDER}/{name}.safetensors" for name in ("document", "query", "model"))  # two, or one


def weight_ids(files: Mapping[str, Any]) -> tuple[str, str] | None:
    """(the id of the model, the id of its document tower) from the hashes of a bundle's files; None without weights.

    The id of the document tower names the space of the vectors: it is the SHA-256 of the file that holds its weights.
    """
    digests = [str(files[name]["sha256"]) for name in WEIGHT_FILES if name in files]
    if not digests:
        return None
    id = digests[0] if len(digests) == 1 else sha256_of_text("".join(digests))
    return id, digests[0]
