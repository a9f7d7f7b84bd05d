"""The initial weights of a training: those of a trained model, or a scaled token table."""

import torch
from torch import Tensor

from freemvmt.config import TrainConfig
from freemvmt.data.ragged import TokenArray
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.storage import hub
from freemvmt.towers.model_folder import ACCUMULATORS, check_files, read_description
from freemvmt.towers.pretrained import idf
from freemvmt.towers.stored_parts import read_tensors


def initial_model(config: TrainConfig) -> TwoTowersModel:
    """The model that a training by ``config`` starts from, before its rows are scaled."""
    model = TwoTowersModel(config.model_config())
    if config.init:
        warm_start(model, config.init)
    return model


@torch.no_grad()
def warm_start(model: TwoTowersModel, name: str) -> dict[str, Tensor]:
    """Copy the tables of the model ``name`` to ``model``, and every other weight with the same name and shape in both.

    Returns the accumulators of the tables, (rows,) by table, if they were saved. Without them the first steps are as
    long as those of untrained rows. If ``name`` has one tower for both sides, a separate query tower starts from it.

    Raises ``UserError`` when the tokenizers or the shapes of the tables differ.
    """
    folder = hub.local_folder(name) or hub.model_folder(name)
    other = TwoTowersModel.load(folder)
    if other.tokenizer.definition != model.tokenizer.definition:
        base = other.config.base
        raise UserError(
            f"--init {name} reads with another tokenizer than --base {model.config.base}; give --base {base}"
        )
    target, source = model.tensors(), other.tensors()
    for table in model.tables():
        source_shape, target_shape = tuple(_tensor_for(source, table).shape), tuple(target[table].shape)
        if source_shape != target_shape:
            raise UserError(
                f"--init {name} has a table of {source_shape}, this model one of {target_shape}; give the same --base"
            )
        target[table].copy_(_tensor_for(source, table))
    for tower in model.towers().values():
        tower.measure()
    for key, weight in target.items():
        source_weight = source.get(key, source.get(_document_name(key)))
        if source_weight is not None and source_weight.shape == weight.shape:
            weight.copy_(source_weight)
    path = folder / ACCUMULATORS
    if not path.exists():
        return {}
    check_files(folder, read_description(folder / "config.json"), ACCUMULATORS)
    sums = read_tensors(folder, [ACCUMULATORS])
    if any(tensor.ndim != 1 or len(tensor) != len(target["document.table"]) for tensor in sums.values()):
        raise UserError(f"{path} does not fit the model beside it; save the model again")
    return {
        table: _tensor_for(sums, table) for table in model.tables() if table in sums or _document_name(table) in sums
    }


def _tensor_for(tensors: dict[str, Tensor], name: str) -> Tensor:
    return tensors[name] if name in tensors else tensors[_document_name(name)]


def _document_name(name: str) -> str:
    """The name of a weight in a model with one tower for both sides."""
    return name.replace("query.", "document.", 1)


def scale_by_idf(model: TwoTowersModel, passages: TokenArray, scale: float) -> None:
    """Multiply each row that learns by ``scale`` times its inverse document frequency in ``passages``.

    A plain average weights "the" as much as "aspirin". This start does not, and training adjusts it further.
    """
    weights = torch.from_numpy(idf(passages, model.tokenizer.vocabulary_size)).to(model.device) * scale
    for table in model.learning_tables().values():
        factors = torch.ones(len(table), device=table.device)
        factors[: len(weights)] = weights
        # Not in place: the table may be mapped from its file, and to copy such pages one by one takes twice the time.
        table.data = table.data * factors.unsqueeze(1)
    for tower in model.towers().values():
        tower.measure()
