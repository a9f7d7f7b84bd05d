"""Model folders that were changed by one who knows the sums."""

import json
from pathlib import Path

from freemvmt.storage.manifest import hash_files, write_manifest


def resealed(folder: Path) -> None:
    """Let the sums be those of what is there now, as one could who means harm."""
    try:
        description = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(description, dict) and isinstance(description.get("files"), dict):
        description["files"] = hash_files(folder, [name for name in description["files"] if (folder / name).exists()])
        description.pop("checksum", None)
        write_manifest(folder / "config.json", description)
