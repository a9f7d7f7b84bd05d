"""`two-towers index`, `search`, `add` and `delete`: what they say, in words and in JSON, and what they refuse."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.model import TwoTowersModel
from freemvmt.search.retriever import Retriever

from beir_folder import write_beir
from disks import files_of_at_most, mounted
from refusals import refusal

ROWS = [
    {
        "id": "castle",
        "title": "A castle",
        "text": "Walls and a tower.\nStone.",
        "year": 1200,
        "source": "old",
        "open": True,
    },
    {"id": "river", "text": "Water that runs to the sea.", "year": 1990, "source": "new", "open": False},
    {"id": "bank/1 a", "text": "Money, and the side of a river.", "year": 2000, "source": "new"},
    {"id": "[red]", "title": "[bold]no markup[/]", "text": "A tower [link=x]here[/link] :smile:", "year": 2010},
]


@pytest.fixture(scope="module")
def model(tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    TwoTowersModel(ModelConfig(base=tiny_base)).save(folder)
    return folder


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "corpus.jsonl", ROWS)


@pytest.fixture
def bundle(model: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["index", str(model), str(corpus), "--output", str(tmp_path / "bundle")]) == 0
    capsys.readouterr()
    Retriever.load(tmp_path / "bundle").close()  # which makes the file that writers lock
    return tmp_path / "bundle"


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command that succeeds prints on stdout; nothing on stderr."""
    assert main([str(argument) for argument in arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def reported(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """The one JSON object of a command with --json."""
    assert main([*(str(argument) for argument in arguments), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_index_says_what_it_did(model: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "bundle"
    lines = said(capsys, "index", model, corpus, "--output", output).splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["reading", "encoding", "vectors", "words", "saved"]
    assert "4 documents, 3 fields to filter on" in lines[0]
    assert "4 vectors of 48" in lines[1]
    assert "exact, fp32; recall@10 1.0000" in lines[2]
    assert str(output) in lines[4]
    assert f"two-towers search {output}" in lines[5]
    assert f"two-towers serve {output}" in lines[6]

    found = reported(capsys, "index", model, corpus, "--output", output, "--quantize", "int8", "--kind", "hnsw")
    assert found["documents"] == 4
    assert found["index"]["kind"] == "hnsw"
    assert found["index"]["stored"] == "int8"
    assert found["fields"] == {"year": "number", "source": "string", "open": "boolean"}
    assert found["bytes"] == sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    assert found["output"] == str(output)


def test_index_keeps_fewer_dimensions(
    model: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "bundle"
    assert reported(capsys, "index", model, corpus, "--output", output, "--dim", 12, "--kind", "binary")["dim"] == 12
    assert reported(capsys, "search", output, "side of a river")["hits"][0]["id"] == "bank/1 a"
    for dim, said in ((49, "the model's vectors have 48; give no more"), (0, "give 1 or more")):
        assert main(["index", str(model), str(corpus), "--output", str(tmp_path / "no"), "--dim", str(dim)]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_index_reads_every_form(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "corpus.tsv").write_text("a\tsome text\nb\tmore text\n")
    beir = write_beir(tmp_path / "beir")
    for corpus, count in ((tmp_path / "corpus.tsv", 2), (beir, 10), (beir / "corpus.jsonl", 10)):
        assert reported(capsys, "index", model, corpus, "--output", tmp_path / "bundle")["documents"] == count


def test_search_in_words(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "search", bundle, "a tower of stone", "-k", 2).splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:1] == ["1"]
    assert "A castle" in lines[0]
    assert "Walls and a tower. Stone." in lines[0]
    assert "hybrid, 4 documents" in lines[2]
    nothing = said(capsys, "search", bundle, "zebra", "--method", "bm25")
    assert nothing.strip() == "nothing found (bm25, 4 documents)"
    marked = said(capsys, "search", bundle, "here", "--method", "bm25")
    assert "[bold]no markup[/]" in marked
    assert "[link=x]here[/link] :smile:" in marked


def test_search_in_json(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = reported(capsys, "search", bundle, "side of a river", "--k", 4, "--method", "hybrid", "--explain")
    assert found["query"] == "side of a river"
    assert found["method"] == "hybrid"
    assert found["took_ms"] > 0
    assert len(found["hits"]) == 4
    first = found["hits"][0]
    assert first["id"] == "bank/1 a"
    assert first["metadata"] == {"year": 2000, "source": "new"}
    explanation = first["explanation"]
    pieces = [*explanation["title"], *explanation["text"]]
    assert "".join(piece["text"] for piece in pieces) == first["title"] + first["text"]
    assert sum(piece["share"] for piece in pieces) == pytest.approx(first["dense"], abs=1e-5)
    assert explanation["score"] == pytest.approx(first["dense"], abs=1e-5)


def test_search_explains_in_numbers_where_there_is_no_terminal(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(capsys, "search", bundle, "river", "-k", 1, "--method", "dense", "--explain").splitlines()
    assert lines[1].split()[0] == "cosine"
    assert "river +0." in lines[2]


def ids(capsys: pytest.CaptureFixture[str], bundle: Path, *filters: str) -> list[str]:
    flags = [part for text in filters for part in ("--filter", text)]
    return sorted(hit["id"] for hit in reported(capsys, "search", bundle, "river", *flags)["hits"])


def test_search_filters(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ids(capsys, bundle) == sorted(str(row["id"]) for row in ROWS)
    assert ids(capsys, bundle, "source=new") == ["bank/1 a", "river"]
    assert ids(capsys, bundle, "source=new", "year>=1991") == ["bank/1 a"]
    assert ids(capsys, bundle, "year>1200", "year<2010") == ["bank/1 a", "river"]
    found = reported(capsys, "search", bundle, "--filter", "year>1200", "--filter", "source=new", "river")["hits"]
    assert sorted(hit["id"] for hit in found) == ["bank/1 a", "river"]
    assert ids(capsys, bundle, 'source=["old", "none"]') == ["castle"]
    assert ids(capsys, bundle, "open=true") == ["castle"]
    assert ids(capsys, bundle, "source=none") == []


def test_add_and_delete(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = write_rows(
        tmp_path / "more.jsonl",
        [
            {"id": "zebra", "text": "zebra!"},
            {"id": "river", "text": "now a zebra too"},
        ],
    )
    assert "added     1 document, replaced 1; 5 in" in said(capsys, "add", bundle, more)
    for method in ("dense", "bm25", "hybrid"):
        hits = reported(capsys, "search", bundle, "zebra", "-k", 2, "--method", method)["hits"]
        assert {hit["id"]: hit["text"] for hit in hits} == {"zebra": "zebra!", "river": "now a zebra too"}
    assert reported(capsys, "add", bundle, more) == {"added": 0, "replaced": 2, "documents": 5, "unseen": {}}
    assert reported(capsys, "delete", bundle, "zebra", "nobody", "zebra", "bank/1 a") == {
        "deleted": ["zebra", "bank/1 a"],
        "missing": ["nobody"],
        "documents": 3,
    }
    words = said(capsys, "delete", bundle, "castle", "zebra")
    assert "deleted   1 document; 2 left" in words
    assert "not there: zebra" in words
    found = reported(capsys, "search", bundle, "zebra", "--method", "bm25")["hits"]
    assert [hit["id"] for hit in found] == ["river"]


def test_wrong_arguments_are_refused(
    bundle: Path, model: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: object) -> str:
        return refusal(capsys, tmp_path, *arguments)

    assert "k is 0; ask for 1" in refused("search", bundle, "x", "-k", 0)
    assert "k is -3; ask for 1" in refused("search", bundle, "x", "-k", -3)
    assert "the weight is 2.0; give" in refused("search", bundle, "x", "--weight", 2)
    assert "the weight is nan; give" in refused("search", bundle, "x", "--weight", "nan")
    assert "no field 'year2' to filter on; the fields are: open, source, year" in refused(
        "search", bundle, "x", "--filter", "year2=1"
    )
    assert '"year" is a number' in refused("search", bundle, "x", "--filter", "year=soon")
    assert "not understood; write field=value" in refused("search", bundle, "x", "--filter", "year")
    assert "--method" in refused("search", bundle, "x", "--method", "sparse")
    assert "see two-towers search --help" in refused("search", bundle)
    assert "no id is given" in refused("delete", bundle)
    assert "there is no corpus" in refused("add", bundle, tmp_path / "nothing.jsonl")
    assert "there is no corpus" in refused("index", model, tmp_path / "nothing", "--output", tmp_path / "b2")
    assert "config.json" in refused("index", corpus.parent / "bundle", corpus, "--output", tmp_path / "b2")
    assert "--output" in refused("index", model, corpus)
    assert "manifest.json" in refused("add", tmp_path, corpus)
    assert "manifest.json" in refused("delete", tmp_path / "nothing", "a")
    bad = write_rows(tmp_path / "bad.jsonl", [{"id": "new", "text": "x"}, {"id": "b", "text": "x", "year": "1990"}])
    assert '"year" is a number in the documents before it' in refused("add", bundle, bad)
    assert reported(capsys, "search", bundle, "x")["hits"][0]["id"] != "new"


def test_arguments_that_are_no_text(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes of a command line that are not UTF-8 reach Python as halves of surrogate pairs."""
    half = os.fsdecode(b"river \xff")
    for method in ("dense", "bm25", "hybrid"):
        found = reported(capsys, "search", bundle, half, "--method", method)
        assert {hit["id"] for hit in found["hits"]} >= {"bank/1 a"}
    assert reported(capsys, "delete", bundle, half)["deleted"] == []
    assert "; " in refusal(capsys, tmp_path, "search", bundle, "x", "--filter", f"source={half}")


def test_paths_that_are_no_text(model: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    corpus = write_rows(odd / "corpus.jsonl", ROWS)
    assert "is not UTF-8; give" in refusal(capsys, tmp_path, "index", model, corpus, "--output", odd / "bundle")
    assert reported(capsys, "index", model, corpus, "--output", tmp_path / "other")["documents"] == len(ROWS)
    assert reported(capsys, "search", tmp_path / "other", "river")["hits"]
    bundle.rename(odd / "bundle")
    assert "is not UTF-8; give" in refusal(capsys, tmp_path, "search", odd / "bundle", "river")


@pytest.mark.parametrize(
    ("library", "command"),
    [
        ("faiss", ["index", "{model}", "{corpus}", "--output", "{folder}/b"]),
        ("faiss", ["serve", "{bundle}"]),
        ("uvicorn", ["serve", "{bundle}"]),
        ("fastapi", ["serve"]),
        ("mcp", ["mcp", "{bundle}"]),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    bundle: Path, model: Path, corpus: Path, tmp_path: Path, library: str, command: list[str]
) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; from freemvmt.cli import main; sys.exit(main(sys.argv[1:]))"
    places = {"model": model, "corpus": corpus, "folder": tmp_path, "bundle": bundle}
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", code, *(part.format(**places) for part in command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 2, done.stderr
    extra = "mcp" if library == "mcp" else "serve"
    assert done.stderr == f"error: this needs {library}, which is not installed; install two-towers[{extra}]\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_what_needs_no_extra_runs_without_it(tmp_path: Path) -> None:
    """The package imports, and BM25 over a collection works, where nothing of the extra is installed."""
    hidden = ("faiss", "fastapi", "uvicorn", "prometheus_client", "starlette")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden!r}))\n"
        "from freemvmt.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    beir = write_beir(tmp_path / "beir", test=["q0 d0 1"])
    done = subprocess.run(
        [sys.executable, "-c", code, "evaluate", "bm25", str(beir)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.95])
def test_a_full_disk_is_refused_and_the_old_bundle_stays_whole(
    share: float, model: Path, bundle: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, f"size={int(size * (1.1 + share)) // 1024}k"):
        assert main(["index", str(model), str(corpus), "--output", str(disk / "bundle")]) == 0
        Retriever.load(disk / "bundle").close()
        capsys.readouterr()
        other = write_rows(tmp_path / "other.jsonl", [{"text": f"word {number}"} for number in range(2000)])
        said = refusal(capsys, disk, "index", model, other, "--output", disk / "bundle")
        assert "the disk is full" in said or "No space left" in said
        assert len(Retriever.load(disk / "bundle")) == len(ROWS)


@pytest.mark.parametrize("size", [100, 5_000, 50_000, 100_000])
def test_files_that_may_not_grow_are_refused_and_the_bundle_stays_whole(
    size: int, model: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"id": f"n{number}", "text": " ".join(f"word{number}x{part}" for part in range(30))} for number in range(2000)
    ]
    many = write_rows(tmp_path / "many.jsonl", rows)
    retriever = Retriever.load(bundle)
    with files_of_at_most(size):
        said = refusal(capsys, tmp_path, "index", model, many, "--output", tmp_path / "fresh")
        assert "larger than this system allows" in said or "too large" in said
        assert main(["add", str(bundle), str(many)]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert re.search("larger than this system allows|too large|cannot be written to .*; free some space", error)
    for opened in (retriever, Retriever.load(bundle)):
        assert len(opened) == len(ROWS)
        assert opened.search("word7x3", method="bm25") == []
        opened.close()
    assert reported(capsys, "add", bundle, many)["added"] == 2000
    assert reported(capsys, "search", bundle, "word7x3", "--method", "bm25")["hits"][0]["id"] == "n7"
