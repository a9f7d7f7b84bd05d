"""Training, on one screen: ``train`` runs the loop over what ``prepare`` has read, and keeps the best epoch.

One batch is a handful of slices of token arrays; the towers give vectors of length 1; the loss sees the batch's other
passages as negatives. After each epoch NDCG@10 over the whole validation corpus says whether it was the best so far.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from freemvmt.config import MiningConfig, TrainConfig
from freemvmt.console import QUIET, Console
from freemvmt.devices import keep_freed_memory, pick_device
from freemvmt.errors import UserError
from freemvmt.evaluation import interval_of_ndcg_10, ndcg_10, protocol_of
from freemvmt.learning.batches import BatchLoss
from freemvmt.learning.card import write_card
from freemvmt.learning.checkpoint import Checkpoints, Saved
from freemvmt.learning.curve import Course
from freemvmt.learning.feeding import Feed, StreamFeed
from freemvmt.learning.interruption import interruption
from freemvmt.learning.mining import mine
from freemvmt.learning.optimizers import accumulators, clip, optimizers_for, set_rate_factor
from freemvmt.learning.parts import Best, Parts, Progress
from freemvmt.learning.preparation import TrainingData, prepare
from freemvmt.learning.ranks import Ranks, ranks_of
from freemvmt.learning.tracking import Tracker, start
from freemvmt.learning.warm_start import scale_by_idf, warm_start
from freemvmt.model import TwoTowersModel
from freemvmt.model_files import check_output
from freemvmt.search.exact import top_k
from freemvmt.search.ranking import Ranking

MIN_BATCH, STEPS_OF_AN_EPOCH = 32, 5  # what --batch-size None keeps to
MAX_BATCH = {"average": 8192, "recurrent": 2048, "transformer": 128}  # for all that is kept of a token in training


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What came out; ``model`` is that of ``best_epoch``, whose validation NDCG@10 is ``val_ndcg_10``.

    ``ended`` says why it is over: ``finished``, ``patience``, ``interrupted`` or ``diverged`` (at step ``steps``).
    """

    model: TwoTowersModel
    val_ndcg_10: float
    best_epoch: int
    untrained_ndcg_10: float
    history: list[dict[str, float]] = field(repr=False)
    curve: list[list[float]] = field(repr=False)
    pairs: int
    steps: int
    seconds: float
    ended: str


def train(
    config: TrainConfig,
    data: TrainingData | None = None,
    *,
    tracker: Tracker | None = None,
    console: Console = QUIET,
    on_epoch: Callable[[int, float], None] | None = None,
    checkpoints: Checkpoints | None = None,
    ranks: Ranks | None = None,
) -> TrainingResult:
    """Train by ``config`` and return the best epoch's model; nothing is written but ``checkpoints``.

    ``on_epoch`` is told (epoch, validation NDCG@10) after each epoch; what it raises ends the training. SIGINT and
    SIGTERM end the step, measure, and return what is best so far. A loss that is not finite ends the training before
    it reaches the weights; ``UserError`` if that is in the first epoch. From a checkpoint it goes on bit for bit.
    Of several processes each encodes its share of every batch, and all end with the same weights.
    """
    data = data or prepare(config, console)
    tracker, checkpoints = tracker or Tracker(), checkpoints or Checkpoints(None, config, data)
    ranks = ranks or Ranks()
    started = time.perf_counter()
    torch.manual_seed(config.seed)
    if config.tower != "average":
        keep_freed_memory()
    model = TwoTowersModel(config.model_config()).to(pick_device(config.device))
    gathered = warm_start(model, config.init) if config.init else {}
    at = Progress(untrained=0.0 if checkpoints.saved else ranks.from_first(lambda: validate(model, data)))
    if config.idf_scale and not config.init and config.tower != "transformer":
        scale_by_idf(model, data.passages, config.idf_scale)
    loss_of = BatchLoss(config, model, data, ranks)
    optimizers = optimizers_for(model, config, loss_of.temperature.weight, gathered)
    parts = Parts(model, loss_of, optimizers)
    if checkpoints.saved:
        at = checkpoints.saved.restore(parts)
    if not ranks.is_first:
        torch.manual_seed(hash((config.seed, at.step, ranks.rank)))  # what is dropped of one share is not of another
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tracker.watch(model, config.watch_every)
    tracker.summary({"total_parameters": parameters, "untrained_val_ndcg_10": at.untrained})

    pairs = len(data.examples.positives.ids)
    batch_size = batch_size_for(config, pairs)
    if batch_size < ranks.size:
        raise UserError(f"a batch of {batch_size} for {ranks.size} processes; give a larger --batch-size")
    feed = StreamFeed(config, data, batch_size, max(2, ranks.size)) if data.stream else Feed(config, data, batch_size)
    ended, before = "finished", at.seconds
    label = f"training  {config.tower} towers, {config.loss}" + (f", {config.negatives}" * (config.loss == "triplet"))
    with interruption() as interrupted, console.progress(label, config.epochs * feed.steps) as bar:
        bar.advance(at.step)
        for epoch in range(at.epoch, config.epochs + 1):
            at.epoch = epoch
            clock, first = time.perf_counter(), at.losses
            model.train()
            for batch in feed.rest_of_epoch(at, loss_of):
                set_rate_factor(optimizers, feed.done(at), config.warmup)
                loss = loss_of(batch[:, 0], batch[:, 1])
                value = loss.item()
                at.took(value)
                if not math.isfinite(value):
                    ended = "diverged"
                    break
                for optimizer in optimizers:
                    optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                ranks.exchange(model.parameters(), [loss_of.temperature.weight])
                clip(optimizers, config.clip_norm)
                for optimizer in optimizers:
                    optimizer.step()
                at.seconds = before + time.perf_counter() - started
                if at.step == 1 or at.step % config.log_every == 0:
                    tracker.log({"batch_loss": value, "epoch": epoch, "total_parameters": parameters}, at.step)
                rate = (at.losses - first) * batch_size / (time.perf_counter() - clock)
                bar.advance(note=f"epoch {epoch}/{config.epochs}  loss {value:.4f}  {rate:,.0f} pairs/s")
                if ranks.any(interrupted()):
                    ended = "interrupted"
                    checkpoints.write(parts, at)
                    break
                checkpoints.tick(parts, at)
            model.train(False)
            if ended == "diverged" or not ranks.from_first(lambda: float(_sound(model, data))):
                ended = "diverged"  # the weights can be ruined with no loss after it, or none that would tell
                break
            score = ranks.from_first(lambda: validate(model, data))
            mean = at.loss / at.losses if at.losses else math.nan
            found = {"epoch": epoch, "avg_train_loss": mean, "val_ndcg_10": score}
            at.history.append({"step": at.step, **found})
            tracker.log(found, at.step)
            at.window = at.taken = at.losses = 0
            at.loss = 0.0
            if at.best is None or score > at.best.score:
                weights = {name: weight.detach().clone() for name, weight in model.tensors().items()}
                at.best = Best(score, epoch, weights, accumulators(model, optimizers))
            if ended == "interrupted":  # before `on_epoch`, whose exception would swallow it
                break
            if on_epoch:
                on_epoch(epoch, score)
            if config.patience and epoch - at.best.epoch >= config.patience:
                ended = "patience"
                break
            if config.self_mine_every and epoch % config.self_mine_every == 0 and epoch < config.epochs:
                loss_of.take_negatives(mine(model, data, MiningConfig(by="model")).negatives)

    if at.best is None:
        raise UserError(f"the loss is not a number at step {at.step}, in the first epoch; lower --learning-rate")
    with torch.no_grad():
        for name, weight in model.tensors().items():
            weight.copy_(at.best.weights[name])
    model.accumulators = at.best.accumulators
    tracker.summary({"val_ndcg_10": at.best.score, "best_epoch": at.best.epoch})
    seconds = before + time.perf_counter() - started
    course = at.untrained, at.history, at.curve
    return TrainingResult(model, at.best.score, at.best.epoch, *course, pairs, at.step, seconds, ended)


def train_and_save(
    config: TrainConfig, console: Console = QUIET, saved: Saved | None = None, anyway: bool = False
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
    ranks = ranks_of(pick_device(config.device))  # a wrong one is said before the data is read
    data: TrainingData = ranks.in_turn(lambda: prepare(config, console))
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
        with ranks.together():
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


def save(config: TrainConfig, data: TrainingData, result: TrainingResult, output: Path) -> None:
    """Write the model folder of a training, with its record, its card, and the course that it took."""
    result.model.record = record_of(config, data, result)
    course = Course(result.curve, result.history, result.untrained_ndcg_10)
    result.model.save(output, write_card(config, result.model.record, output.name), course.write)


def record_of(config: TrainConfig, data: TrainingData, result: TrainingResult) -> dict[str, Any]:
    """What a model folder remembers of its training."""
    validation = data.validation
    low, high = interval_of_ndcg_10(_top_10(result.model, data), validation)
    return {
        "version": version("two-towers"),
        "data": data.name,
        "pairs": result.pairs,
        "dim": result.model.dim,
        "config": dataclasses.asdict(config),
        "ended": result.ended,
        "scores": {
            "ndcg@10": round(result.val_ndcg_10, 6),
            "untrained_ndcg@10": round(result.untrained_ndcg_10, 6),
            "best_epoch": result.best_epoch,
            "interval_95": {"ndcg@10": [round(low, 6), round(high, 6)]},
        },
        "validation": {
            "collection": validation.name,
            "protocol": protocol_of(validation),
            "queries": len(validation.queries),
            "documents": len(validation.documents),
        },
    }


def default_output(names: Sequence[str]) -> str:
    """Where a model goes when nothing is said: ``models/`` and the names of its data sets."""
    return "models/" + "+".join(Path(name).stem for name in names)


def validate(model: TwoTowersModel, data: TrainingData) -> float:
    """NDCG@10 over the whole validation corpus."""
    return ndcg_10(_top_10(model, data), data.validation)


def _top_10(model: TwoTowersModel, data: TrainingData) -> Ranking:
    queries = model.encode_query_tokens(data.validation_queries)
    documents = model.encode_document_tokens(data.validation_documents)
    return top_k(queries, documents, 10 + bool(data.validation.self_matches))


def _sound(model: TwoTowersModel, data: TrainingData) -> bool:
    """Whether the weights are finite and most validation passages have a vector: one too long to measure becomes 0."""
    vectors = model.encode_document_tokens(
        data.validation_documents.slice(0, min(1000, len(data.validation_documents)))
    )
    told = bool((vectors != 0).any(1).float().mean() > 0.5)
    return told and all(bool(weight.isfinite().all()) for weight in model.parameters())


def batch_size_for(config: TrainConfig, pairs: int) -> int:
    """The batch size in pairs; ``UserError`` when there are fewer pairs than were asked for in one batch."""
    if config.batch_size is None:
        # A large batch has hard negatives, but an epoch needs its steps.
        fitting = 1 << int(math.log2(max(pairs / STEPS_OF_AN_EPOCH, 1)))
        return min(max(MIN_BATCH, fitting), MAX_BATCH[config.tower], pairs)
    if config.batch_size > pairs:
        raise UserError(
            f"--batch-size is {config.batch_size} but there are {pairs} training pairs; give {pairs} or less"
        )
    return config.batch_size
