"""The scripts under runs/ do what they say, on files of the published layout and with no network."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from freemvmt.config import DataConfig
from freemvmt.evaluation import measure, read_run
from freemvmt.text.sources import load_collection

from rows import make_rows

ROOT = Path(__file__).parent.parent


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """MS MARCO's and TREC's files, of 300 queries and their passages."""
    folder = tmp_path / "msmarco-passage"
    folder.mkdir()
    numbers: dict[str, int] = {}
    parts = {"train": range(200), "dev.small": range(200, 240), "dl19": range(240, 260), "dl20": range(260, 300)}
    rows = make_rows(300)
    texts: dict[str, tuple[str, str, str]] = {
        "train": ("queries.train.tsv", "qrels.train.tsv", "\t"),
        "dev.small": ("queries.dev.small.tsv", "qrels.dev.small.tsv", "\t"),
        "dl19": ("msmarco-test2019-queries.tsv", "2019qrels-pass.txt", " "),
        "dl20": ("msmarco-test2020-queries.tsv", "2020qrels-pass.txt", " "),
    }
    for part, chosen in parts.items():
        queries, qrels = [], []
        for row in chosen:
            passages = rows[row]["passages"]
            queries.append(f"{row}\t{rows[row]['query']}\n")
            for text, selected in zip(passages["passage_text"], passages["is_selected"], strict=True):
                number = numbers.setdefault(text, len(numbers))
                if selected or part.startswith("dl"):
                    qrels.append(texts[part][2].join(map(str, (row, 0, number, 2 * selected))) + "\n")
        (folder / texts[part][0]).write_text("".join(queries))
        (folder / texts[part][1]).write_text("".join(qrels))
    (folder / "collection.tsv").write_text("".join(f"{number}\t{text}\n" for text, number in numbers.items()))
    return folder


def test_ms_marco_whole(files: Path, tmp_path: Path) -> None:
    stand_in = tmp_path / "bin"
    stand_in.mkdir()
    for name, line in (("uv", 'shift; exec "$@"'), ("curl", "exit 9")):  # the environment is there, a network is not
        (stand_in / name).write_text(f"#!/bin/sh\n{line}\n")
        (stand_in / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{stand_in}:{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        "TRAIN_FLAGS": "--rows table --epochs 2 --batch-size 32",
    }
    made = tmp_path / "made"
    script = [str(ROOT / "runs/msmarco.sh"), str(files), str(made)]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads((made / "bundle" / "manifest.json").read_text())
    assert manifest["documents"] == len((files / "collection.tsv").read_text().splitlines())
    for part, queries in (("dev", 40), ("dl19", 20), ("dl20", 40)):
        collection = load_collection(f"{files}/{part}", "test", DataConfig())
        assert (made / f"{part}-bm25.run").read_text() == ""  # the passages answer in other words
        for method in ("dense", "hybrid"):
            found = read_run(made / f"{part}-{method}.run", collection)
            assert len(found) == queries
            assert measure(found, collection, method).metrics["mrr@10"] > 0.2
    shown = [line for line in done.stdout.splitlines() if "mrr@10" in line]
    assert len(shown) == 9
    (files / "2020qrels-pass.txt").unlink()
    again = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 9  # nothing is measured on half of the files
