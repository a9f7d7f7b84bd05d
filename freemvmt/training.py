"""Training, on one screen: ``prepare`` reads and tokenises, ``train`` runs the loop and keeps the best epoch.

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

import numpy as np
import torch

from freemvmt import hub
from freemvmt.config import TrainConfig
from freemvmt.console import QUIET, Console
from freemvmt.devices import pick_device
from freemvmt.errors import UserError
from freemvmt.evaluation import ndcg_10, protocol_name
from freemvmt.files import cache_folder
from freemvmt.learning.batches import BatchLoss, Taught
from freemvmt.learning.card import write_card
from freemvmt.learning.interruption import interruption
from freemvmt.learning.optimizers import clip, optimizers_for, set_rate_factor
from freemvmt.learning.teacher import Teacher
from freemvmt.learning.tracking import Tracker, start
from freemvmt.model import TwoTowersModel
from freemvmt.model_files import check_output
from freemvmt.search.exact import top_k
from freemvmt.text.arrays import TokenArray
from freemvmt.text.corpus import Collection, Examples
from freemvmt.text.sources import load
from freemvmt.text.tokens import Tokenizer
from freemvmt.towers.pretrained import idf

MIN_BATCH, STEPS_OF_AN_EPOCH = 32, 5  # what --batch-size None keeps to
MAX_BATCH = {"average": 8192, "recurrent": 2048}  # a recurrence keeps some 10 KB a token of a batch


@dataclass(frozen=True, eq=False)
class TrainingData:
    """A data set, tokenised: all that the loop reads. A sweep makes it once."""

    name: str
    examples: Examples
    queries: TokenArray
    passages: TokenArray
    validation: Collection
    validation_queries: TokenArray
    validation_documents: TokenArray
    taught: Taught | None = None


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
    pairs: int
    steps: int
    seconds: float
    ended: str


def prepare(config: TrainConfig, console: Console = QUIET) -> TrainingData:
    """Read what ``config.dataset`` names and tokenise it (from the cache where it was tokenised before)."""
    started = time.perf_counter()
    tokenizer = Tokenizer.from_file(hub.base_files(config.base).tokenizer, config.max_length)
    data = load(config)
    folder = cache_folder() / "tokens"
    train, validation = data.train, data.validation
    taught = None
    if config.distill:
        length = config.train_length or config.max_length
        teacher = Teacher(config.teacher, length, pick_device(config.device))
        taught = Taught(
            teacher.vectors(train.queries, "queries", console), teacher.vectors(train.passages, "documents", console)
        )
    prepared = TrainingData(
        name=data.name,
        examples=train,
        queries=tokenizer.encode_cached(train.queries, folder),
        passages=tokenizer.encode_cached(train.passages, folder),
        validation=validation,
        validation_queries=tokenizer.encode_cached(validation.queries, folder),
        validation_documents=tokenizer.encode_cached(validation.documents, folder),
        taught=taught,
    )
    console.line(
        f"reading   {data.name}: {len(train.queries):,} queries, {len(train.passages):,} passages; "
        f"held out {len(validation.queries):,} queries over {len(validation.documents):,} passages",
        time.perf_counter() - started,
    )
    return prepared


def train(
    config: TrainConfig,
    data: TrainingData | None = None,
    *,
    tracker: Tracker | None = None,
    console: Console = QUIET,
    on_epoch: Callable[[int, float], None] | None = None,
) -> TrainingResult:
    """Train by ``config`` and return the best epoch's model; nothing is written.

    ``on_epoch`` is told (epoch, validation NDCG@10) after each epoch; what it raises ends the training. SIGINT and
    SIGTERM end the step, measure, and return what is best so far. A loss that is not finite ends the training before
    it reaches the weights; ``UserError`` if that is in the first epoch.
    """
    data = data or prepare(config, console)
    tracker = tracker or Tracker()
    started = time.perf_counter()
    torch.manual_seed(config.seed)
    model = TwoTowersModel(config.model_config()).to(pick_device(config.device))
    untrained = validate(model, data)
    if config.idf_scale:
        scale_by_idf(model, data.passages, config.idf_scale)
    loss_of = BatchLoss(config, model, data.examples, data.queries, data.passages, data.taught)
    optimizers = optimizers_for(model, config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tracker.watch(model, config.watch_every)
    tracker.summary({"total_parameters": parameters, "untrained_val_ndcg_10": untrained})

    pairs = np.stack(data.examples.pairs(), axis=1)  # (pairs, 2): query, passage
    batch_size = batch_size_for(config, len(pairs))
    steps = math.ceil(len(pairs) / batch_size)
    step, ended, history = 0, "finished", []
    best: tuple[float, int, dict[str, torch.Tensor]] | None = None  # score, epoch, weights
    label = f"training  {config.tower} towers, {config.loss}" + (f", {config.negatives}" * (config.loss == "triplet"))
    with interruption() as interrupted, console.progress(label, config.epochs * steps) as bar:
        for epoch in range(1, config.epochs + 1):
            shuffled = pairs[np.random.default_rng([config.seed, epoch]).permutation(len(pairs))]
            losses, clock = [], time.perf_counter()
            model.train()
            for batch in np.array_split(shuffled, steps):
                set_rate_factor(optimizers, 1 - step / (config.epochs * steps))  # linear decay to 0
                loss = loss_of(batch[:, 0], batch[:, 1])
                step += 1
                losses.append(loss.item())
                if not math.isfinite(losses[-1]):
                    ended = "diverged"
                    break
                for optimizer in optimizers:
                    optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                clip(optimizers, config.clip_norm)
                for optimizer in optimizers:
                    optimizer.step()
                if step == 1 or step % config.log_every == 0:
                    tracker.log({"batch_loss": losses[-1], "epoch": epoch, "total_parameters": parameters}, step)
                rate = len(losses) * batch_size / (time.perf_counter() - clock)
                bar.advance(note=f"epoch {epoch}/{config.epochs}  loss {losses[-1]:.4f}  {rate:,.0f} pairs/s")
                if interrupted():
                    ended = "interrupted"
                    break
            model.train(False)
            if ended == "diverged" or not _sound(model, data):
                ended = "diverged"  # the weights can be ruined with no loss after it, or none that would tell
                break
            score = validate(model, data)
            history.append({"epoch": epoch, "avg_train_loss": float(np.mean(losses)), "val_ndcg_10": score})
            tracker.log(history[-1], step)
            if best is None or score > best[0]:
                best = score, epoch, {name: weight.clone() for name, weight in model.state_dict().items()}
            if ended == "interrupted":  # before `on_epoch`, whose exception would swallow it
                break
            if on_epoch:
                on_epoch(epoch, score)
            if config.patience and epoch - best[1] >= config.patience:
                ended = "patience"
                break

    if best is None:
        raise UserError(f"the loss is not a number at step {step}, in the first epoch; lower --learning-rate")
    model.load_state_dict(best[2])
    tracker.summary({"val_ndcg_10": best[0], "best_epoch": best[1]})
    seconds = time.perf_counter() - started
    return TrainingResult(model, best[0], best[1], untrained, history, len(pairs), step, seconds, ended)


def train_and_save(config: TrainConfig, console: Console = QUIET) -> tuple[TrainingResult, Path]:
    """What `two-towers train` does: check the output folder, prepare, train, track, save with a card.

    Raises ``UserError`` when nothing could be saved, and also when the loss diverged after some good epochs; the best
    of those is saved all the same, and the error says where.
    """
    output = Path(config.output or default_output(config.dataset))
    check_output(output)
    pick_device(config.device)  # a wrong one is said before the data is read
    data = prepare(config, console)
    if config.output is None:
        output = Path(default_output(data.name.split(" + ")))  # `auto` has become a name
        check_output(output)
    tracker = start(config, extra={"data": data.name, "pairs": len(data.examples.positives.ids)})
    failed = True
    try:
        result = train(config, data, tracker=tracker, console=console)
        save(config, data, result, output)
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
    """Write the model folder of a training, with its record and its card."""
    result.model.record = record_of(config, data, result)
    result.model.save(output, write_card(config, result.model.record, output.name))


def record_of(config: TrainConfig, data: TrainingData, result: TrainingResult) -> dict[str, Any]:
    """What a model folder remembers of its training."""
    validation = data.validation
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
        },
        "validation": {
            "collection": validation.name,
            "protocol": protocol_name("full", len(validation.documents)),
            "queries": len(validation.queries),
            "documents": len(validation.documents),
        },
    }


def default_output(names: Sequence[str]) -> str:
    """Where a model goes when nothing is said: ``models/`` and the names of its data sets."""
    return "models/" + "+".join(Path(name).stem for name in names)


def validate(model: TwoTowersModel, data: TrainingData) -> float:
    """NDCG@10 over the whole validation corpus."""
    queries = model.encode_query_tokens(data.validation_queries)
    documents = model.encode_document_tokens(data.validation_documents)
    return ndcg_10(top_k(queries, documents, 10), data.validation)


def scale_by_idf(model: TwoTowersModel, passages: TokenArray, scale: float) -> None:
    """Multiply each token's row by ``scale`` times its inverse document frequency in ``passages``.

    A plain average counts "the" as much as "aspirin"; this start does not, and the loss takes it from there.
    """
    weights = torch.from_numpy(idf(passages, model.tokenizer.vocabulary_size)).to(model.device) * scale
    for table in model.tables():
        table.data[: len(weights)] *= weights.unsqueeze(1)
    for tower in model.towers():
        tower.measure()


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
