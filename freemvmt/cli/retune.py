"""`two-towers retune`: give a bundle another query tower, over the same vectors."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freemvmt.cli.parsing import BundleArgument, Options, parse
from freemvmt.config import DataConfig, Loss, LossConfig, OptimizerConfig, TrainConfig, changed_flags
from freemvmt.errors import UserError
from freemvmt.runtime.console import Console, pasteable

if TYPE_CHECKING:
    from freemvmt.trainer.result import TrainingResult

_SECTIONS = (DataConfig, LossConfig, OptimizerConfig)


@dataclass(frozen=True, kw_only=True)
class RetuneOptions(OptimizerConfig, LossConfig, DataConfig, Options):
    """Give a bundle another query tower over the same vectors: trained on --dataset, taken from the model --queries, or
    the one before (--back). Vectors, texts and indexes stay as they are, and a server answers with it at once."""

    bundle: BundleArgument
    dataset: tuple[str, ...] = ()
    """Train on these, from the bundle's own query tower: anything that `train` takes. Queries alone learn by --loss
    align; a second data set gives the passages to validate on."""
    queries: str | None = None
    """Install the query tower of this model, a folder or a Hub name, which was trained over the bundle's document
    tower."""
    back: bool = False
    """Install the query tower that was installed before. Twice: as it was."""
    even_if_worse: bool = False
    """With --dataset: install the trained tower also where its validation NDCG@10 is lower than before."""
    loss: Loss = "infonce"
    """What labels are learned by, over the frozen documents; see `train`."""

    def __post_init__(self) -> None:
        given = [bool(self.dataset), self.queries is not None, self.back]
        if sum(given) != 1:
            raise UserError(
                "where the query tower comes from is not clear; give one of --dataset, --queries and --back"
            )
        if self.dataset:
            for section in _SECTIONS:
                section.__post_init__(self)


def retune(argv: Sequence[str]) -> int:
    """Give a bundle another query tower, without indexing it again."""
    options = parse(RetuneOptions, argv, "two-towers retune")
    from freemvmt.model import TwoTowersModel
    from freemvmt.search.bundle.queries import check_swappable, go_back, install

    console, bundle = options.console(), Path(options.bundle)
    check_swappable(bundle)
    scores: dict[str, Any] = {}
    clock = time.perf_counter()
    if options.back:
        manifest = go_back(bundle)
    elif options.queries is not None:
        manifest = install(bundle, TwoTowersModel.load(options.queries), "retune --queries")
    else:
        result, card = _train(options, console)
        scores = {"before": round(result.untrained_ndcg_10, 6), "after": round(result.val_ndcg_10, 6)}
        console.line(
            f"val ndcg@10  before {result.untrained_ndcg_10:.4f}, after {result.val_ndcg_10:.4f} "
            f"(epoch {result.best_epoch} of {len(result.history)})"
        )
        if result.ended == "interrupted":
            console.line(f"stopped   {bundle} is as it was")
            return options.finish({"bundle": str(bundle), "installed": False, **scores}, 1)
        if result.val_ndcg_10 < result.untrained_ndcg_10 and not options.even_if_worse:
            console.line(
                f"kept      the query tower of {bundle}: the trained one is worse; --even-if-worse installs it"
            )
            return options.finish({"bundle": str(bundle), "installed": False, **scores})
        manifest = install(bundle, result.model, "retune --dataset", card)
    by = manifest["model"]["queries"]["by"]
    console.line(f"installed the query tower by `{by}` in {bundle}", time.perf_counter() - clock)
    console.line("next      " + pasteable(f"two-towers retune {bundle} --back") + "      the one before")
    return options.finish({"bundle": str(bundle), "installed": True, **scores, "model": manifest["model"]})


def _train(options: RetuneOptions, console: Console) -> "tuple[TrainingResult, str]":
    """Train the query tower of the bundle over its frozen document tower; the result, and the card of its model."""
    from freemvmt.data.load import load
    from freemvmt.model import TwoTowersModel
    from freemvmt.search.stores.layout import MODEL_FOLDER
    from freemvmt.storage.model_card import write_card
    from freemvmt.trainer.dataset import prepare
    from freemvmt.trainer.result import record_of
    from freemvmt.training import train

    bundle = Path(options.bundle)
    start = TwoTowersModel.load(bundle / MODEL_FOLDER).with_own_queries()
    names = {field.name for section in _SECTIONS for field in dataclasses.fields(section)}
    config = TrainConfig(
        **dataclasses.asdict(start.config),
        **{name: getattr(options, name) for name in names},
        freeze="documents",
        idf_scale=0.0,
        wandb=False,
    )
    dataset = load(config)
    if not dataset.train.positives.lengths.all():
        config = dataclasses.replace(config, loss="align")
    data = prepare(config, console, start.tokenizer, start, dataset)
    result = train(config, data, console=console)
    if result.ended == "diverged":
        raise UserError(f"the loss is not a number at step {result.steps}; lower --learning-rate")
    result.model.accumulators = {}
    result.model.record = record_of(config, data, result) | {
        "retuned": ["two-towers", "retune", str(bundle), *changed_flags(config, names)]
    }
    return result, write_card(config, result.model.record, bundle.name, result.model.sentence)
