"""The towers that a configuration names."""

from torch import nn

from freemvmt.config import ModelConfig, TowerKind
from freemvmt.towers.average import AverageTower
from freemvmt.towers.recurrent import RecurrentTower
from freemvmt.towers.transformer import EncoderConfig, TransformerTower

Tower = AverageTower | RecurrentTower | TransformerTower


def make_tower(
    kind: TowerKind, config: ModelConfig, table: nn.Parameter, encoder: EncoderConfig | None = None
) -> Tower:
    """The tower of ``kind`` over ``table`` (vocabulary, width). ``encoder`` describes the transformer, if it is one."""
    if kind == "transformer":
        assert encoder is not None
        return TransformerTower(table, encoder.module(), encoder.sentence, encoder.tokenizer)
    return RecurrentTower(table, config) if kind == "recurrent" else AverageTower(table)
