"""The names of a bundle's files, and a stamp that tells one version of a bundle from another."""

from pathlib import Path

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


MODEL_FOLDER = "model"


WEIGHTS_FILE = f"{MODEL_FOLDER}/model.safetensors"
