"""The validation score of a model, and a check that its weights are sound."""

from freemvmt.evaluation.metrics import ndcg_10
from freemvmt.model import TwoTowersModel
from freemvmt.search.index.exact import top_k
from freemvmt.search.index.ranking import Ranking
from freemvmt.trainer.dataset import TrainingData


def validate(model: TwoTowersModel, data: TrainingData) -> float:
    """NDCG@10 over the whole validation corpus."""
    return ndcg_10(rank_validation(model, data), data.validation)


def rank_validation(model: TwoTowersModel, data: TrainingData) -> Ranking:
    queries = model.encode_query_tokens(data.validation_queries)
    documents = model.encode_document_tokens(data.validation_documents)
    return top_k(queries, documents, 10 + bool(data.validation.self_matches))


def is_sound(model: TwoTowersModel, data: TrainingData) -> bool:
    """Whether all weights are finite and most validation passages have a vector: it is 0 where its norm overflowed."""
    vectors = model.encode_document_tokens(
        data.validation_documents.slice(0, min(1000, len(data.validation_documents)))
    )
    have_vectors = bool((vectors != 0).any(1).float().mean() > 0.5)
    return have_vectors and all(bool(weight.isfinite().all()) for weight in model.parameters())
