"""Alignment: a tower learns to give a text the vector that a better encoder gives it. No label is needed.

    loss = mean of 1 - cos(vector, target)

A query tower that is aligned to the document tower's own vectors of the queries can be compared with its documents
(Wang et al., LightRetriever, 2025; Tulkens, pyNIFE, 2025).
"""

from torch import Tensor
from torch.nn import functional as F


def alignment_loss(vectors: Tensor, targets: Tensor) -> Tensor:
    """The mean cosine distance, (); ``vectors`` (n, dim) have length 1, ``targets`` are cut to their first ``dim``."""
    if not len(vectors):
        return vectors.sum()
    targets = F.normalize(targets[:, : vectors.shape[1]])
    distances = 1 - (vectors * targets).sum(1)
    return distances.mean()
