"""Read lines and JSON lines, and list the data files of a folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from freemvmt.data.values import parse_object
from freemvmt.errors import UserError
from freemvmt.storage.files import check_regular
from freemvmt.storage.hidden_files import is_not_ours

_PACKED_ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z")
_TO_JSONL = "to_json('NAME.jsonl', orient='records', lines=True) writes one"
_CONVERSIONS = {  # what turns a file that is not read into one that is
    ".csv": f"pandas.read_csv('NAME.csv').{_TO_JSONL}",
    ".xlsx": f"pandas.read_excel('NAME.xlsx').{_TO_JSONL}",
    ".json": "in .jsonl each line is one object: of a list, jq -c '.[]' writes them",
    ".ndjson": "rename it to .jsonl",
    ".arrow": "datasets.Dataset.from_file('NAME.arrow').to_parquet('NAME.parquet') writes one",
}
_PACKED_SIGNATURES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")  # their first bytes


def json_lines(path: Path, rows: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) for each line of a JSONL file that is not blank."""
    for number, line in numbered_lines(path, rows):
        where = f"{path}, line {number}"
        yield where, parse_object(line, where)


def numbered_lines(path: Path, rows: int | None = None) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of each line of a UTF-8 file that is not blank, at most ``rows`` lines."""
    count = 0
    with open_binary(path) as file:
        for number, raw in enumerate(file, start=1):
            if number == 1 and raw.startswith(_PACKED_SIGNATURES):
                raise UserError(f"{path} is packed, not lines of text; unpack it first")
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                reason = f"byte {error.start + 1} is not UTF-8; save the file as UTF-8"
                raise UserError(f"{path}, line {number}: {reason}") from error
            if not line.strip():
                continue
            if count == rows:
                return
            count += 1
            yield number, line


def open_binary(path: Path) -> Any:
    """Open a file for reading. Raises ``UserError`` with the reason."""
    try:
        check_regular(path)
        return path.open("rb")
    except OSError as error:
        hint = unpack_hint(path.parent, path.name) or "check the path"
        raise UserError(f"cannot read {path}: {error.strerror or error}; {hint}") from error


def data_files(folder: Path, endings: Sequence[str]) -> list[Path]:
    """The data files of a folder with one of these endings, sorted by name."""
    try:
        return sorted(file for file in folder.iterdir() if file.suffix in endings and not is_not_ours(file.name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror or error}; check the path") from error


def conversion_hint(folder: Path, name: str = "") -> str:
    """What makes data out of what ``folder`` holds: to unpack a file whose name begins with ``name``, or to write out
    what `datasets` saved; "" if there is neither."""
    return unpack_hint(folder, name) or _saved_dataset_hint(folder)


def unpack_hint(folder: Path, name: str = "") -> str:
    """A hint to unpack the first packed file in ``folder`` whose name begins with ``name``; "" if there is none."""
    try:
        packed = data_files(folder, _PACKED_ENDINGS)
    except UserError:
        return ""
    return next((f"unpack {file.name} first" for file in packed if file.name.startswith(name)), "")


def _saved_dataset_hint(folder: Path) -> str:
    """What to do with a folder that ``save_to_disk`` of the library `datasets` wrote; "" for another folder."""
    split = "['train']" if (folder / "dataset_dict.json").is_file() else ""
    if not split and not (folder / "dataset_info.json").is_file():
        return ""
    call = f"datasets.load_from_disk('FOLDER'){split}.to_parquet('NAME.parquet')"
    return f"save_to_disk wrote it: {call} writes a file to give"


def unknown_ending(path: Path) -> UserError:
    """The error for a file that is neither JSONL nor TSV nor Parquet."""
    if path.suffix in _PACKED_ENDINGS:
        return UserError(f"{path} is packed; unpack it first, and give the .parquet, .jsonl or .tsv in it")
    how = _CONVERSIONS.get(path.suffix.lower())
    hint = f"; {how}" if how else ""
    return UserError(f"{path}: the ending {path.suffix!r} is not known; give .parquet, .jsonl or .tsv{hint}")
