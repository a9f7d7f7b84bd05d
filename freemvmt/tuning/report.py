"""The report of a sweep: a table of its trials, the flags of the best trial, and a plot."""

import dataclasses
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from freemvmt.config import TrainConfig, changed_flags, replace
from freemvmt.runtime.console import Console, count_of
from freemvmt.storage.files import atomic_file
from freemvmt.tuning.study import missing_packages

if TYPE_CHECKING:
    from matplotlib.axes import Axes

State = Literal["complete", "pruned", "failed"]

COLORS: dict[State, str] = {"complete": "#1f77b4", "pruned": "#b0b0b0", "failed": "#d62728"}


@dataclass(frozen=True)
class Trial:
    """One training of a sweep. ``val_ndcg_10`` is None if the trial failed before its first validation."""

    number: int
    val_ndcg_10: float | None
    state: State
    settings: dict[str, Any]

    def cells(self, names: Iterable[str]) -> list[str]:
        """Table cells: number, score, state, and the values of the settings ``names`` (- where the trial has none)."""
        score = "-" if self.val_ndcg_10 is None else f"{self.val_ndcg_10:.4f}"
        values = [_short(self.settings[name]) if name in self.settings else "-" for name in names]
        return [str(self.number), score, self.state, *values]

    def __str__(self) -> str:
        number, score, state, *values = self.cells(self.settings)
        settings = "  ".join(f"{name} {value}" for name, value in zip(self.settings, values, strict=True))
        return f"{number:>3}  val_ndcg_10 {score:<6}  {state:<8}  {settings}"


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep."""

    trials: list[Trial]
    """Complete trials first, then pruned, then failed ones; within each group the best first."""
    best: TrainConfig | None
    """All settings of the best trial; None if no trial is complete."""
    command: str | None
    """The command that trains with these settings."""
    plot: Path | None
    """A PNG; None if no trial has a score, and without the extra ``sweep``."""
    stopped: bool
    """Whether the sweep ended before all its trials had run."""

    def as_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        trials = [dataclasses.asdict(trial) for trial in self.trials]
        return {
            "trials": trials,
            "command": self.command,
            "plot": self.plot and str(self.plot),
            "stopped": self.stopped,
        }


def report(
    name: str, config: TrainConfig, trials: list[Trial], folder: Path, console: Console, stopped: bool = False
) -> SweepResult:
    """Print the trials and the best command of the sweep ``name`` over ``config``; plot to ``folder``/``name``.png."""
    ranked = sorted(trials, key=_rank)
    for line in table(ranked):
        console.line(line)
    best = None
    if ranked and ranked[0].state == "complete":
        best = replace(config, ranked[0].settings)
    plot_path = plot(name, trials, folder / f"{name}.png") if trials else None
    console.line()
    if best:
        console.line(f"best      {command(best)}")
    if plot_path:
        console.line(f"plot      {plot_path}")
    return SweepResult(ranked, best, command(best) if best else None, plot_path, stopped)


def table(trials: list[Trial]) -> list[str]:
    """Lines of a table: columns of numbers are aligned right, columns of words left."""
    if not trials:
        return ["no trials"]
    names = list(dict.fromkeys(name for trial in trials for name in trial.settings))  # a killed trial may lack settings
    rows = [["number", "val_ndcg_10", "state", *names], *(trial.cells(names) for trial in trials)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text_columns = [not any(_is_number(cell) for cell in column[1:]) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if is_text else cell.rjust(width)
            for cell, width, is_text in zip(row, widths, text_columns, strict=True)
        ).rstrip()
        for row in rows
    ]


def command(config: TrainConfig) -> str:
    """The command line that trains with ``config``: the flags that differ from their defaults."""
    return shlex.join(["uv", "run", "python", "main.py", *changed_flags(config)])


def plot(name: str, trials: list[Trial], path: Path) -> Path | None:
    """Draw the scores in the order of the trials, and the importance of each setting; return ``path``.

    None without the extra ``sweep``, and if no trial has a score.
    """
    if missing_packages() or all(trial.val_ndcg_10 is None for trial in trials):
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_history(left, name, trials)
    _draw_importances(right, trials)
    with atomic_file(path) as part:
        figure.savefig(part, format="png", dpi=150)
    return path


def importances(trials: list[Trial]) -> dict[str, float]:
    """The share of each setting in the variance of the scores, by functional ANOVA (Hutter et al., ICML 2014).

    Shares add up to 1, largest first. Empty unless more trials than settings are complete and their scores differ.
    """
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete or len(complete) <= len(complete[0].settings) or len({t.val_ndcg_10 for t in complete}) == 1:
        return {}

    def distribution_of(name: str) -> BaseDistribution:
        values = [trial.settings[name] for trial in complete]
        if all(isinstance(value, float) for value in values):
            return FloatDistribution(min(values), max(values), log=min(values) > 0)
        return CategoricalDistribution(sorted(set(values), key=str))

    distributions = {name: distribution_of(name) for name in complete[0].settings}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(params=trial.settings, distributions=distributions, value=trial.val_ndcg_10)
            for trial in complete
        ]
    )
    # Not Optuna's default, PED-ANOVA: over the few trials of a sweep it ranked a setting without effect first.
    shares = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
    )
    return {name: float(share) for name, share in shares.items()}


def _draw_history(axes: "Axes", name: str, trials: list[Trial]) -> None:
    from matplotlib.ticker import MaxNLocator

    trials = sorted(trials, key=lambda trial: trial.number)
    for state, color in COLORS.items():
        points = [(t.number, t.val_ndcg_10) for t in trials if t.state == state and t.val_ndcg_10 is not None]
        if points:
            axes.scatter(*zip(*points, strict=True), color=color, label=state, zorder=3)
    numbers: list[int] = []
    best: list[float] = []
    for trial in trials:
        if trial.state == "complete" and trial.val_ndcg_10 is not None:
            numbers.append(trial.number)
            best.append(max([trial.val_ndcg_10, *best[-1:]]))
    axes.step(numbers, best, where="post", color="#ff7f0e", label="best so far")
    axes.set(title=f"Sweep {name}: {count_of(len(trials), 'trial')}", xlabel="trial", ylabel="validation NDCG@10")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _draw_importances(axes: "Axes", trials: list[Trial]) -> None:
    shares = importances(trials)
    axes.set(title="What made the difference", xlabel="share of the variance (fANOVA)")
    if not shares:
        axes.text(
            0.5, 0.5, "needs more completed trials than settings,\nand different scores", ha="center", va="center"
        )
        axes.set(xticks=[], yticks=[], xlabel="")
        return
    names = list(reversed(shares))
    bars = axes.barh(names, [shares[name] for name in names], color="#1f77b4")
    axes.bar_label(bars, fmt="{:.2f}", padding=3)
    axes.set_xlim(0, 1.12 * max(shares.values()))


def _rank(trial: Trial) -> tuple[int, float]:
    return list(COLORS).index(trial.state), -(trial.val_ndcg_10 or 0.0)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_number(text: str) -> bool:
    return text.replace(".", "").replace("e-", "").replace("e+", "").isdigit()
