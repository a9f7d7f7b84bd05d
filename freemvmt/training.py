"""Training, on one screen: ``train`` runs the epochs, ``run_epoch`` the steps of one, ``step`` moves the weights once.

A batch is a few slices of token arrays. The towers make vectors of length 1 of them, and the loss takes the batch's
other passages as negatives. After each epoch NDCG@10 over the whole validation corpus says whether it is the best.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from freemvmt.config import TrainConfig
from freemvmt.errors import UserError
from freemvmt.runtime.console import QUIET, Console
from freemvmt.runtime.devices import pick_device, return_freed_memory
from freemvmt.runtime.garbage import frozen_heap
from freemvmt.towers.model_folder import check_output
from freemvmt.trainer.callbacks import Callback, EarlyStopping, OnEpoch, ProgressBar, SelfMining, TrackMetrics
from freemvmt.trainer.checkpoints import Checkpoints, SavedRun
from freemvmt.trainer.dataset import TrainingData, prepare
from freemvmt.trainer.distributed import SingleProcess, process_group
from freemvmt.trainer.result import Ended, TrainingResult, save
from freemvmt.trainer.run import TrainingRun
from freemvmt.trainer.samplers import Pairs
from freemvmt.trainer.signals import interruption
from freemvmt.trainer.tracking import Tracker, start
from freemvmt.trainer.validation import is_sound


def train(
    config: TrainConfig,
    data: TrainingData | None = None,
    *,
    tracker: Tracker | None = None,
    console: Console = QUIET,
    on_epoch: Callable[[int, float], None] | None = None,
    checkpoints: Checkpoints | None = None,
    ranks: SingleProcess | None = None,
) -> TrainingResult:
    """Train by ``config`` and return the best epoch's model; nothing is written but ``checkpoints``.

    ``on_epoch`` is called with (epoch, validation NDCG@10) after each epoch; what it raises ends the training. SIGINT
    and SIGTERM end the step, measure, and return what is best so far. A loss that is not finite ends the training
    before it reaches the weights; ``UserError`` if that is in the first epoch. From a checkpoint training goes on bit
    for bit. Each of several processes (``ranks``) encodes its share of every batch; all end with the same weights.
    """
    data, tracker = data or prepare(config, console), tracker or Tracker()
    run = TrainingRun.start(config, data, checkpoints or Checkpoints(None, config, data), ranks or SingleProcess())
    ended: Ended = "finished"
    with interruption() as interrupted, console.progress(label_of(config), config.epochs * run.sampler.steps) as bar:
        callbacks: list[Callback] = [TrackMetrics(tracker, run), ProgressBar(bar, run)]
        callbacks += [OnEpoch(on_epoch)] if on_epoch else []
        callbacks += [EarlyStopping(), SelfMining()]
        for epoch in range(run.state.epoch, config.epochs + 1):
            run.state.epoch = epoch
            ended = run_epoch(run, callbacks, interrupted)
            if ended != "finished":
                break
    result = run.result(ended)
    tracker.summary({"val_ndcg_10": result.val_ndcg_10, "best_epoch": result.best_epoch})
    return result


def run_epoch(run: TrainingRun, callbacks: Sequence[Callback], interrupted: Callable[[], bool]) -> Ended:
    """What is left of an epoch, then one measurement. Here, and in ``step``, the processes talk to each other."""
    ended: Ended = "finished"
    for callback in callbacks:
        callback.on_epoch_start(run)
    run.model.train()
    for batch in run.sampler.rest_of_epoch(run.state, run.objective):  # (pairs, 2)
        loss = step(run, batch)
        if not math.isfinite(loss):
            ended = "diverged"
            break
        for callback in callbacks:
            callback.on_step(run, loss)
        if run.ranks.any_rank(interrupted()):
            ended = "interrupted"
            run.checkpoints.write(run)
            break
        run.checkpoints.tick(run)
    run.model.train(False)
    if ended == "diverged" or not run.ranks.broadcast(lambda: float(is_sound(run.model, run.data))):
        return "diverged"  # the weights can be ruined with no loss after it, or none that shows it
    score = run.validate()
    run.state.close_epoch(score, run.model, run.optimizers, is_last=run.state.epoch == run.config.epochs)
    for callback in callbacks:
        callback.on_measured(run)
    if ended == "interrupted":  # before on_epoch, whose exception would swallow it
        return ended
    return next((reason for callback in callbacks if (reason := callback.on_epoch(run))), "finished")


def step(run: TrainingRun, batch: Pairs) -> float:
    """One step of the optimizers on a batch, (pairs, 2); its loss. One that is not finite never reaches the weights."""
    run.optimizers.set_rates(run.sampler.done(run.state))
    loss = run.objective(batch[:, 0], batch[:, 1])  # ()
    value = loss.item()
    run.state.count_step(value)
    if math.isfinite(value):
        run.optimizers.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        run.ranks.exchange(run.model.parameters(), [run.objective.temperature.weight])
        run.optimizers.clip_and_step()
        run.state.seconds = run.clock()
    return value


def label_of(config: TrainConfig) -> str:
    """What a person sees beside the progress bar."""
    negatives = f", {config.negatives}" if config.loss == "triplet" else ""
    towers = f"{config.kind_of('query')} queries, {config.kind_of('document')} documents"
    return f"training  {towers if config.is_mixed else config.tower + ' towers'}, {config.loss}{negatives}"


def train_and_save(
    config: TrainConfig, console: Console = QUIET, saved: SavedRun | None = None, anyway: bool = False
) -> tuple[TrainingResult, Path]:
    """What `two-towers train` does: check the output folder, prepare, train, track, save with a card.

    ``saved`` is the checkpoint to go on from; settings, data and versions must be those of then, unless ``anyway``.
    Checkpoints are kept beside the output until the training is over. Of several processes that `torchrun` has started
    the first one writes and says what there is.

    Raises ``UserError`` when nothing could be saved, and also when the loss diverged after some good epochs; the best
    of those is saved all the same, and the error says where.
    """
    output = Path(config.output or default_output(config.dataset))
    check_output(output, config.dataset)
    ranks = process_group(pick_device(config.device))  # a wrong one is said before the data is read
    data: TrainingData = ranks.first_rank_first(lambda: prepare(config, console).without_texts())
    return_freed_memory()
    if config.output is None:
        output = Path(default_output(data.name.split(" + ")))  # `auto` has become a name
        check_output(output, config.dataset)
    folder = saved.path.parent if saved else output.with_name(f"{output.name}.checkpoints")
    checkpoints = Checkpoints(folder if ranks.is_first else None, config, data, saved, anyway, ranks.size)
    if saved:
        console.line(f"resuming  {saved.path}")
    extra = {"data": data.name, "pairs": len(data.examples.positives.ids)}
    tracker = start(config, extra=extra, run_id=checkpoints.run_id) if ranks.is_first else Tracker()
    checkpoints.run_id = tracker.run_id or checkpoints.run_id
    failed = True
    try:
        with ranks.session(), frozen_heap():
            result = train(config, data, tracker=tracker, console=console, checkpoints=checkpoints, ranks=ranks)
        if ranks.is_first:
            save(config, data, result, output)
        if result.ended in ("finished", "patience"):
            checkpoints.clear()
        if config.log_model:
            tracker.save_model(output, output.name)
        failed = result.ended == "diverged"
    finally:
        tracker.finish(failed=failed)
    if result.ended == "diverged":
        kept = f"the model of epoch {result.best_epoch} is saved in {output}"
        raise UserError(f"the loss is not a number at step {result.steps}; lower --learning-rate; {kept}")
    return result, output


def default_output(names: Sequence[str]) -> str:
    """Where a model goes when nothing is said: ``models/`` and the names of its data sets."""
    return "models/" + "+".join(Path(name).stem for name in names)
