"""Every command with no argument, with --help, and with each of its flags at a value other than its default: it does
its work, or it says in one line what is wrong.

Commands come from ``cli.VERBS`` and the two scripts, flags and values from `command_flags`. A flag whose type gives no
value stands in ``VALUES``; a new one that does not fails here.
"""

import collections
import contextlib
import dataclasses
import functools
import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from freemvmt import cli, main, sweep_config
from freemvmt.cli import parsing, sweep
from freemvmt.cli.train import TrainOptions
from freemvmt.config import TrainConfig
from freemvmt.data.readers import pydocs
from freemvmt.errors import UserError
from freemvmt.trainer.dataset import prepare
from freemvmt.tuning import run as sweeps

from command_flags import commands, entry, flags_of
from encoders import write_cross_encoder
from rows import ANSWERED, make_rows
from stopping import Stopped, StoppedAt

TRAIN = "--dataset {rows} --base {base} --epochs 1 --batch-size 32 --no-wandb"
# What each command needs, in {braces} what a fixture has made; the flag that is tried stands behind it.
COMMANDS = {
    "quickstart": "--max-samples 300 --output {new}/model",
    "train": f"{TRAIN} --output {{new}}/model",
    "evaluate": "{model} {rows}",
    "compare": "{model} bm25 {rows}",
    "mine": "{model} {rows} --first-rank 2 --last-rank 9 --output {new}/mined.jsonl",
    "sweep": f"{TRAIN} --count 1 --folder {{new}}/sweeps",
    "encode": "{model} {corpus} --output {new}/vectors",
    "report": "{model} --output {new}/report.html",
    "export": "{model} --format sentence-transformers --output {new}/export",
    "push": "{model} owner/name",
    "index": "{model} {corpus} --output {new}/bundle",
    "retune": "{bundle} --dataset {rows} --epochs 1 --batch-size 32 --even-if-worse",
    "search": "{bundle} magnet",
    "add": "{bundle} {corpus}",
    "delete": "{bundle} d1",
    "sync": "{bundle} {notes}",
    "serve": "{bundle} --port 0",
    "mcp": "{bundle}",
}
NO_TRAINING = sorted(set(COMMANDS) - {"quickstart", "train", "sweep", "serve"})  # these need no argument

# Values that do not follow from a flag's type, and smaller ones where another would take long; by name, or by command
# and name.
VALUES = {
    "allowed_hosts": "example.org",
    "base": "{encoder}",
    "batch_size": "16",
    "checkpoint_seconds": "0",
    "count": "2",
    "dataset": "{pairs}",
    "device": "cpu",
    "exclude": "*.html",
    "epochs": "2",
    "filter": "year>=1980",
    "folder": "{new}/others",
    "host": "localhost",
    "include": "*.md",
    "init": "{model}",
    "language": "en",
    "license": "mit",
    "matryoshka": "32 16",
    "max_samples": "400",
    "export format": "sentence-transformers",
    "message": "another",
    "mine first_rank": "3",
    "mine output": "{new}/other.parquet",
    "model": "{graphs}",
    "onnx_web": "{new}",
    "export url": "{{id}}",
    "output": "{new}/other",
    "passage_field": "answer",
    "port": "0",
    "project_name": "another",
    "query_field": "question",
    "queries": "{model}",
    "ray_address": "127.0.0.1:1",
    "rerank": "{cross}",
    "resume": "{checkpoints}",
    "run": "{new}/run.txt",
    "run_name": "another",
    "scores": "{scores}",
    "split": "validation",
    "store": "store.db",
    "teacher": "{encoder}",
    "trusted_proxies": "10.0.0.0/8",
}

# Flags that do nothing, or are refused, unless another stands beside them: once more with that one.
_RECURRENT = "--tower recurrent --hidden 8"
BESIDE = {
    "cell": _RECURRENT,
    "hidden": "--tower recurrent",
    "layers": _RECURRENT,
    "bidirectional": _RECURRENT,
    "pooling": _RECURRENT,
    "residual": f"{_RECURRENT} --pooling mean",
    "dropout": _RECURRENT,
    "recurrence_rate_factor": _RECURRENT,
    "encoder_rate_factor": "--tower transformer --base {encoder}",
    "rows": "--base {encoder}",
    "tower": "--base {encoder}",
    "query_tower": "--base {encoder}",
    "document_tower": "--base {encoder}",
    "freeze": "--separate-towers --loss align --teacher {encoder} --base {encoder}",
    "shared_table": f"{_RECURRENT} --separate-towers",
    "temperature": "--loss infonce",
    "learn_temperature": "--loss infonce",
    "self_mine_every": "--negatives given",
    "shuffle_buffer": "--streaming",
    "distill": "--teacher {encoder}",
    "loss": "--negatives given --teacher {encoder} --base {encoder}",
    "project_name": "--wandb",
    "run_name": "--wandb",
    "jobs": "--count 2",  # one trial alone trains in the sweep's own process
    "log_model": "--wandb",
    "watch_every": "--wandb",
    "evaluate explain": "--worst 2",
    "rerank_depth": "--rerank {cross}",
    "retune recurrence_rate_factor": "--seed 1",  # these two are for other bundles
    "retune encoder_rate_factor": "--seed 1",
    "retune loss": "--negatives given",
    "backend": "--model {graphs}",
    "mcp http": "--port 0",
    "mcp host": "--http --port 0",
    "mcp port": "--http",
    "mcp allowed_hosts": "--http --port 0",
    "export precision": "--format onnx",
}
# What the table cannot say: another argument goes with the flag.
MORE = [
    "export {bundle} --format site --output {new}/site",
    "export {bundle} --format site --output {new}/site --dim 16",
    "export {bundle} --format site --output {new}/site --max-mb 30",
    "export {bundle} --format site --output {new}/site --url https://docs.example.org/{{id}}#{{anchor}}",
    "train --resume {checkpoints} --resume-anyway --epochs 2",
    "train --dataset {corpus} --spans 2 --base {encoder} --document-tower transformer --loss align --no-wandb "
    "--output {new}/light",
    "retune {bundle} --queries {model}",
    "quickstart {notes} --output {new}/model",
]
TRAINING = {field.name for field in dataclasses.fields(TrainConfig)}
SEARCHED = {name for sweep in sweep_config.SWEEPS.values() for name in sweep["parameters"]}

# What ends with 2, and what it says: a flag that is nothing by itself, or asks for what is not here.
REFUSED = {
    "train --rows distilled": "no config.json",
    "train --rows encoded": "no config.json",
    "train --tower transformer": "no config.json",
    "train --query-tower transformer": "no config.json",
    "train --document-tower transformer": "no config.json",
    "train --loss align": "the vectors to learn have 384 numbers",
    "sweep --loss align": "no trial came to its end",
    "train --freeze documents": "share one tower",
    "train --freeze queries": "share one tower",
    "train --self-mine-every 2": "add --negatives given",
    "evaluate --explain": "give --worst 20",
    "encode --engine ray": "this needs ray",
    "encode --ray-address 127.0.0.1:1": "--ray-address is for --engine ray",
    "export --precision fp32": "--precision is for --format onnx",
    "export --precision int8": "--precision is for --format onnx",
    "export --dim 2": "--dim is for --format site",
    "export --max-mb 0.5": "--max-mb is for --format site",
    "export --url {{id}}": "--url is for --format site",
    "export --onnx-web {new}": "--onnx-web is for --format site",
    **{f"{verb} --rerank-depth 2": "give --rerank MODEL" for verb in ("search", "serve", "evaluate")},
    "index --kind pq": "--kind pq needs 1,000 documents",
    "index --kind ivf": "--kind ivf needs 1,000 documents",
    "retune --streaming": "a teacher needs all texts at once",
    "retune --streaming --shuffle-buffer 131073": "a teacher needs all texts at once",
    "retune --self-mine-every 2": "add --negatives given",
    "retune --queries {model}": "give one of --dataset, --queries and --back",
    "retune --back": "give one of --dataset, --queries and --back",
    "mcp --host localhost": "are for --http",
    "mcp --port 0": "are for --http",
    "mcp --allowed-hosts example.org": "are for --http",
    "serve --backend onnx": "--backend onnx has no graphs",
    "serve --model {graphs}": "--model is for --backend onnx",
    "serve --sync": "not made from a folder of files",
    "serve --protect-reads": "--protect-reads has no token",
}
NO_HUB = "the Hugging Face Hub cannot be reached"  # what `push` says here; test_publishing.py has a Hub


def cases() -> Iterator[Any]:
    """Command lines with one flag that is not at its default."""
    for command, kind in commands().items():
        for tried, name in flags_of(command, kind, VALUES):
            if command == "sweep" and name in TRAINING and name not in SEARCHED:
                continue  # it is given on as it is, see below
            for beside in dict.fromkeys(["", entry(BESIDE, command, name)]):
                more = f"{beside} {tried}".strip()
                short = f"{command} {more}"
                refused = NO_HUB if command == "push" else REFUSED.get(short)
                words = COMMANDS[command]
                if name == "dataset":  # in place of the other one
                    words = words.replace("--dataset {rows}", "")
                yield pytest.param(f"{command} {words} {more}", refused, id=short)
    yield from (pytest.param(line, None, id=line) for line in MORE)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_base: str, tiny_encoder: str) -> dict[str, str]:
    """What commands are given."""
    folder = tmp_path_factory.mktemp("made")
    names = ("rows.parquet", "pairs.jsonl", "corpus.jsonl", "model", "bundle", "graphs", "checkpoints", "scores.json")
    made = {name.partition(".")[0]: str(folder / name) for name in names} | {"base": tiny_base, "encoder": tiny_encoder}
    rows = make_rows(120)
    pq.write_table(pa.Table.from_pylist([{**row, "split": None} for row in rows]), made["rows"])
    with Path(made["pairs"]).open("w") as pairs, Path(made["corpus"]).open("w") as corpus:
        for number, row in enumerate(rows):
            text = row["passages"]["passage_text"][row["passages"]["is_selected"].index(1)]
            pairs.write(json.dumps({"query": row["query"], "passage": text}) + "\n")
            corpus.write(json.dumps({"id": f"d{number}", "text": text, "metadata": {"year": 1970 + number}}) + "\n")
    for line in (
        f"train {TRAIN} --output {{model}}",
        "index {model} {corpus} --output {bundle}",
        "export {model} --format onnx --output {graphs}",
    ):
        assert cli.main(line.format(**made).split()) == 0
    scores = {"collection": "rows", "model": "m", "method": "dense", "protocol": "full corpus", "queries": 1}
    made["cross"] = str(write_cross_encoder(folder / "cross"))
    made["notes"] = str(write_notes(folder / "notes"))
    Path(made["scores"]).write_text(json.dumps(scores))
    config = TrainConfig(dataset=(made["rows"],), base=tiny_base, epochs=1, batch_size=32, wandb=False)
    data = prepare(config)
    checkpoints = StoppedAt(Path(made["checkpoints"]), config, data)
    checkpoints.last = 2
    from freemvmt.training import train

    with pytest.raises(Stopped):
        train(config, data, checkpoints=checkpoints)
    return made


def write_notes(folder: Path) -> Path:
    """A folder of 60 notes."""
    folder.mkdir()
    for number, topic in enumerate(ANSWERED * 2):
        text = f"# {topic} {number}\n\nOf {topic} this is what note {number} says. There is more to say of it.\n"
        (folder / f"{number}.md").write_text(text)
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few docs; no pictures; a server that ends when it listens, and one process where it would be several."""
    import freemvmt.cli.sync
    import freemvmt.server.mcp.stdio
    import freemvmt.server.serve
    import freemvmt.server.supervisor
    from freemvmt.runtime.console import Console
    from freemvmt.server.uvicorn_server import Server

    async def startup(server: Server, *given: Any, **named: Any) -> None:
        await really(server, *given, **named)
        server.should_exit = True

    really = Server.startup
    monkeypatch.setattr(Server, "startup", startup)
    monkeypatch.setattr(freemvmt.server.mcp.stdio, "run_stdio", lambda _: None)
    monkeypatch.setattr(freemvmt.cli.sync, "_watch", lambda *_: None)
    serve = freemvmt.server.serve.serve
    monkeypatch.setattr(freemvmt.server.supervisor, "supervise", lambda *given: serve(*given, Console()))
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "ray", None)  # which would listen on every interface
    monkeypatch.setattr(pydocs, "read", functools.partial(pydocs.read, ("json", "logging", "tyro"), workers=1))


@pytest.mark.parametrize(("line", "refused"), list(cases()))
@pytest.mark.usefixtures("quick")
def test_a_flag_works_or_is_refused_in_one_line(
    line: str,
    refused: str | None,
    made: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for name in ("checkpoints", "bundle"):  # a command uses it up, or changes it
        if f"{{{name}}}" in line:
            made = made | {name: str(shutil.copytree(made[name], tmp_path / name))}
    words = line.format(**made, new=tmp_path / "new").split()
    code = cli.main(words)
    said = capsys.readouterr().err
    errors = [one for one in said.splitlines() if one.startswith("error: ")]
    assert "Traceback" not in said
    if refused is None:
        assert (code, errors) == (0, []), said
    else:
        assert (code, len(errors)) == (2, 1), said
        assert said.splitlines()[-1] == errors[0]
        assert refused in errors[0]


@pytest.mark.parametrize("verb", ["", *cli.VERBS])
def test_every_command_helps(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        assert cli.main([*verb.split(), "--help"]) == 0
    helped(capsys)


def helped(capsys: pytest.CaptureFixture[str]) -> None:
    said = capsys.readouterr()
    assert "usage:" in said.out
    assert not said.err


@pytest.mark.parametrize("line", ["main.py", "main.py --sweep", "sweep_config.py"])
def test_every_script_helps(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [*line.split(), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(Path(main.__file__).parent / line.split()[0]), run_name="__main__")
    assert ended.value.code in (None, 0)
    helped(capsys)


@pytest.mark.parametrize(("line", "command"), [("main.py", "train"), ("main.py --sweep", "sweep")])
def test_the_script_is_the_command(line: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives on all words as they are: what holds of the command's flags holds of the script's."""
    given: list[list[str]] = []
    lines = ["", *(tried for tried, _ in flags_of(command, commands()[command], VALUES))]

    def take(argv: list[str], prog: str = "") -> int:
        given.append([prog, *argv])
        return 0

    monkeypatch.setattr(main, "train", take)
    monkeypatch.setattr(main, "run_sweep_command", take)
    for tried in lines:
        monkeypatch.setattr(sys, "argv", [*line.split(), *tried.split()])
        assert main.main() == 0
        assert given.pop() == [line, *tried.split()]


def test_a_sweep_trains_with_the_flags_of_a_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[TrainConfig] = []
    monkeypatch.setattr(sweeps, "run_sweep", lambda _, config, **more: given.append(config) or mock.Mock(stopped=False))
    for tried, name in flags_of("sweep", sweep.SweepOptions, VALUES):
        words = tried.format_map(collections.defaultdict(lambda: "name")).split()
        if name in TRAINING:
            with contextlib.suppress(UserError):  # one that another flag must stand beside
                wanted = parsing.parse(TrainOptions, words, "train").train_config()
                assert sweep_config.run_sweep_command(words) == 0
                assert given.pop() == wanted != TrainConfig(), tried


@pytest.mark.parametrize("verb", ["", *NO_TRAINING])
def test_without_an_argument_a_command_says_what_it_needs(verb: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "freemvmt", *verb.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if verb:
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert "; " in done.stderr  # what to do
    else:
        assert (done.returncode, done.stderr) == (0, "")
    assert not list(tmp_path.iterdir())


def test_a_flag_without_a_value_here_is_named() -> None:
    @dataclasses.dataclass
    class Options:
        colour: str = "red"

    with pytest.raises(AssertionError, match="paint has a new flag, --colour: say a value"):
        list(flags_of("paint", Options, VALUES))
