"""The validation score of a model, and a check that its weights are sound."""

from torch import Tensor

from freemvmt.config import TowerName
from freemvmt.evaluation.metrics import ndcg_10
from freemvmt.model import TwoTowersModel
from freemvmt.search.index.exact import top_k
from freemvmt.search.index.ranking import Ranking
from freemvmt.storage.tensor_files import all_finite
from freemvmt.trainer.dataset import TrainingData


def validate(model: TwoTowersModel, data: TrainingData) -> float:
    """NDCG@10 over the whole validation corpus."""
    return ndcg_10(rank_validation(model, data), data.validation)


def rank_validation(model: TwoTowersModel, data: TrainingData) -> Ranking:
    queries, documents = _vectors(model, data, "query"), _vectors(model, data, "document")
    return top_k(queries, documents, 10 + bool(data.validation.self_matches))


def _vectors(model: TwoTowersModel, data: TrainingData, side: TowerName, most: int | None = None) -> Tensor:
    """Vectors of the first ``most`` validation texts of a side, (n, dim); those of a frozen tower were made before."""
    if data.frozen is not None and data.frozen.side == side:
        return data.frozen.validation_vectors[:most].to(model.device)
    tokens = data.validation_queries if side == "query" else data.validation_documents
    encode = model.encode_query_tokens if side == "query" else model.encode_document_tokens
    return encode(tokens.slice(0, min(most or len(tokens), len(tokens))))


def is_sound(model: TwoTowersModel, data: TrainingData) -> bool:
    """Whether all weights are finite and most validation texts have a vector: it is 0 where its norm overflowed."""
    sides: tuple[TowerName, TowerName] = ("document", "query")
    have_vectors = [(_vectors(model, data, side, 1000) != 0).any(1).float().mean() > 0.5 for side in sides]
    return all(map(bool, have_vectors)) and all(all_finite(weight.detach()) for weight in model.parameters())
