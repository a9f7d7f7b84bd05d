"""Which tower a configuration asks for."""

from torch import nn

from freemvmt.config import ModelConfig
from freemvmt.towers.average import AverageTower
from freemvmt.towers.recurrent import RecurrentTower

Tower = AverageTower | RecurrentTower


def make_tower(config: ModelConfig, table: nn.Parameter) -> Tower:
    """The tower over ``table`` (vocabulary, width)."""
    return RecurrentTower(table, config) if config.tower == "recurrent" else AverageTower(table)
