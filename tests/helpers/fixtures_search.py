import shutil
from pathlib import Path

import pytest

from freemvmt.config import ModelConfig
from freemvmt.data.documents import Document
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.index.dense import IndexKind, Quantization

from bundles import MakeBundle, make_documents, write_corpus

SIZE = 1100  # documents: enough for every kind of index


@pytest.fixture(scope="session")
def tiny_model(tiny_base: str) -> TwoTowersModel:
    return TwoTowersModel(ModelConfig(base=tiny_base))


@pytest.fixture(scope="session")
def corpus() -> dict[str, Document]:
    """What is in a bundle of ``make_bundle``, by id."""
    return {document.id: document for document in make_documents((f"d{number}" for number in range(SIZE)), seed=1)}


@pytest.fixture(scope="session")
def make_bundle(
    tiny_model: TwoTowersModel, corpus: dict[str, Document], tmp_path_factory: pytest.TempPathFactory
) -> MakeBundle:
    """Puts a fresh bundle of ``corpus`` at a place; those of one kind are copies of one that was indexed."""
    home = tmp_path_factory.mktemp("indexed")
    file = write_corpus(home / "corpus.jsonl", corpus.values())

    def make(place: Path, kind: IndexKind = "exact", stored: Quantization = "fp32") -> Path:
        first = home / f"{kind}-{stored}"
        if not first.exists():
            build(tiny_model, str(file), first, kind=kind, stored=stored)
        shutil.copytree(first, place)
        return place

    return make
