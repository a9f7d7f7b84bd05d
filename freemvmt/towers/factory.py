"""Which tower a configuration asks for."""

from torch import nn

from freemvmt.config import ModelConfig
from freemvmt.towers.average import AverageTower
from freemvmt.towers.recurrent import RecurrentTower
from freemvmt.towers.transformer import Encoder, TransformerTower

Tower = AverageTower | RecurrentTower | TransformerTower


def make_tower(config: ModelConfig, table: nn.Parameter, encoder: Encoder | None = None) -> Tower:
    """The tower over ``table`` (vocabulary, width); a transformer is what ``encoder`` describes."""
    if config.tower == "transformer":
        assert encoder is not None
        return TransformerTower(table, encoder.module(), encoder.before, encoder.after)
    return RecurrentTower(table, config) if config.tower == "recurrent" else AverageTower(table)
