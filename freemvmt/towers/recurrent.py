"""The recurrent tower: a recurrence reads a text's tokens in order and gives each of them a weight.

    vector = sum of w_t x_t / sum of w_t        w_t = exp(v . h_t), the exponent clamped to -3 .. 3

x_t is the token's row of the table, h_t the state of the recurrence at that token. The vector is a weighted sum of
token vectors, so a score can be split exactly over the tokens. ``--pooling mean`` takes the mean of the states, added
to the plain average (``residual``) or alone; ``--pooling both`` adds it to the weighted average.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from freemvmt.config import LOGIT_LIMIT, ModelConfig
from freemvmt.data.ragged import TokenArray
from freemvmt.towers.cells import Gru, Lstm, in_text_order
from freemvmt.towers.packing import Packing
from freemvmt.towers.sparse_rows import permute_rows, used_rows


class RecurrentTower(nn.Module):
    """Equals the average tower before training: all weights are 1, all additions 0 (unless ``residual`` is off)."""

    scale: Tensor

    def __init__(self, table: nn.Parameter, config: ModelConfig) -> None:
        super().__init__()
        self.table = table
        self.pooling, self.residual = config.pooling, config.residual
        self.hidden, self.dropout = config.hidden, config.dropout
        width = table.shape[1]
        shape = (width, config.hidden, config.layers, config.bidirectional, config.dropout)
        self.cell: Gru | Lstm = Gru(*shape) if config.cell == "gru" else Lstm(*shape)
        outputs = {"weighted": 1, "mean": width, "both": 1 + width}[config.pooling]  # a weight, a vector, or both
        self.output = nn.Linear(config.hidden * (1 + config.bidirectional), outputs, bias=False)
        if config.pooling != "mean" or config.residual:
            nn.init.zeros_(self.output.weight)
        self.register_buffer("scale", torch.ones(()))
        self.measure()

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self.table.shape[1]

    def train_in(self, precision: torch.dtype) -> None:
        """Compute the recurrence's matrix products in ``precision`` during training; encoding always uses float32."""
        self.cell.precision = precision

    def measure(self) -> None:
        """Set the scale that gives the recurrence rows of unit variance; call it after the table was scaled."""
        if not self.table.is_meta:
            self.scale.copy_(1 / self.table.detach().std().clamp(min=1e-6))

    def forward(self, tokens: TokenArray) -> Tensor:
        """(texts, width) float32 on the table's device; a text without tokens gives zeros."""
        if len(tokens.ids) == 0:
            return self.table.new_zeros(len(tokens), self.table.shape[1])
        offsets = torch.from_numpy(tokens.offsets).to(self.table.device)
        rows, places, states, packing = self._read(tokens)
        if self.pooling == "mean":
            vectors = F.embedding_bag(places, rows, offsets, mode="mean", include_last_offset=True)
        else:
            shares = self._shares(states, packing, tokens)
            vectors = F.embedding_bag(
                places, rows, offsets, mode="sum", per_sample_weights=shares, include_last_offset=True
            )
        if self.pooling == "weighted":
            return vectors
        numbers = torch.arange(len(tokens.ids), device=self.table.device)
        every_state = in_text_order(states, packing)
        pooled = F.embedding_bag(numbers, every_state, offsets, mode="mean", include_last_offset=True)
        additions = F.linear(pooled, self.to_vector)
        return additions + vectors if self.pooling == "both" or self.residual else additions

    @property
    def to_vector(self) -> Tensor:
        """The rows of the output that turn a state into a vector, (width, states)."""
        return self.output.weight[1:] if self.pooling == "both" else self.output.weight

    def split(self, tokens: TokenArray) -> Tensor:
        """What each token adds to its text's vector, (tokens, width); the sum over a text is ``forward``."""
        if len(tokens.ids) == 0:
            return self.table.new_zeros(0, self.table.shape[1])
        rows, places, states, packing = self._read(tokens)
        lengths = torch.from_numpy(tokens.lengths).to(rows.device)
        vectors = rows[places]
        if self.pooling != "mean":
            vectors = vectors * self._shares(states, packing, tokens).unsqueeze(1)
        if self.pooling == "weighted":
            return vectors
        per_token = 1 / torch.repeat_interleave(lengths, lengths).unsqueeze(1)
        additions = F.linear(in_text_order(states, packing), self.to_vector) * per_token
        if self.pooling == "both":
            return additions + vectors
        return additions + vectors * per_token if self.residual else additions

    def _read(self, tokens: TokenArray) -> tuple[Tensor, Tensor, list[Tensor], Packing]:
        """(the used rows, the position of each token's row in them, the states of each direction, the packing)."""
        device = self.table.device
        rows, places = used_rows(self.table, torch.from_numpy(tokens.ids.astype(np.int64)).to(device))
        inputs = F.dropout(rows * self.scale, self.dropout, self.training)
        packing = Packing.of(tokens.lengths, device)
        return rows, places, self.cell(inputs, places, packing), packing

    def _shares(self, states: list[Tensor], packing: Packing, tokens: TokenArray) -> Tensor:
        """Each token's weight divided by the sum of its text's weights, (tokens,)."""
        logits = torch.zeros(1, device=self.table.device)
        directions = zip(
            states, torch.split(self.output.weight[:1], self.hidden, 1), packing.orders(len(states) == 2), strict=True
        )
        for states_of_direction, weight, order in directions:
            logits = logits + permute_rows(states_of_direction @ weight[0], order.places, order.tokens)
        weights = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT).exp()
        text_of_token = torch.repeat_interleave(torch.from_numpy(tokens.lengths)).to(weights.device)
        totals = weights.new_zeros(len(tokens)).index_add(0, text_of_token, weights)
        shares: Tensor = weights / totals[text_of_token]
        return shares
