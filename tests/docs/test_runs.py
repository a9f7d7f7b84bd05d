"""The scripts under runs/ do what they say, on files of the published layout and with no network."""

import contextlib
import io
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from freemvmt.cli import main
from freemvmt.config import DataConfig
from freemvmt.data.load import load_collection
from freemvmt.evaluation.metrics import measure
from freemvmt.evaluation.runs import read_run

from rows import make_rows

ROOT = Path(__file__).parents[2]


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


def run_script(script: list[str], folder: Path) -> tuple[int, str, str]:
    """The exit code of a script, what its commands print, and what it says itself. `uv run two-towers` hands its words
    over a pipe to this process, which has imported everything; there is no network, so `curl` fails."""
    folder.mkdir()
    asked, answers = folder / "asked", folder / "answers"
    stand_in = f"""#!/bin/sh
[ "$1 $2" = "run two-towers" ] || exit 2
shift 2
printf '%s\\0' "$@" >{asked}
read -r code <{answers}
exit "$code"
"""
    for name, text in (("uv", stand_in), ("curl", "#!/bin/sh\nexit 9\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    for pipe in (asked, answers):
        os.mkfifo(pipe)
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "TRAIN_FLAGS": "--rows table --epochs 2 --batch-size 32",
    }
    printed = io.StringIO()
    with (
        subprocess.Popen(script, env=environment, stderr=subprocess.PIPE, text=True) as process,
        ThreadPoolExecutor(1) as pool,
    ):
        said = pool.submit(lambda: (process.communicate()[1], asked.write_text("")))  # nothing is asked any more
        while words := asked.read_text().split("\0")[:-1]:
            with contextlib.redirect_stdout(printed):
                code = main(words)
            answers.write_text(f"{code}\n")
        return process.wait(), printed.getvalue(), said.result()[0]


def test_ms_marco_whole(files: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    script = [str(ROOT / "runs/msmarco.sh"), str(files), str(made)]
    code, printed, said = run_script(script, tmp_path / "first")
    assert code == 0, printed + said
    manifest = json.loads((made / "bundle" / "manifest.json").read_text())
    assert manifest["documents"] == len((files / "collection.tsv").read_text().splitlines())
    for part, queries in (("dev", 40), ("dl19", 20), ("dl20", 40)):
        collection = load_collection(f"{files}/{part}", "test", DataConfig())
        assert (made / f"{part}-bm25.run").read_text() == ""  # the passages answer in other words
        for method in ("dense", "hybrid"):
            found = read_run(made / f"{part}-{method}.run", collection)
            assert len(found) == queries
            assert measure(found, collection, method).metrics["mrr@10"] > 0.2
    shown = [line for line in printed.splitlines() if "mrr@10" in line]
    assert len(shown) == 9
    (files / "2020qrels-pass.txt").unlink()
    code, *_ = run_script(script, tmp_path / "again")
    assert code == 9  # nothing is measured on half of the files
