"""The `two-towers` command from end to end, in this process, on data made here."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from freemvmt.cli import VERBS, main
from freemvmt.cli.evaluate import EvaluateOptions
from freemvmt.cli.index import IndexOptions
from freemvmt.cli.parsing import parse
from freemvmt.cli.quickstart import QuickstartOptions
from freemvmt.main import main as train_main
from freemvmt.model import TwoTowersModel

from refusals import refusal


@pytest.fixture(scope="module")
def trained(tiny_base: str, rows_file: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "model"
    flags = ["--base", tiny_base, "--dataset", rows_file, "--batch-size", "64", "--epochs", "2", "--no-wandb"]
    assert main(["train", *flags, "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def beir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beir")
    texts = {"d1": "Towers are tall buildings.", "d2": "Rivers flow to the sea.", "d3": "Networks learn from data."}
    lines = [json.dumps({"_id": id, "title": id.upper(), "text": text}) for id, text in texts.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    queries = {"q1": "tall towers", "q2": "where do rivers flow"}
    (folder / "queries.jsonl").write_text("\n".join(json.dumps({"_id": q, "text": t}) for q, t in queries.items()))
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td2\t1\n")
    return folder


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {verb} " in told for verb in VERBS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("two-towers ")


@pytest.mark.parametrize("verb", VERBS)
def test_the_overview_says_of_each_command_what_its_function_says(verb: str) -> None:
    module, summary = VERBS[verb]
    assert (getattr(import_module(f"freemvmt.cli.{module}"), verb).__doc__ or "").splitlines()[0] == summary


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_a_help_of_its_own(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code in (0, None)
    assert f"two-towers {verb}" in capsys.readouterr().out


def test_train_says_where_it_saved_and_how_good_it_is(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = TwoTowersModel.load(trained).record
    assert record["scores"]["ndcg@10"] > record["scores"]["untrained_ndcg@10"]
    flags = ["--base", record["config"]["base"], "--dataset", *record["config"]["dataset"], "--batch-size", "64"]
    assert main(["train", *flags, "--epochs", "1", "--no-wandb", "--output", str(trained.parent / "other")]) == 0
    told = capsys.readouterr().out
    assert "reading " in told
    assert "untrained" in told
    assert str(trained.parent / "other") in told


def test_train_prints_one_json_object_and_all_else_on_stderr(
    tiny_base: str, rows_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--base", tiny_base, "--dataset", rows_file, "--epochs", "1", "--no-wandb", "--json"]
    assert main(["train", *flags, "--output", str(tmp_path / "model")]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["validation"]["protocol"].startswith("full corpus")
    assert 0 <= found["scores"]["ndcg@10"] <= 1
    assert "reading " in told.err


@pytest.mark.parametrize("method", ["dense", "bm25", "hybrid"])
def test_evaluate_names_protocol_and_metrics(
    trained: Path, beir: Path, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "out.run"
    assert main(["evaluate", str(trained), str(beir), "--method", method, "--run", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["protocol"] == "full corpus, 3 documents"
    assert found["queries"] == 2
    assert {"ndcg@10", "mrr@10", "recall@100", "recall@1000"} <= set(found)
    assert run.read_text().startswith("q1 Q0 ")
    assert main(["evaluate", str(trained), str(beir), "--method", method]) == 0
    assert "ndcg@10" in capsys.readouterr().out


def test_evaluate_reads_training_rows_by_full_corpus_and_by_pool(
    trained: Path, rows_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {}
    for protocol in ("full", "pool"):
        assert main(["evaluate", str(trained), rows_file, "--protocol", protocol, "--json"]) == 0
        scores[protocol] = json.loads(capsys.readouterr().out)
    assert scores["pool"]["protocol"] == "pool of the row's passages"
    assert scores["pool"]["ndcg@10"] > scores["full"]["ndcg@10"]


def test_compare_takes_models_bm25_and_run_files(
    trained: Path, beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "dense.run")
    assert main(["evaluate", str(trained), str(beir), "--run", run]) == 0
    capsys.readouterr()
    assert main(["compare", str(trained), run, str(beir), "--json"]) == 0
    same = json.loads(capsys.readouterr().out)["comparison"]
    assert (same["difference"], same["p_value"]) == (0, 1)
    assert main(["compare", str(trained), "bm25", str(beir)]) == 0
    told = capsys.readouterr().out
    assert "p = " in told
    assert "bm25" in told


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("words", [["--json", "--bogus"], ["--bogus", "x", "--json"], ["--no-json", "--json", "--k"]])
def test_with_json_an_error_is_an_object_too(verb: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, *words]) == 2
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert list(found) == ["error"]
    assert said.err.splitlines()[-1] == f"error: {found['error']}"


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "bm25", "nowhere", "--json"],
        ["compare", "bm25", "bm25", "nowhere", "--json"],
        ["train", "--dataset", "nowhere", "--no-wandb", "--json"],
        ["train", "--epochs", "0", "--json"],
        ["train", "--resume", "nowhere", "--json"],
        ["sweep", "--count", "x", "--json"],
        ["search", "nowhere", "tower", "--json"],
        ["search", "nowhere", "--json", "--", "-tower"],
        ["nothing", "--json"],
        ["--json"],
    ],
)
def test_with_json_every_refusal_is_one_object(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.err.endswith(f"error: {json.loads(said.out)['error']}\n")


@pytest.mark.parametrize("words", [["--json", "--no-json"], [], ["--", "--json"]])
def test_without_json_stdout_stays_empty(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "nowhere", *words]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("words", [["--epochs", "0"], ["--bogus"], ["--sweep", "--count", "x"]])
def test_main_speaks_json_too(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["main.py", *words, "--json"])
    assert train_main() == 2
    assert list(json.loads(capsys.readouterr().out)) == ["error"]


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ([], None),
        (["--ignore-identical-ids"], True),
        (["--no-ignore-identical-ids"], False),
        (["--ignore-identical-ids", "None"], None),
        (["--ignore-identical-ids", "False"], False),
    ],
)
def test_a_flag_that_may_be_left_to_us_is_switched_by_its_name(words: list[str], value: bool | None) -> None:
    for order in (["m", "c", *words], [*words, "m", "c"]):
        assert parse(EvaluateOptions, order, "evaluate").ignore_identical_ids is value


def test_train_without_an_output_goes_to_models(
    tiny_base: str, rows_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--base", tiny_base, "--dataset", rows_file, "--epochs", "1", "--no-wandb"]
    assert main(["train", *flags]) == 0
    assert (tmp_path / "models" / "rows" / "model.safetensors").exists()


def test_a_blank_query_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "the query is blank; give the words" in refusal(capsys, tmp_path, "search", tmp_path, " ")


@pytest.mark.parametrize("words", [["--dataset", "a", "--dataset", "b"], ["--dataset=a", "c", "--dataset=b"]])
def test_a_flag_of_several_values_is_not_given_twice(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, tmp_path, "train", *words)
    assert "--dataset is given twice; give all values after one: --dataset A B" in said


def test_a_flag_that_adds_up_is_given_as_often_as_wanted() -> None:
    options = parse(IndexOptions, ["m", "c", "--output", "b", "--include", "*.md", "--include", "*.rst"], "index")
    assert options.include == ("*.md", "*.rst")


def test_quickstart_of_a_folder_takes_its_whole_name(tmp_path: Path) -> None:
    for name in ("notes.2023", "notes.2024"):
        (tmp_path / name).mkdir()
        assert QuickstartOptions(corpus=str(tmp_path / name)).name == name
    assert QuickstartOptions(corpus=str(tmp_path / "corpus.jsonl")).name == "corpus"
    assert QuickstartOptions(corpus=str(tmp_path / "notes.2023"), heavy=True).bundle == Path("bundles/notes.2023-heavy")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_behind_stdout_is_one_line(beir: Path) -> None:
    program = "import sys; from freemvmt.cli import main; sys.exit(main())"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, "evaluate", "bm25", str(beir), "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: no space is left to write to; free some, or write elsewhere"


def test_quickstart_refuses_pairs_before_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"query": "a", "passage": "b"}\n')
    error = refusal(capsys, tmp_path, "quickstart", path, "--output", tmp_path / "model")
    assert 'no text in a field "text" (fields: "query", "passage"); give documents, or learn from pairs by' in error
