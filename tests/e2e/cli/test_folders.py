"""`index`, `add` and `encode` over folders of files, as commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from freemvmt.cli import main
from freemvmt.export.vectors import read_vectors
from freemvmt.search.retriever import Retriever

from beir_folder import beir
from refusals import refusal
from small_pdf import pdf_of


@pytest.fixture
def manual(tmp_path: Path) -> Path:
    """A folder with all that is odd."""
    folder = tmp_path / "manual"
    (folder / "parts").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "README.md").write_text("# Pumps\n\nA pump moves water.\n\n## Seals\n\nA seal keeps it in.\n")
    (folder / "parts" / "rotor.rst").write_text("The rotor\n=========\n\nIt turns in the housing.\n")
    (folder / "parts" / "motor.html").write_text("<title>The motor</title><main><p>It drives the rotor.</main>")
    (folder / "sheet.pdf").write_bytes(pdf_of(["Pressure is ten bar", "Weight is two kilograms"], title="Data sheet"))
    (folder / "old.txt").write_bytes(
        "Größe und Gewicht der Maße, schön überprüft für größere Räume. ".encode("cp1252") * 9
    )
    (folder / "control.py").write_text('"""Controls the pump."""\n\n\ndef start() -> None:\n    """Start it."""\n')
    (folder / "book.ipynb").write_text(
        json.dumps({"cells": [{"cell_type": "markdown", "source": "# Tests\n\nrun dry"}]})
    )
    (folder / "deep.html").write_text("<div>" * 100_000 + "x")
    (folder / "locked.pdf").write_bytes(pdf_of(["secret"], encrypted=True))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7")
    (folder / "picture.txt").write_bytes(b"\x89PNG\0\0")
    (folder / "empty.md").write_text("")
    (folder / ".git" / "config.md").write_text("hidden")
    (folder / ".gitignore").write_text("*.log.md\n")
    (folder / "run.log.md").write_text("ignored")
    (folder / "loop").symlink_to(folder)
    (folder / "passwd.txt").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe.md")
    return folder


READ = ["README.md", "book.ipynb", "control.py", "old.txt", "parts/motor.html", "parts/rotor.rst", "sheet.pdf"]


def test_a_folder_is_indexed_searched_and_added(
    manual: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    assert main(["index", "untrained", str(manual), "--output", str(bundle)]) == 0
    said = capsys.readouterr().out
    assert "reading   7 documents from 12 files, 6 fields to filter on" in said
    lines = [line.strip() for line in said.splitlines() if line.startswith(" " * 10)]
    assert lines[:7] == [
        "passed over broken.pdf: it is no sound PDF file",
        "passed over deep.html: its elements are nested more than 4,000 deep",
        "passed over locked.pdf: it is encrypted",
        "passed over passwd.txt: it is a link that leads out of the folder",
        "passed over picture.txt: it is binary, not text",
        "… and 1 more",
        "1 file is empty",
    ]
    assert json.loads((bundle / "manifest.json").read_text())["corpus"] == str(manual)
    retriever = Retriever.load(bundle)
    assert sorted(hit.id for hit in retriever.search("pump", k=20)) == READ
    hits = retriever.search("rotor", k=9, method="bm25", filter={"folder": "parts"})
    assert {hit.id: hit.title for hit in hits} == {"parts/rotor.rst": "The rotor", "parts/motor.html": "The motor"}
    assert [hit.id for hit in retriever.search("pump", filter={"headings": "Seals"})] == ["README.md"]
    assert [hit.id for hit in retriever.search("pump", filter={"pages": 2, "type": "pdf"})] == ["sheet.pdf"]
    retriever.close()

    (manual / "parts" / "new.md").write_text("# Valves\n")
    assert main(["add", str(bundle), str(manual), "--include", "*.md", "--exclude", "pipe.md", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    counts = {"added": 1, "replaced": 1, "documents": 8, "files": 3, "passed_over": 0, "empty": 1}
    assert {name: answer[name] for name in counts} == counts


def test_a_folder_is_encoded(manual: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "untrained", str(manual), "--output", str(tmp_path / "vectors")]) == 0
    said = capsys.readouterr().out
    assert "7 vectors" in said
    assert "passed over broken.pdf: it is no sound PDF file" in said
    globs = ["--include", "*.md", "--include", "*.rst", "--exclude", "/*.md", "--strict"]
    assert main(["encode", "untrained", str(manual), "--output", str(tmp_path / "pages"), *globs, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [id for ids, _ in read_vectors(tmp_path / "pages") for id in ids] == ["parts/rotor.rst"]
    assert (answer["documents"], answer["files"], answer["passed_over"]) == (1, 1, 0)
    assert main(["encode", "untrained", str(manual), "--output", str(tmp_path / "all"), "--strict"]) == 2
    assert "broken.pdf cannot be read" in capsys.readouterr().err


REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "strict": (["--strict"], ["broken.pdf cannot be read: it is no sound PDF file; mend it, --exclude it"]),
    "no match": (["--include", "*.docx"], ["that --include and --exclude leave; give other globs"]),
    "no glob": (["--exclude", "!"], ["--exclude '!' is no glob; give one like"]),
    "all unreadable": (
        ["--include", "*.pdf", "--exclude", "sheet.pdf"],
        [
            "holds no file that can be read (passed over broken.pdf: ",
            "locked.pdf: it is encrypted); give another folder",
        ],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("command", ["index", "add"])
def test_a_refused_folder_leaves_nothing_behind(
    command: str, case: str, manual: Path, bundles: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    flags, parts = REFUSED[case]
    words = ["untrained", manual, "--output", tmp_path / "bundle"] if command == "index" else [bundles, manual]
    said = refusal(capsys, tmp_path, command, *words, *flags)
    assert [part for part in parts if part not in said] == []


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle to add to."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "corpus.jsonl").write_text('{"id": "1", "text": "a pump"}\n')
    assert main(["index", "untrained", str(folder), "--output", str(folder.parent / "bundle")]) == 0
    return folder.parent / "bundle"


def test_in_a_locale_without_utf_8_names_and_words_stay(tmp_path: Path) -> None:
    """Python takes names and arguments for ASCII there, unless it is told otherwise."""
    folder, bundle = tmp_path / "dö", tmp_path / "bö"
    folder.mkdir()
    (folder / "naïve.txt").write_text("a naïve search", encoding="utf-8")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")).write_text("x")
    environment = os.environ | {"PYTHONUTF8": "0", "LC_ALL": "C"}

    def run(*words: str | Path) -> str:
        command = [sys.executable, "-m", "freemvmt", *words, "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        reports.append(done.stderr.decode())
        return done.stdout.decode()

    reports: list[str] = []
    assert json.loads(run("index", "untrained", folder, "--output", bundle))["documents"] == 1
    assert json.loads(run("sync", bundle, folder))["unchanged"] == 1
    assert all("passed over 'caf\\udce9.txt': its name is not UTF-8" in report for report in reports)
    found = run("search", bundle, "naïve", "--method", "bm25")
    assert [hit["id"] for hit in json.loads(found)["hits"]] == ["naïve.txt"]

    environment |= {"PYTHONUTF8": "1", "PYTHONIOENCODING": "ascii"}
    escaped = run("search", bundle, "naïve", "--method", "bm25")
    assert escaped.isascii()
    assert json.loads(escaped)["query"] == "naïve"


def test_one_document_and_one_query(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are named in the singular, and a mean over one query has no interval."""
    folder, bundle = tmp_path / "notes", tmp_path / "bundle"
    folder.mkdir()
    (folder / "pump.md").write_text("A pump moves water.")
    judged = beir(tmp_path / "judged", {"a": ("", "A pump moves water.")}, {"q": "what moves water"}, ["q\ta\t1"])

    def said(*words: str | Path) -> str:
        assert main([*map(str, words)]) == 0
        return capsys.readouterr().out

    assert "1 document from 1 file" in said("index", "untrained", folder, "--output", bundle)
    assert "unchanged 1; 1 document in" in said("sync", bundle, folder)
    assert "hybrid, 1 document," in said("search", bundle, "water")
    head, _, scores = said("evaluate", "bm25", judged).splitlines()[:3]
    assert head.startswith("judged: 1 query, full corpus, 1 document")
    assert scores.split() == ["bm25", "1.0000", "1.0000", "1.0000", "1.0000"]
    assert "  A - B  +0.0000  p = 1.0000  (A better on 0," in said("compare", "bm25", "bm25", judged)
    report = json.loads(said("compare", "bm25", "bm25", judged, "--json"))
    assert report["comparison"]["interval"] is None
    assert report["a"]["interval_95"]["ndcg@10"] is None
