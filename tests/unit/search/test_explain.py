"""Why a document matched: shares that add up to the very score, and pieces that add up to the very text."""

import random

import pytest
import torch

from freemvmt.config import ModelConfig
from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search.explain import Explanation, explain

from bundles import VOCABULARY

ALPHABET = (
    *VOCABULARY[:12],
    *(" ", "  ", "\n", "\t", "\u00a0", "\u3000", "", ".", "...", "don't", "un-be-liev-able", "1,234.5", "x" * 120),
    *(
        "日本語",
        "한국어",
        "🦓",
        "👩\u200d🚀",
        "e\u0301",
        "\u0301",
        "é",
        "İ",
        "ſß",
        "ﬁ",
        "\0",
        "\ufeff",
        "\u00ad",
        "\U0001d15e",
    ),
    *("<b>&amp;</b>", "antidisestablishmentarianism", "Καλημέρα", "नमस्ते", "ไทย", "\u202eabc\u202c"),
)


def separate(tiny_base: str, dim: int | None) -> TwoTowersModel:
    model = TwoTowersModel(ModelConfig(base=tiny_base, separate_towers=True, dim=dim))
    with torch.no_grad():  # as if trained: the towers differ
        model.query_tower.table.add_(0.02 * torch.randn_like(model.query_tower.table))
    return model


def recurrent(tiny_base: str) -> TwoTowersModel:
    model = TwoTowersModel(ModelConfig(base=tiny_base, tower="recurrent", cell="gru", hidden=8))
    torch.nn.init.normal_(model.document_tower.output.weight)  # as if trained: tokens weigh
    return model


@pytest.fixture(scope="module", params=["shared", "head", "separate", "separate head", "short", "recurrent"])
def model(request: pytest.FixtureRequest, tiny_base: str) -> TwoTowersModel:
    torch.manual_seed(0)
    return {
        "shared": lambda: TwoTowersModel(ModelConfig(base=tiny_base)),
        "head": lambda: TwoTowersModel(ModelConfig(base=tiny_base, dim=16)),
        "separate": lambda: separate(tiny_base, None),
        "separate head": lambda: separate(tiny_base, 16),
        "recurrent": lambda: recurrent(tiny_base),
        "short": lambda: TwoTowersModel(ModelConfig(base=tiny_base, max_length=5)),
    }[request.param]()


def heavy(tiny_encoder: str) -> TwoTowersModel:
    return TwoTowersModel(ModelConfig(base=tiny_encoder, query_tower="average", document_tower="transformer"))


def check(model: TwoTowersModel, query: str, document: Document) -> Explanation:
    found = explain(model, query, document, lambda: model.encode_documents([document.content])[0].numpy())
    cosine = float(model.encode_queries([query])[0].double() @ model.encode_documents([document.content])[0].double())
    assert found.id == document.id
    assert abs(found.score - cosine) < 1e-5
    assert abs(sum(piece.share for piece in (*found.title, *found.text, *found.query)) - found.score) < 1e-5
    assert "".join(piece.text for piece in found.query) == query
    assert "".join(piece.text for piece in found.title) == document.title
    assert "".join(piece.text for piece in found.text) == document.text
    for piece in (*found.title, *found.text, *found.query):
        assert piece.text
        assert not piece.text.isspace() or piece.share == 0
    return found


def test_random_texts_of_every_script(model: TwoTowersModel) -> None:
    draw = random.Random(0)
    for number in range(100):
        text, title, query = ("".join(draw.choices((*ALPHABET, " "), k=draw.randint(0, size))) for size in (60, 12, 12))
        check(model, query, Document(f"{number}", text, draw.choice(["", title])))


def test_texts_of_plain_words(model: TwoTowersModel) -> None:
    draw = random.Random(1)
    for number in range(50):
        text, title, query = (" ".join(draw.choices(VOCABULARY, k=size)) for size in (draw.randint(1, 300), 3, 4))
        found = check(model, query, Document(f"{number}", text, title))
        if model.config.max_length > 10:
            assert [piece.text for piece in found.title][::2] == title.split()


@pytest.mark.parametrize("title", ["", " ", "title", "title "])
@pytest.mark.parametrize("text", ["", " ", "river", " river "])
def test_texts_with_little_in_them(model: TwoTowersModel, title: str, text: str) -> None:
    for query in ("", "river", "🦓"):
        found = check(model, query, Document("a", text, title))
        if not query or not (title + text).strip():
            assert found.score == 0


def test_what_the_tower_does_not_read_has_no_share(model: TwoTowersModel) -> None:
    text = " ".join([*VOCABULARY, *VOCABULARY] * 4)
    found = check(model, "river", Document("a", text))
    read = len(model.tokenizer.encode([text]))
    kept = model.tokenizer.encode([text]).lengths[0]
    assert read == 1
    assert kept == model.config.max_length
    pieces = [piece for piece in found.text if piece.share]
    assert 0 < len(pieces) <= kept
    assert found.text[-1].share == 0


def test_the_word_that_was_asked_for_has_the_largest_share(tiny_model: TwoTowersModel) -> None:
    found = check(tiny_model, "river", Document("a", "castle and river", "a mountain"))
    assert max((*found.title, *found.text), key=lambda piece: piece.share).text == "river"
    assert [piece.text for piece in found.title] == ["a", " ", "mountain"]
    assert [piece.text for piece in found.text] == ["castle", " ", "and", " ", "river"]


def test_over_a_transformer_only_the_words_of_the_query_have_shares(tiny_encoder: str) -> None:
    model = heavy(tiny_encoder)
    test_random_texts_of_every_script(model)
    for text in ("", " ", "river"):
        test_texts_with_little_in_them(model, "title ", text)
    found = check(model, "how tall, the tower?", Document("d", "the tower is tall", "towers"))
    assert [piece.share for piece in (*found.title, *found.text)] == [0, 0]
    assert {piece.text for piece in found.query if piece.share} >= {"how", "tall", "the", "tower"}
    both = TwoTowersModel(ModelConfig(base=tiny_encoder, tower="transformer"))
    with pytest.raises(UserError, match="cannot be split"):
        check(both, "tower", Document("d", "a tower"))
