"""Stray files: files that systems, file managers and editors leave in folders. They are not data."""

from pathlib import Path

_NAMES = frozenset(
    {
        ".ds_store", ".localized", ".fseventsd", ".spotlight-v100", ".trashes", ".appledouble", "__macosx", "icon\r",
        "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information",
        ".directory", "@eadir", "#recycle", "lost+found",
    }
)  # fmt: skip
_PREFIXES = ("._", ".nfs", ".fuse_hidden", ".smbdelete", ".~lock.", ".#", "~$")


def is_stray(name: str) -> bool:
    """Whether ``name`` is that of a stray file or folder, which may be deleted with its folder."""
    return name.lower() in _NAMES or name.startswith(_PREFIXES)


def is_not_ours(name: str) -> bool:
    """Whether ``name`` is that of a file or folder that must not be read: stray or hidden."""
    return name.startswith(".") or is_stray(name)


def first_file(folder: Path) -> str | None:
    """The first name in ``folder`` (in sorted order) that is not stray; None if there is no such name."""
    return min((path.name for path in folder.iterdir() if not is_stray(path.name)), default=None)
