"""Sweeps: their definitions, and Optuna with its study on disk. W&B's agent is in ``test_sweep_agent``."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from matplotlib.image import imread
from sqlalchemy import Engine, event

from freemvmt import sweep_config
from freemvmt.cli import sweep as sweep_command
from freemvmt.cli.parsing import parse
from freemvmt.cli.sweep import SweepOptions
from freemvmt.config import DataConfig, TrainConfig, replace
from freemvmt.errors import UserError
from freemvmt.runtime.console import Console
from freemvmt.tuning import report as sweep_report
from freemvmt.tuning import run as sweeps
from freemvmt.tuning import study as sweep_study
from freemvmt.tuning.report import Trial
from freemvmt.tuning.spaces import SWEEPS, definition

import wandb_file
from sweep_toy import Lines, prepare, sweep, train

pytestmark = pytest.mark.usefixtures("alone")

HERE = Path(__file__).parent


@event.listens_for(Engine, "connect")
def _careless(connection: Any, record: object) -> None:
    """The tests do not wait for the disk: what they write is not kept."""
    connection.execute("PRAGMA synchronous = OFF")


# Definitions


@pytest.mark.parametrize("name", SWEEPS)
def test_every_draw_of_a_sweep_is_a_valid_configuration(name: Any) -> None:
    parameters = definition(name)["parameters"]
    constants = {key: spec["value"] for key, spec in parameters.items() if "value" in spec}
    searched = {key: spec for key, spec in parameters.items() if key not in constants}
    # What the data are read and tokenised by cannot change from trial to trial: they are read once.
    assert not set(searched) & {*DataConfig.__dataclass_fields__, "base", "max_length"}
    spans = {key: sweep_study.distribution(key, spec) for key, spec in searched.items()}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(100):
        drawn = replace(TrainConfig(), constants | study.ask(spans).params)
        assert isinstance(drawn.epochs, int)
        assert isinstance(drawn.batch_size, int)
        assert 16 <= drawn.batch_size <= 8192
        assert 3e-5 <= drawn.learning_rate <= 3e-3


def test_a_setting_that_is_given_is_not_searched() -> None:
    given = sweep_command._given(["--learning-rate=1e-3", "--batch_size", "64", "--no-wandb", "--config", "basic"])
    assert given == {"learning_rate", "batch_size", "wandb"}
    assert set(definition("basic", given)["parameters"]) == {"margin", "epochs"}
    assert "learning_rate" in definition("basic")["parameters"]


def test_nothing_left_to_search() -> None:
    with pytest.raises(UserError, match="nothing to search"):
        sweeps.run_sweep(definition("quick", ["learning_rate", "batch_size"]), TrainConfig(wandb=False), count=1)


def test_parameters_become_distributions() -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    for spec, expected in [
        ({"values": ["a", "b"]}, CategoricalDistribution(["a", "b"])),
        ({"min": 1, "max": 5}, IntDistribution(1, 5)),
        ({"min": 0.0, "max": 5.0}, FloatDistribution(0, 5)),
        ({"distribution": "uniform", "min": 1, "max": 5}, FloatDistribution(1, 5)),
        ({"distribution": "q_uniform", "min": 2, "max": 8, "q": 2}, IntDistribution(2, 8, step=2)),
        ({"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.25}, FloatDistribution(0, 1, step=0.25)),
        ({"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}, FloatDistribution(1e-4, 1e-2, log=True)),
        ({"distribution": "q_log_uniform_values", "min": 1, "max": 64}, IntDistribution(1, 64, log=True)),
    ]:
        assert sweep_study.distribution("x", spec) == expected
    with pytest.raises(ValueError, match="x: no counterpart"):
        sweep_study.distribution("x", {"distribution": "beta", "min": 0.0, "max": 1.0})


def test_batch_sizes_are_no_larger_than_there_are_pairs() -> None:
    for pairs, sizes in [(300, [64, 256]), (20, [20]), (5000, [64, 256, 1024])]:
        assert sweeps._fitting(definition("quick"), pairs)["parameters"]["batch_size"] == {"values": sizes}


# Optuna


def test_a_sweep_is_reported_and_goes_on() -> None:
    console = Lines()
    first = sweep(count=3, console=console)
    assert [trial.number for trial in sorted(first.trials, key=lambda trial: trial.number)] == [0, 1, 2]
    scores = [trial.val_ndcg_10 for trial in first.trials]
    assert scores == sorted(scores, reverse=True)
    assert console.lines[-2] == f"best      {first.command}"
    assert console.lines[-1] == "plot      sweeps/quick.png"

    second = sweep(count=4, console=console)
    assert "sweep     quick, Optuna chooses, after 3 trials: sweeps/quick.db" in console.lines
    assert len(second.trials) == 7
    assert len({trial.settings["learning_rate"] for trial in second.trials}) == 7  # no draw comes twice
    assert second.trials[0].val_ndcg_10 >= first.trials[0].val_ndcg_10
    assert imread(second.plot).shape[:2] == (630, 1650)


def test_the_first_trial_is_what_is_trained_without_a_sweep() -> None:
    (trial,) = sweep("basic", count=1).trials
    default = TrainConfig()
    assert (trial.settings["learning_rate"], trial.settings["margin"]) == (default.learning_rate, default.margin)
    assert trial.settings["epochs"] == default.epochs


def test_data_are_read_once() -> None:
    read = []

    def counting(config: TrainConfig, console: Console) -> Any:
        read.append(config.max_samples)
        return prepare(config, console)

    sweep(count=3, prepare=counting)
    assert read == [5000]  # the constant of the definition


def test_the_command_trains_with_the_best_settings() -> None:
    config = TrainConfig(wandb=False, dataset=("my pairs.jsonl", "more"), streaming=True, dim=64)
    result = sweep(config=config)
    words = shlex.split(result.command)
    assert words[:4] == ["uv", "run", "python", "main.py"]
    again = parse(TrainConfig, words[4:], "main.py")
    assert again == result.best
    assert again == replace(config, {**result.trials[0].settings, "epochs": 1, "max_samples": 5000})


def test_the_table_is_aligned() -> None:
    trials = [
        Trial(10, 0.5, "complete", {"learning_rate": 3e-5, "loss": "triplet", "batch_size": 64}),
        Trial(2, 0.25, "pruned", {"learning_rate": 0.0012345, "loss": "infonce", "batch_size": 1024}),
        Trial(3, None, "failed", {"learning_rate": 0.001, "loss": "infonce", "batch_size": 16}),
        Trial(4, None, "failed", {"learning_rate": 0.1}),  # killed while its settings were chosen
    ]
    assert sweep_report.table(trials) == [
        "number  val_ndcg_10  state     learning_rate  loss     batch_size",
        "    10       0.5000  complete          3e-05  triplet          64",
        "     2       0.2500  pruned         0.001234  infonce        1024",
        "     3            -  failed            0.001  infonce          16",
        "     4            -  failed              0.1  -                 -",
    ]


def test_importances_add_up_and_find_what_matters() -> None:
    result = sweep("basic", count=40)
    shares = sweep_report.importances(result.trials)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["margin"] < shares["batch_size"]  # the formula does not know the margin
    assert sweep_report.importances(result.trials[:4]) == {}


def test_trials_that_promise_little_are_pruned() -> None:
    result = sweep("basic", count=16)
    pruned = [trial for trial in result.trials if trial.state == "pruned"]
    assert pruned
    assert all(trial.val_ndcg_10 is not None and trial.settings["epochs"] > 2 for trial in pruned)
    assert [trial.state for trial in result.trials] == ["complete"] * (16 - len(pruned)) + ["pruned"] * len(pruned)
    assert result.best is not None


def test_other_data_or_fixed_settings_are_another_study() -> None:
    sweep(count=2)
    no_effect = {"run_name": "another", "checkpoint_seconds": 5.0, "checkpoint_steps": 7, "log_every": 3}
    assert len(sweep(count=2, config=TrainConfig(wandb=False, **no_effect)).trials) == 4
    assert len(sweep(count=2, config=TrainConfig(wandb=False, table_rate_factor=10.0)).trials) == 2


def failing(*, at: set[int], error: BaseException) -> Any:
    """A training that fails in some trials."""
    count = iter(range(1000))

    def train_or_fail(*arguments: Any, **named: Any) -> Any:
        if next(count) in at:
            raise error
        return train(*arguments, **named)

    return train_or_fail


def test_a_trial_may_fail() -> None:
    result = sweep(count=3, train=failing(at={0}, error=RuntimeError("out of memory")))
    assert [trial.state for trial in result.trials] == ["complete", "complete", "failed"]


def test_a_sweep_that_only_fails_ends_with_the_error() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        sweep(count=9, train=failing(at=set(range(9)), error=RuntimeError("out of memory")))
    with pytest.raises(UserError, match="no trial came to its end"):
        sweep("basic", count=2, train=failing(at={0, 1}, error=UserError("the loss is not a number")))


def test_sigint_ends_the_sweep_and_not_the_report() -> None:
    calls = []

    def interrupted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return train(*arguments, **named)

    console = Lines()
    result = sweep(count=5, train=interrupted, console=console)
    assert result.stopped
    assert len(calls) == 2
    assert [trial.state for trial in result.trials] == ["complete", "failed"]
    assert any(line.startswith("best ") for line in console.lines)
    assert len(sweep(count=1).trials) == 3  # the study is kept


def test_a_training_that_took_the_sigint_ends_the_sweep() -> None:
    def took_it(*arguments: Any, **named: Any) -> Any:
        return SimpleNamespace(val_ndcg_10=0.5, ended="interrupted")

    result = sweep(count=5, train=took_it)
    assert result.stopped
    assert [trial.state for trial in result.trials] == ["failed"]
    assert result.best is None


def test_a_killed_process_leaves_a_failed_trial() -> None:
    code = (
        f"import sys; sys.path[:0] = [{str(HERE)!r}, {str(HERE.parents[1] / 'helpers')!r}]\n"
        "import os, signal, test_sweeps\n"
        "def killed(*arguments, **named): os.kill(os.getpid(), signal.SIGKILL)\n"
        "test_sweeps.sweep(count=1, train=killed)"
    )
    sweep(count=1)
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    result = sweep(count=1)
    assert {trial.number: trial.state for trial in result.trials} == {0: "complete", 1: "failed", 2: "complete"}


def test_two_processes_do_not_share_a_study() -> None:
    def nested(*arguments: Any, **named: Any) -> Any:
        with pytest.raises(UserError, match="another process runs this sweep"):
            sweep(count=1)
        return train(*arguments, **named)

    assert sweep(count=1, train=nested).trials[0].state == "complete"


@pytest.mark.parametrize(
    "name",
    ["what?x=1", "what?", "a%20b", "50%", "a#b", "a;b", "a b", "é東京", ":memory:", "{SCHEMA_VERSION}", "file:x"],
)
def test_a_study_stays_in_its_folder_whatever_the_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The path of a database is no address, in which these would mean something."""
    here, console = Path.cwd(), Lines()
    Path(name).mkdir()
    monkeypatch.chdir(name)
    for _ in range(2):
        sweep(count=1, console=console)
    goes_on = [line for line in console.lines if line.startswith("sweep ")]
    assert goes_on[1] == "sweep     quick, Optuna chooses, after 1 trial: sweeps/quick.db"
    assert sorted(path.name for path in Path("sweeps").iterdir()) == ["quick.db", "quick.lock", "quick.png"]
    assert [path.name for path in here.iterdir()] == [name]
    assert [path.name for path in Path.cwd().iterdir()] == ["sweeps"]


def test_a_folder_that_cannot_hold_a_study_is_refused_before_the_data_are_read() -> None:
    def never(config: TrainConfig, console: Console) -> Any:
        raise AssertionError("the data were read")

    Path("file").write_text("")
    for place in ("file", "file/below", "/proc/sweeps", "a\0b"):
        with pytest.raises(UserError, match="give another --folder"):
            sweep(count=1, folder=Path(place), prepare=never)
    assert [path.name for path in Path.cwd().iterdir()] == ["file"]


def test_a_file_that_is_no_study() -> None:
    Path("sweeps").mkdir()
    Path("sweeps/quick.db").write_text("nothing of the kind" * 100)
    with pytest.raises(UserError, match="not a study"):
        sweep(count=1)
    Path("file").write_text("")
    with pytest.raises(UserError, match="give another --folder"):
        sweep(count=1, folder=Path("file"))


def test_the_extra_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "missing_packages", lambda: ["optuna"])
    with pytest.raises(UserError, match=r"optuna; install two-towers\[sweep\]"):
        sweep()


def test_offline_each_trial_is_a_run_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    result = sweep(count=2, config=TrainConfig())
    runs = [wandb_file.read(folder) for folder in Path("wandb").glob("offline-run-*")]
    chosen = {trial.settings["learning_rate"] for trial in result.trials}
    assert {run.config["learning_rate"] for run in runs} == chosen
    assert all(run.config["sweep_name"] == "quick" and run.exit_code == 0 for run in runs)
    assert all(run.series("val_ndcg_10") for run in runs)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("variables", [{"WANDB_MODE": "online"}, {"WANDB_API_KEY": "abc"}], ids=str)
def test_without_a_key_that_serves_optuna_takes_over_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    console = Lines()
    assert len(sweep(count=1, config=TrainConfig(), console=console).trials) == 1
    assert [line for line in console.lines if "so Optuna chooses" in line] == [
        "wandb     there is no key, or it is off or offline, so Optuna chooses the settings"
    ]
    assert len(list(Path("wandb").glob("offline-run-*"))) == 1
    assert "wandb     each trial is an offline run; to upload them: wandb sync wandb/offline-run-*" in console.lines
    assert capfd.readouterr().out == ""


# The command


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    folder = Path(sweep_config.__file__).parent
    return subprocess.run(
        [sys.executable, "sweep_config.py", *words],
        cwd=folder,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("words", [["--config", "nonsense"], ["--count", "0"], ["--batch-size", "1"], ["--bad"]])
def test_a_wrong_flag_is_one_line_and_2(words: list[str]) -> None:
    done = command(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_options_hold_the_whole_configuration() -> None:
    options = parse(SweepOptions, ["--config", "quick", "--count", "7", "--max-samples", "50", "--no-wandb"], "sweep")
    assert (options.config, options.count) == ("quick", 7)
    assert options.train_config() == TrainConfig(max_samples=50, wandb=False)
    assert type(options.train_config()) is TrainConfig
