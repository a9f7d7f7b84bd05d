"""What the weights of a training start from: a trained model, or a table that is scaled."""

import torch
from torch import Tensor

from freemvmt.data.ragged import TokenArray
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.storage import hub
from freemvmt.towers.model_folder import ACCUMULATORS, check_files, read_description, read_tensors
from freemvmt.towers.pretrained import idf


@torch.no_grad()
def warm_start(model: TwoTowersModel, name: str) -> dict[str, Tensor]:
    """Give ``model`` the tables of the model ``name``, and every other weight that has the same name and shape in both.

    Returns the accumulators of those tables, (rows,) by table, if they were kept: without them the first steps are as
    long as those of rows that were never trained. A query tower of its own starts from the one tower of ``name``, if
    that has but one.

    Raises ``UserError`` where the two do not read with the same tokenizer or their tables differ in shape.
    """
    folder = hub.local_folder(name) or hub.model_folder(name)
    other = TwoTowersModel.load(folder)
    if other.tokenizer.definition != model.tokenizer.definition:
        base = other.config.base
        raise UserError(
            f"--init {name} reads with another tokenizer than --base {model.config.base}; give --base {base}"
        )
    own, given = model.tensors(), other.tensors()
    for table in model.tables():
        have, want = tuple(_of(given, table).shape), tuple(own[table].shape)
        if have != want:
            raise UserError(f"--init {name} has a table of {have}, this model one of {want}; give the same --base")
        own[table].copy_(_of(given, table))
    for tower in model.towers():
        tower.measure()
    for key, weight in own.items():
        found = given.get(key, given.get(_shared(key)))
        if found is not None and found.shape == weight.shape:
            weight.copy_(found)
    path = folder / ACCUMULATORS
    if not path.exists():
        return {}
    check_files(folder, read_description(folder / "config.json"), ACCUMULATORS)
    sums = read_tensors(path)
    if any(tensor.ndim != 1 or len(tensor) != len(own["document.table"]) for tensor in sums.values()):
        raise UserError(f"{path} does not fit the model beside it; save the model again")
    return {table: _of(sums, table) for table in model.tables() if table in sums or _shared(table) in sums}


def _of(tensors: dict[str, Tensor], name: str) -> Tensor:
    return tensors[name] if name in tensors else tensors[_shared(name)]


def _shared(name: str) -> str:
    """What ``name`` is called where one tower serves both sides."""
    return name.replace("query.", "document.", 1)


def scale_by_idf(model: TwoTowersModel, passages: TokenArray, scale: float) -> None:
    """Multiply each token's row by ``scale`` times its inverse document frequency in ``passages``.

    A plain average counts "the" as much as "aspirin"; this start does not, and the loss takes it from there.
    """
    weights = torch.from_numpy(idf(passages, model.tokenizer.vocabulary_size)).to(model.device) * scale
    for table in model.tables().values():
        table.data[: len(weights)] *= weights.unsqueeze(1)
    for tower in model.towers():
        tower.measure()
