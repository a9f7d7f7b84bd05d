"""The parts of a model before its first training: token vectors, heads and transformers from a base model."""

from torch import Tensor, nn

from freemvmt.config import ModelConfig
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.errors import UserError
from freemvmt.storage import hub
from freemvmt.towers.parts import ModelParts, tensors_of
from freemvmt.towers.pretrained import encoded_rows, half_whitened, principal_directions, token_table
from freemvmt.towers.transformer import encoder_of, pretrained_tower


def initial_parts(config: ModelConfig) -> ModelParts:
    """The parts of the untrained model that ``config`` describes; ``UserError`` when its base does not allow it."""
    files = hub.base_files(config.base)
    tokenizer = Tokenizer.from_file(files.tokenizer, config.max_length)
    table = token_table(files.weights, tokenizer.vocabulary_size)
    encoder, tensors = None, dict[str, Tensor]()
    if "transformer" in config.kinds:
        folder = hub.encoder_folder(config.base, "--base")
        whole = pretrained_tower(folder)
        encoder = encoder_of(whole, tokenizer.definition)
    if set(config.kinds) != {"transformer"}:
        table = _rows(config, table)
    elif config.dim is not None and table.shape[1] != whole.width:
        table = encoded_rows(folder, len(table))  # a head is for outputs, which are not as wide as the table
    for side in config.sides:
        if config.kind_of(side) == "transformer":
            tensors |= tensors_of(side, whole, nn.Identity(), config)
        elif not (config.shared_table and side == "query"):
            tensors[f"{side}.table"] = table
        if config.dim is not None and config.dim != table.shape[1]:
            if config.dim > table.shape[1]:
                raise UserError(f"--dim is {config.dim} but the token table is {table.shape[1]} wide; give no more")
            tensors[f"{side}.head"] = principal_directions(table, config.dim)
    if len(config.sides) == 2:
        tensors |= {name: tensor.clone() for name, tensor in tensors.items() if name.startswith("query.")}
    return ModelParts(config, tokenizer, tensors, encoder)


def _rows(config: ModelConfig, table: Tensor) -> Tensor:
    """The token vectors that averages and recurrences start from, (vocabulary, width)."""
    if config.initial_rows == "table":
        return table
    outputs = encoded_rows(hub.encoder_folder(config.base, "--base"), len(table))
    return outputs if config.initial_rows == "encoded" else half_whitened(outputs, float(table.std()))
