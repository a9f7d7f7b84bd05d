"""What a model is made of. A base model, a model folder or a static model of another library gives the parts."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from freemvmt.config import ModelConfig, TowerName
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.towers.factory import Tower, make_tower
from freemvmt.towers.transformer import EncoderConfig


@dataclass(frozen=True)
class ModelParts:
    """``tensors`` are the weights by their stored names; ``encoder`` describes the transformer, if a tower is one.

    ``record`` describes the training: data, flags, scores.
    """

    config: ModelConfig
    tokenizer: Tokenizer
    tensors: dict[str, Tensor]
    encoder: EncoderConfig | None = None
    record: dict[str, Any] = field(default_factory=dict)

    def tower(self, side: TowerName, table: nn.Parameter) -> Tower:
        """The tower of a side over ``table``. Its other weights are those in ``tensors``, if it has any there."""
        tower = make_tower(self.config.kind_of(side), self.config, table, self.encoder)
        prefix = f"{side}.tower."
        own = {name.removeprefix(prefix): weight for name, weight in self.tensors.items() if name.startswith(prefix)}
        if own:
            tower.load_state_dict(own | {"table": tower.table})
        return tower

    def head(self, side: TowerName) -> nn.Module:
        """The head of a side; the identity where it has none."""
        return make_head(self.tensors.get(f"{side}.head"))


def make_head(weight: Tensor | None) -> nn.Module:
    """The linear head with ``weight`` (dim, width), or the identity."""
    if weight is None:
        return nn.Identity()
    dim, width = weight.shape
    head = nn.Linear(width, dim, bias=False)
    head.weight = nn.Parameter(weight)
    return head


def tensors_of(side: TowerName, tower: Tower, head: nn.Module, config: ModelConfig) -> dict[str, Tensor]:
    """The stored tensors of a side, by their names in the weight files. A shared table counts as the document's."""
    tensors = {f"{side}.tower.{name}": tensor for name, tensor in tower.state_dict().items() if name != "table"}
    if not (config.shared_table and side == "query"):
        tensors[f"{side}.table"] = tower.table
    if isinstance(head, nn.Linear):
        tensors[f"{side}.head"] = head.weight
    return tensors
