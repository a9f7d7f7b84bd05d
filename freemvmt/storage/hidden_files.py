"""Files of others in our folders: what systems and file managers leave there is no data, and no part of ours."""

from pathlib import Path

_NAMES = frozenset(
    {
        ".ds_store", ".localized", ".fseventsd", ".spotlight-v100", ".trashes", ".appledouble", "__macosx", "icon\r",
        "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information",
        ".directory", "@eadir", "#recycle", "lost+found",
    }
)  # fmt: skip
_BEGINNINGS = ("._", ".nfs", ".fuse_hidden", ".smbdelete", ".~lock.", ".#", "~$")


def is_stray(name: str) -> bool:
    """Whether a file or folder of that name is one that a system leaves: it may go with the folder that holds it."""
    return name.lower() in _NAMES or name.startswith(_BEGINNINGS)


def is_foreign(name: str) -> bool:
    """Whether a file or folder of that name is not ours to read: a stray, or hidden."""
    return name.startswith(".") or is_stray(name)


def first_in(folder: Path) -> str | None:
    """The name of the first thing in ``folder`` that is no stray; None where it is as good as empty."""
    return min((path.name for path in folder.iterdir() if not is_stray(path.name)), default=None)
