"""Folders: which files are found, what their documents are, and what is passed over."""

import datetime
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from freemvmt.config import FolderConfig
from freemvmt.data.corpus import read_corpus
from freemvmt.data.documents import Document
from freemvmt.data.files import walk
from freemvmt.data.files.folder import READERS
from freemvmt.data.files.report import FolderReport
from freemvmt.errors import UserError


def fill(folder: Path, **files: str | bytes) -> Path:
    """Write files into a folder; ``__`` in a name is ``/``, and ``_`` a dot."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def read(folder: Path, **config: Any) -> tuple[list[str], list[str]]:
    """(ids, lines of the report)."""
    documents, report = read_all(folder, **config)
    return [document.id for document in documents], report.lines()


def read_all(folder: Path, **config: Any) -> tuple[list[Document], FolderReport]:
    report = FolderReport()
    return list(read_corpus(str(folder), FolderConfig(**config), report)), report


def test_a_document_has_the_facts_of_its_file(tmp_path: Path) -> None:
    fill(tmp_path, docs__how__pump_md="# Pumps\n\n## Seals\n", notes_TXT="no heading")
    when = datetime.datetime(2024, 2, 3, 4, 5, 6, 700_000, tzinfo=datetime.UTC)
    os.utime(tmp_path / "docs/how/pump.md", (0, when.timestamp()))
    (pump, notes), report = read_all(tmp_path)
    assert (pump.id, pump.title, pump.text) == ("docs/how/pump.md", "Pumps", "# Pumps\n\n## Seals\n")
    assert pump.metadata == {
        "path": "docs/how/pump.md",
        "folder": ["docs", "docs/how"],
        "type": "md",
        "modified": "2024-02-03T04:05:06.700000Z",
        "headings": ["Pumps", "Seals"],
    }
    assert [heading.title for heading in pump.outline.headings] == ["Pumps", "Seals"]
    assert (notes.id, notes.title, notes.metadata["type"]) == ("notes.TXT", "notes.TXT", "txt")
    assert report.documents(2) == "2 documents from 2 files"
    assert report.summary() == {"files": 2, "passed_over": 0, "empty": 0}


def test_files_are_found_below_in_order_of_their_names(tmp_path: Path) -> None:
    fill(tmp_path, b__c_md="x", b_md="x", a__z__y_py="x", a__b_rst="x", picture_png="x", data_json="{}", c__d_html="x")
    assert read(tmp_path) == (["a/b.rst", "a/z/y.py", "b/c.md", "b.md", "c/d.html"], [])


def test_git_ignores_at_every_level(tmp_path: Path) -> None:
    fill(tmp_path, _gitignore="build/\n*.txt\n/only_top.md\n!\n", build__a_md="x", a_txt="x", b_md="x")
    fill(tmp_path, sub___gitignore="!keep.txt\nlocal.md\n", sub__keep_txt="x", sub__a_txt="x", sub__local_md="x")
    fill(tmp_path, local_md="x", sub__build__x_md="x", sub__more__keep_txt="x", _hidden__a_md="x", _hidden_md="x")
    assert read(tmp_path)[0] == ["b.md", "local.md", "sub/keep.txt", "sub/more/keep.txt"]


@pytest.mark.parametrize(
    ("config", "ids"),
    [
        ({"include": ("*.md",)}, ["a/b.md", "c.md"]),
        ({"include": ("a/",)}, ["a/b.md", "a/d.py"]),
        ({"include": ("a/*.py", "/c.md")}, ["a/d.py", "c.md"]),
        ({"exclude": ("a",)}, ["c.md"]),
        ({"exclude": ("*.md", "*.rst")}, ["a/d.py"]),
        ({"include": ("a/**",), "exclude": ("**/*.py",)}, ["a/b.md"]),
    ],
)
def test_globs_choose(config: dict[str, Any], ids: list[str], tmp_path: Path) -> None:
    fill(tmp_path, a__b_md="x", a__d_py="x", c_md="x")
    assert read(tmp_path, **config)[0] == ids


def test_what_cannot_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_FILE_BYTES", 2**20)
    outside = fill(tmp_path / "outside", a_md="secret")
    folder = fill(
        tmp_path / "in", good_md="x", binary_txt=b"a\0b", broken_pdf="no", empty_md=" \n", big_txt=b"x" * 2_000_000
    )
    os.mkfifo(folder / "pipe.md")
    os.mkfifo(folder / "pipe.other")
    (folder / "inside.md").symlink_to(folder / "good.md")
    (folder / "loop").symlink_to(folder)
    (folder / "nowhere.md").symlink_to("nothing")
    (folder / "out").symlink_to(outside)
    (folder / "out.md").symlink_to(outside / "a.md")
    (folder / "out.png").symlink_to(outside / "a.md")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.md")).write_text("x")
    (folder / "new\nline\x1b[1m.md").write_bytes(b"\0")
    long = folder / ("d" * 250) / ("e" * 250) / ("f" * 250)
    long.mkdir(parents=True)
    (long / "a.md").write_text("x")
    (documents, report) = read_all(folder)
    assert [document.id for document in documents] == ["good.md"]
    assert report.lines()[:5] == [
        "passed over big.txt: it has 2 MB, more than 1",
        "passed over binary.txt: it is binary, not text",
        "passed over broken.pdf: it is no sound PDF file",
        "passed over 'caf\\udce9.md': its name is not UTF-8",
        f"passed over {'d' * 119}…: its path has more than 512 bytes",
    ]
    assert report.lines()[5:] == ["… and 5 more", "1 file is empty"]
    assert (report.passed_over, report.empty, report.files) == (10, 1, 6)


def test_strict_refuses_the_first(tmp_path: Path) -> None:
    fill(tmp_path, a_md="x", binary_txt=b"a\0b", c_pdf="")
    with pytest.raises(UserError, match=r"binary.txt cannot be read: it is binary, not text; mend it, --exclude it"):
        read(tmp_path, strict=True)
    assert read(tmp_path, strict=True, exclude=("*.txt", "*.pdf"))[0] == ["a.md"]


@pytest.mark.parametrize(
    ("files", "config", "why"),
    [
        ({}, {}, "no file to read; give the file of the documents, or a folder of "),
        ({"a_png": "x"}, {}, "no file to read; "),
        ({"train_jsonl": "{}"}, {}, "give a file of documents, such as train.jsonl"),
        ({"docs_zip": "x"}, {}, "unpack docs.zip first"),
        ({"a_md": "x", "corpus_jsonl_gz": "x"}, {}, "no collection.tsv; unpack corpus.jsonl.gz first"),
        ({"a_pdf": "x", "b_md": ""}, {}, "(passed over a.pdf: it is no sound PDF file, 1 file is empty); give "),
        ({"a_md": "x"}, {"include": ("*.rst",)}, "that --include and --exclude leave; give other globs"),
        ({"a_md": "x"}, {"include": ("!",)}, "--include '!' is no glob; give one"),
        ({"a_md": "x"}, {"exclude": ("",)}, "--exclude '' is no glob; give one"),
    ],
)
def test_nothing_to_read_is_an_error(files: dict[str, str], config: dict[str, Any], why: str, tmp_path: Path) -> None:
    fill(tmp_path, **files)
    with pytest.raises(UserError) as refused:
        read(tmp_path, **config)
    assert why in str(refused.value)


def test_a_corpus_in_one_file_stays_what_it_is(tmp_path: Path) -> None:
    fill(tmp_path, readme_md="x", collection_tsv="1\tsome text\n")
    assert read(tmp_path)[0] == ["1"]
    fill(tmp_path, corpus_jsonl='{"_id": "7", "text": "x"}\n')
    assert read(tmp_path)[0] == ["7"]


def test_metadata_is_bounded(tmp_path: Path) -> None:
    heading = "# " + "\x01" * 300 + "\n"
    fill(tmp_path, a_md=heading * 500)
    (document,), _ = read_all(tmp_path)
    assert len(document.metadata["headings"]) == 32
    assert len(document.outline.headings) == 500


def test_a_change_that_no_calendar_has_is_left_out(tmp_path: Path) -> None:
    fill(tmp_path, a_md="x")
    with mock.patch.object(walk.os, "fstat", return_value=mock.Mock(st_mode=0o100644, st_size=1, st_mtime_ns=10**27)):
        (document,), _ = read_all(tmp_path)
    assert "modified" not in document.metadata


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("markdown_it", "a_md"),
        ("selectolax.lexbor", "a_html"),
        ("pypdfium2", "a_pdf"),
        ("pathspec", "a_txt"),
        ("charset_normalizer", "a_txt"),
    ],
)
def test_an_absent_library_is_one_line(module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from freemvmt.data.files import markdown

    markdown._parser.cache_clear()
    fill(tmp_path, **{name: b"caf\xe9 # x\n"})
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"this needs {module}, which is not installed; install two-towers\[files\]"):
        read(tmp_path)


def test_no_ending_is_that_of_data() -> None:
    assert not set(READERS) & {".json", ".jsonl", ".csv", ".tsv", ".parquet", ".xml"}
    assert all(ending == ending.lower() for ending in READERS)


def test_the_card_of_a_model_in_the_folder_is_no_document(tmp_path: Path) -> None:
    model = {"config_json": "{}", "model_safetensors": "", "tokenizer_json": "{}", "README_md": "a card"}
    fill(tmp_path, notes_md="x", **{f"models__mine__{name}": content for name, content in model.items()})
    fill(tmp_path, app__config_json="{}", app__tokenizer_json="{}", app__README_md="no card")
    assert read(tmp_path)[0] == ["app/README.md", "notes.md"]


def test_a_name_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    (tmp_path / "größe").mkdir()
    fill(tmp_path / "größe", z_md="last", a_md="first")
    (tmp_path / "größe" / "Ärger.md").write_text("between")
    (tmp_path / ".gitignore").write_text("Ärger.md\n", encoding="utf-8")
    code = (
        "import sys; from freemvmt.config import FolderConfig; from freemvmt.data.corpus import read_corpus; "
        "from freemvmt.data.files.report import FolderReport; "
        "print([ascii(document.id) for document in read_corpus(sys.argv[1], FolderConfig(), FolderReport())])"
    )
    environment = os.environ | {"PYTHONUTF8": "0", "LC_ALL": "C"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    said = subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout
    assert said == f"{[ascii('größe/a.md'), ascii('größe/z.md')]}\n"
