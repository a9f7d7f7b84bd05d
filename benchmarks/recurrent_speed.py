"""How fast does a recurrent tower train? Tokens a second, forwards and backwards, beside a plain loop over nn.GRU.

    uv run --group bench python benchmarks/recurrent_speed.py --data FOLDER

The peer is what one writes first: rows of an embedding, padded to the longest text, nn.GRU over all of it, a weight for
each token, a weighted mean; and the same with PyTorch's packed sequences, whose vectors do not depend on the padding:
they are compared with ours. Ours is the recurrent tower with the same GRU, and with each other cell; "bf16" is how
`two-towers train` runs it where the processor multiplies bf16: matrix products in bf16, all else in fp32.
"""

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import record
import torch
from passages import passages
from rounds import in_turns, summary
from torch import Tensor, nn
from torch.nn.utils import rnn

from freemvmt.config import ModelConfig
from freemvmt.data.ragged import TokenArray
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.devices import keep_freed_memory
from freemvmt.towers.recurrent import RecurrentTower

PROTOCOL = (
    "{texts:,} real passages, cut at {length} tokens, in batches of {batch:,} in random order; a bidirectional "
    "recurrence of 2 x 192 over rows of 384; forwards, the mean of products with fixed vectors, backwards to "
    "the table and all weights, no optimizer; fp32 but where bf16 is said; freed memory is kept; a round gives "
    "each its turn, ratios within a round, their median"
)
WIDTH, HIDDEN = 384, 192
LARGEST_DIFFERENCE = 1e-5


class Plain(nn.Module):
    """The plain loop, with the weights of ``tower``."""

    def __init__(self, tower: RecurrentTower, packs: bool) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(tower.table.detach().clone(), freeze=False, sparse=True)
        self.gru = nn.GRU(WIDTH, HIDDEN, bidirectional=True, batch_first=True)
        self.gru.load_state_dict(tower.cell.recurrence.state_dict())
        self.output = nn.Linear(2 * HIDDEN, 1, bias=False)
        self.output.load_state_dict(tower.output.state_dict())
        self.scale, self.packs = float(tower.scale), packs

    def forward(self, tokens: TokenArray) -> Tensor:
        """(texts, width)."""
        lengths = torch.from_numpy(tokens.lengths)
        texts = torch.from_numpy(tokens.ids).long().split(lengths.tolist())
        ids = rnn.pad_sequence(list(texts), batch_first=True)
        inside = torch.arange(ids.shape[1]) < lengths.unsqueeze(1)
        rows = self.table(ids)
        if self.packs:
            packed = rnn.pack_padded_sequence(rows * self.scale, lengths, batch_first=True, enforce_sorted=False)
            states, _ = rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        else:
            states, _ = self.gru(rows * self.scale)
        weights = self.output(states).squeeze(2).clamp(-3, 3).exp() * inside
        return (weights.unsqueeze(2) * rows).sum(1) / weights.sum(1, keepdim=True)


def main() -> int:
    """Measure, print, write results/recurrent_speed.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--texts", type=int, default=8192)
    arguments.add_argument("--length", type=int, default=64)
    arguments.add_argument("--batch", type=int, default=1024)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    record.require_quiet()
    torch.manual_seed(0)
    keep_freed_memory()
    start = TwoTowersModel()
    tokens = start.tokenizer.encode(passages(given.data, given.texts)[0]).cut(given.length)
    tokens = tokens.take(np.random.default_rng(0).permutation(len(tokens)))
    batches = [tokens.slice(at, at + given.batch) for at in range(0, len(tokens), given.batch)]
    wanted = torch.randn(given.batch, WIDTH)

    towers = {
        cell: RecurrentTower(
            nn.Parameter(start.document_tower.table.detach().clone()),
            ModelConfig(tower="recurrent", cell=cell, hidden=HIDDEN, dropout=0.0),
        )
        for cell in ("gru", "lstm")
    }
    for tower in towers.values():
        nn.init.normal_(tower.output.weight, std=0.1)
    in_bf16 = {"gru bf16": copy.deepcopy(towers["gru"])}
    in_bf16["gru bf16"].train_in(torch.bfloat16)
    peers = {"padded nn.GRU": Plain(towers["gru"], packs=False), "packed nn.GRU": Plain(towers["gru"], packs=True)}
    with torch.no_grad():
        difference = float((towers["gru"](batches[0]) - peers["packed nn.GRU"](batches[0])).abs().max())
    if difference > LARGEST_DIFFERENCE:
        raise SystemExit(f"the vectors differ by {difference}")

    def way(module: nn.Module) -> Callable[[], None]:
        def train() -> None:
            for batch in batches:
                module.zero_grad()
                (module(batch) * wanted[: len(batch)]).mean().backward()

        return train

    found = summary(
        in_turns({name: way(module) for name, module in (in_bf16 | towers | peers).items()}, given.rounds), "gru bf16"
    )
    count = len(tokens.ids)
    for figures in found.values():
        figures["tokens_per_second"] = round(count / figures["seconds"])
    protocol = PROTOCOL.format(texts=len(tokens), length=given.length, batch=given.batch)
    path = record.write("recurrent_speed", protocol, [0], {"tokens": count, "difference": difference, **found})
    for name, figures in found.items():
        sys.stdout.write(f"{name:14} {figures['tokens_per_second']:>9,} tokens/s  {figures.get('times_as_long', '')}\n")
    sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
