"""What is minimised. Vectors come in at length 1, so a cosine is a dot product and the distance is 1 - cosine.

Row i of ``queries`` belongs with row i of ``documents``; ``known`` (batch, batch) marks every pair that is known to
belong together, which is never a negative. Both directions count: a query against the batch's passages, and a passage
against the batch's queries.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from freemvmt.config import Negatives


def similarities(queries: Tensor, documents: Tensor, precision: torch.dtype) -> Tensor:
    """Cosines of all pairs, (batch, batch), multiplied in ``precision``."""
    return queries.to(precision) @ documents.to(precision).T


class TripletLoss:
    """max(0, margin + distance to the positive - distance to a negative), over the negatives that ``negatives`` names.

    ``hardest``: the nearest of the batch (Hermans et al. 2017, In Defense of the Triplet Loss); ``random``: one of the
    batch; ``all``: the mean over all of the batch that lie within the margin; ``given``: the row's own, passed as
    ``given``, with the hardest of the batch where a row has none.
    """

    def __init__(self, margin: float, negatives: Negatives, precision: torch.dtype, seed: int) -> None:
        self.margin, self.negatives, self.precision = margin, negatives, precision
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(
        self,
        queries: Tensor,
        documents: Tensor,
        known: Tensor,
        given: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The loss, a scalar. ``given``: vectors (batch, dim), which count where the second tensor (batch,) is true."""
        positive = (queries * documents).sum(1)  # cosine of each pair, (batch,)
        if self.negatives == "all":
            cosines = similarities(queries, documents, self.precision).float()
            forwards = self._hinge(positive.unsqueeze(1), cosines.masked_fill(known, -torch.inf))
            backwards = self._hinge(positive.unsqueeze(0), cosines.masked_fill(known, -torch.inf))
            return (_mean_of_violating(forwards) + _mean_of_violating(backwards)) / 2
        with torch.no_grad():  # only the choice needs all pairs; the gradient needs the chosen ones alone
            if self.negatives == "random":
                ranks = torch.rand(known.shape, generator=self._generator).to(known.device)
            else:
                ranks = similarities(queries, documents, self.precision)
            ranks = ranks.masked_fill(known, -torch.inf)
            document_of_query, query_of_document = ranks.argmax(1), ranks.argmax(0)
            all_known = known.all(1), known.all(0)
        forwards = self._hinge(positive, (queries * documents[document_of_query]).sum(1)).masked_fill(all_known[0], 0.0)
        if self.negatives == "given":
            if given is None:
                raise ValueError("negatives='given' needs the given negatives")
            vectors, has_given = given
            return torch.where(has_given, self._hinge(positive, (queries * vectors).sum(1)), forwards).mean()
        backwards = self._hinge(positive, (documents * queries[query_of_document]).sum(1)).masked_fill(
            all_known[1], 0.0
        )
        return (forwards.mean() + backwards.mean()) / 2

    def _hinge(self, positive: Tensor, negative: Tensor) -> Tensor:
        # margin + (1 - positive) - (1 - negative), not below zero
        return (self.margin + negative - positive).clamp(min=0)


def _mean_of_violating(terms: Tensor) -> Tensor:
    return terms.sum() / (terms > 0).sum().clamp(min=1)


class InfoNCE:
    """Cross entropy of the own partner among the batch, both ways, with cosines divided by ``temperature``
    (van den Oord et al. 2018, Representation Learning with Contrastive Predictive Coding)."""

    def __init__(self, temperature: float, precision: torch.dtype) -> None:
        self.temperature, self.precision = temperature, precision

    def __call__(self, queries: Tensor, documents: Tensor, known: Tensor) -> Tensor:
        """The loss, a scalar."""
        logits = similarities(queries, documents, self.precision).float() / self.temperature
        own = torch.arange(len(logits), device=logits.device)
        others = known.clone()
        others[own, own] = False
        logits = logits.masked_fill(others, -torch.inf)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
