"""A result that is older than the code that it speaks of is known by that, and by nothing else."""

from pathlib import Path
from typing import Any

import aging
import pytest
import record
import tables

SOURCE = '''"""A module."""

SIZE = 3  # of a window


def spread(count: int) -> int:
    """So many windows."""
    return count // SIZE


class Window:
    """A part."""

    size: int = SIZE
    """In texts."""
'''
SCRIPT = "// The page.\nfunction find(k) {\n  return k + 1;\n}\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of two folders and a file; the result `some` speaks of one folder and the file."""
    monkeypatch.setitem(aging.SPEAKS_OF, "some", ("search", "model.py"))
    for name in ("search/windows.py", "model.py", "server/app.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(SOURCE)
    (tmp_path / "search" / "page.js").write_text(SCRIPT)
    return tmp_path


def result_of(package: Path) -> dict[str, Any]:
    return {"date": "2026-11-24", "commit": "7cc6a454a14a", "code": aging.digests("some", package)}


def aged(package: Path, result: dict[str, Any]) -> list[str] | None:
    aging.digest.cache_clear()  # files change under it here
    return aging.changed("some", result, package)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("search/windows.py", "So many windows.", "How many windows a text has."),
        ("search/windows.py", "# of a window", "# texts of a window"),
        ("search/windows.py", "In texts.", "How many texts."),
        ("search/windows.py", '    """So many windows."""\n', ""),
        (
            "search/windows.py",
            "    return count // SIZE",
            "\n    # Whole.\n    return (count\n            // SIZE)",
        ),
        ("search/page.js", "// The page.", "// What a page does."),
        ("search/page.js", "  return", "    return"),
        ("server/app.py", "SIZE = 3", "SIZE = 4"),  # the result does not speak of it
    ],
)
def test_other_words_make_nothing_old(package: Path, name: str, old: str, new: str) -> None:
    result = result_of(package)
    (package / name).write_text((package / name).read_text().replace(old, new))
    assert aged(package, result) == []
    assert aging.note([("some", result)], package) == ""


@pytest.mark.parametrize(
    ("name", "old", "new", "part"),
    [
        ("search/windows.py", "count // SIZE", "count / SIZE", "search"),
        ("search/windows.py", "SIZE = 3", "SIZE = 4", "search"),
        ("search/windows.py", "SIZE = 3", "SIZE = 0", "search"),
        ("search/page.js", "k + 1", "k", "search"),
        ("model.py", "size: int", "length: int", "model.py"),
    ],
)
def test_another_function_makes_it_old(package: Path, name: str, old: str, new: str, part: str) -> None:
    result = result_of(package)
    (package / name).write_text((package / name).read_text().replace(old, new))
    assert aged(package, result) == [part]
    said = f"Measured on older code: `some` (2026-11-24, 7cc6a45), since which `{part}` changed."
    assert aging.note([("some", result)], package) == said


def test_files_that_come_and_go_make_it_old(package: Path) -> None:
    result = result_of(package)
    (package / "search" / "more.py").write_text("")
    (package / "model.py").unlink()
    assert aged(package, result) == ["search", "model.py"]


def test_a_result_of_unknown_code_is_old(package: Path) -> None:
    known = result_of(package)
    unknown = {name: value for name, value in known.items() if name != "code"}
    assert aged(package, unknown) is None
    both = aging.note([("some", unknown), ("some", known)], package)
    assert both == "Measured on older code: `some` (2026-11-24, code unknown)."


def test_a_figure_of_old_code_is_shown_with_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every table, and each of its results: what it reads is what is said of it."""
    old = {name: {**record.read(name), "code": {}} for name in aging.SPEAKS_OF}
    monkeypatch.setattr(record, "load", lambda name: old[name])
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    for page, marks in tables.PAGES.items():
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text("".join(f"<!-- {mark} -->\n<!-- /{mark} -->\n" for mark in marks))
        assert tables.filled(page).count("Measured on older code: `") == len(marks), page


def test_what_a_result_speaks_of_is_there() -> None:
    assert {path.stem for path in record.RESULTS.glob("*.json")} == set(aging.SPEAKS_OF)
    for name, parts in aging.SPEAKS_OF.items():
        assert [part for part in parts if not (aging.PACKAGE / part).exists()] == [], name
        assert record.read(name)["date"] > "2026"
