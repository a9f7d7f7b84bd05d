"""A folder of short notes and a long book, and its bundle, in which the book is cut into passages."""

from collections.abc import Iterable
from pathlib import Path

from freemvmt.config import ModelConfig
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build

NEEDLE = "A magnet 🧲 holds the needle of this compass."  # what the book says in one place


def write_notes(place: Path, notes: Iterable[str], book: str) -> Path:
    """Write ``notes`` as a/0.md, a/1.md and so on, and ``book`` as book.md; return their folder, in ``place``."""
    folder = place / "notes"
    (folder / "a").mkdir(parents=True)
    for number, text in enumerate(notes):
        (folder / "a" / f"{number}.md").write_text(text, encoding="utf-8")
    (folder / "book.md").write_text(book, encoding="utf-8")
    return folder


def index_notes(base: str, folder: Path) -> Path:
    """Index ``folder`` with untrained towers that read 48 tokens; return the bundle beside it."""
    bundle = folder.parent / "bundle"
    build(TwoTowersModel(ModelConfig(base=base, max_length=48)), str(folder), bundle)
    return bundle
