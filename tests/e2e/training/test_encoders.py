"""Encoders of each kind give the vectors that sentence-transformers gives: pooling, prompts, length."""

import contextlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from freemvmt.cli import main
from freemvmt.config import MAX_INTEGER, ModelConfig, TrainConfig
from freemvmt.data.documents import Document
from freemvmt.data.load import load
from freemvmt.data.passages import Splitter
from freemvmt.data.tokenizer import Tokenizer
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.retriever import Retriever
from freemvmt.storage.sentence_config import SentenceConfig, read_sentence_config
from freemvmt.towers.prompts import Prompt
from freemvmt.towers.transformer import TransformerTower
from freemvmt.trainer.teacher import Teacher
from freemvmt.training import train_and_save

from encoders import KINDS, LENGTH, byte_level, sentence_piece, word_piece, write_encoder
from refusals import refusal
from resealing import resealed

TEXTS = [
    "what is a tower", "The tower, 300 metres.", "naïve CAFÉ 東京 👋", "stone " * 80, "x" * 200, " a  b ", "(b)", "a"
]  # fmt: skip
PROMPTS = {"query": "Represent this sentence for searching: ", "document": "passage: "}


def vectors_of(vectors: Any) -> Tensor:
    return F.normalize(torch.as_tensor(vectors))


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_gives_the_vectors_of_sentence_transformers(kind: str, pooling: str, tmp_path: Path) -> None:
    library = write_encoder(tmp_path / "base", kind, pooling, PROMPTS)
    model = TwoTowersModel(ModelConfig(base=str(tmp_path / "base"), tower="transformer"))
    queries, documents = model.encode_queries([*TEXTS, ""]), model.encode_documents([*TEXTS, ""])
    torch.testing.assert_close(queries[:-1], vectors_of(library.encode_query(TEXTS)), atol=1e-5, rtol=0)
    torch.testing.assert_close(documents[:-1], vectors_of(library.encode_document(TEXTS)), atol=1e-5, rtol=0)
    assert not queries[-1].any()  # a text without tokens has no vector, whatever its prompt
    assert float((queries - documents).abs().max()) > 1e-2
    tokens = model.tokenizer.encode(TEXTS)
    assert torch.equal(model.encode_query_tokens(tokens), queries[:-1])
    with torch.no_grad():
        in_training = model(tokens, tokens)
    torch.testing.assert_close(torch.cat(in_training), torch.cat([queries[:-1], documents[:-1]]), atol=1e-5, rtol=0)
    model.save(tmp_path / "model")
    loaded = TwoTowersModel.load(tmp_path / "model")
    assert torch.equal(loaded.encode_queries(TEXTS), queries[:-1])
    assert loaded.space("document") == model.space("document")


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "modernbert"])
def test_without_a_length_a_text_fills_the_positions(kind: str, tmp_path: Path) -> None:
    library = write_encoder(tmp_path / "base", kind, max_length=None)
    library.max_seq_length = LENGTH
    model = TwoTowersModel(ModelConfig(base=str(tmp_path / "base"), tower="transformer"))
    torch.testing.assert_close(model.encode_queries(TEXTS), vectors_of(library.encode_query(TEXTS)), atol=1e-5, rtol=0)


def test_a_shorter_length_cuts_prompt_and_text(tmp_path: Path) -> None:
    library = write_encoder(tmp_path / "base", "bert", "mean", PROMPTS, max_length=24)
    model = TwoTowersModel(ModelConfig(base=str(tmp_path / "base"), tower="transformer"))
    torch.testing.assert_close(
        model.encode_documents(TEXTS), vectors_of(library.encode_document(TEXTS)), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_passage_fits_with_its_prompt(kind: str, tmp_path: Path) -> None:
    write_encoder(tmp_path / "base", kind, "mean", PROMPTS)
    model = TwoTowersModel(ModelConfig(base=str(tmp_path / "base"), tower="transformer"))
    draw = random.Random(1)
    words = [word for text in TEXTS[:4] for word in text.split()[:9]] + list("abcXYZ-(_1")
    document = Document("d", " ".join("".join(draw.choices(words, k=draw.randint(1, 2))) for _ in range(1500)))
    passages = Splitter(model.tokenizer, model.document_tokens).split(document)
    assert len(passages) > 50
    prompt = Prompt(PROMPTS["document"], model.tokenizer.definition)
    read = model.tokenizer.encode([passage.content(document) for passage in passages])
    tower = cast("TransformerTower", model.document_tower)
    assert np.array_equal(tower.prompted(read, "document").lengths, prompt.before(read, MAX_INTEGER).lengths)


def test_an_encoder_without_these_files_is_the_mean_as_before(tiny_encoder: str) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_encoder, tower="transformer"))
    assert model.sentence == SentenceConfig()
    assert model.sentence.key == ""


@pytest.mark.parametrize("make", [word_piece, sentence_piece, byte_level])
@pytest.mark.parametrize("prompt", ["query: ", "Represent this: ", "«x» ", "instruction\nquery: "])
def test_tokens_with_a_prompt_are_those_of_both_texts_together(make: Callable[[], Any], prompt: str) -> None:
    tokenizer, texts = make(), ["what is", "Tower (x)", "naïve", "1900", "東京", ""]
    definition = tokenizer.to_str()
    both = Prompt(prompt, definition).before(Tokenizer(definition, 99).encode(texts), 99)
    for number, text in enumerate(texts[:-1]):
        assert both[number].tolist() == tokenizer.encode(prompt + text, add_special_tokens=False).ids
    assert len(both[len(texts) - 1]) == 0


@pytest.mark.parametrize(("make", "prompt"), [(word_piece, "query"), (sentence_piece, "query:")])
def test_a_prompt_that_joins_the_word_after_it_is_refused(make: Callable[[], Any], prompt: str) -> None:
    with pytest.raises(UserError, match=f"the prompt '{prompt}' changes the tokens of the text after it"):
        Prompt(prompt, make().to_str())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("", "")),
        ({"prompts": {"query": "q: ", "document": "d: ", "passage": "p: "}}, ("q: ", "d: ")),
        ({"prompts": {"query": "q: ", "passage": "p: "}}, ("q: ", "p: ")),
        ({"prompts": {"query": "q: ", "document": None, "corpus": "c: "}}, ("q: ", "")),
        ({"prompts": {"all": "a: "}, "default_prompt_name": "all"}, ("a: ", "a: ")),
        ({"prompts": {"all": "a: ", "query": ""}, "default_prompt_name": "all"}, ("", "a: ")),
        ({"prompts": {"query": "q: "}, "default_prompt_name": "query"}, ("q: ", "")),
        ({"prompts": {"all": "a: "}}, ("", "")),
        ({"prompts": None, "default_prompt_name": None}, ("", "")),
    ],
)
def test_a_side_has_the_prompt_of_its_name_or_the_default(
    settings: dict[str, object], expected: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "modules.json").write_text(
        '[{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]'
    )
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(settings))
    read = read_sentence_config(tmp_path)
    assert (read.pooling, read.query_prompt, read.document_prompt) == ("cls", *expected)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "base"
    write_encoder(folder, "bert", "cls", PROMPTS)
    return folder


def test_a_light_query_tower_learns_the_vectors_of_prompted_queries(
    base: Path, rows_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig(
        base=str(base), dataset=(rows_file,), query_tower="average", document_tower="transformer", loss="align",
        epochs=1, batch_size=32, learning_rate=1e-3, wandb=False, output=str(tmp_path / "model"),
    )  # fmt: skip
    result, output = train_and_save(config)
    whole = TwoTowersModel(ModelConfig(base=str(base), tower="transformer"))
    queries, texts = load(config).train.queries[:50], ["a tower of stone", "walls of glass"]
    target = result.model.cached_vectors("document", queries, prompt="query")
    assert torch.allclose(target, whole.encode_queries(queries), atol=1e-3)
    untrained = TwoTowersModel(config.model_config()).encode_queries(queries)
    learned = result.model.encode_queries(queries)
    assert float((learned * target).sum(1).mean()) > float((untrained * target).sum(1).mean())
    card = (output / "README.md").read_text(encoding="utf-8")
    assert 'CLS pooling; "Represent this sentence for searching: " before a query; "passage: " before a docu' in card
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    build(TwoTowersModel.load(output), str(corpus), tmp_path / "bundle")
    with contextlib.closing(Retriever.load(tmp_path / "bundle")) as served:
        hits = served.search("a tower", k=2, method="dense")
        assert hits[0].score == pytest.approx(
            float((result.model.encode_queries(["a tower"]) @ whole.encode_documents(texts).T).max()), abs=1e-3
        )


def test_pooling_and_prompts_are_part_of_a_space_and_of_a_cache(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "other")
    settings = json.loads((base / "config_sentence_transformers.json").read_text())
    settings["prompts"]["document"] = "text: "
    (tmp_path / "other" / "config_sentence_transformers.json").write_text(json.dumps(settings))
    models = [TwoTowersModel(ModelConfig(base=str(path), tower="transformer")) for path in (base, tmp_path / "other")]
    assert len({model.space("document") for model in models}) == 2
    assert len({model.digest() for model in models}) == 2
    for model in models:
        assert torch.allclose(model.cached_vectors("query", TEXTS), model.encode_queries(TEXTS), atol=1e-3)
        assert torch.allclose(model.cached_vectors("document", TEXTS), model.encode_documents(TEXTS), atol=1e-3)


def test_a_teacher_pools_and_prompts_as_it_says(base: Path) -> None:
    teacher = Teacher(str(base), 256, torch.device("cpu"))
    model = TwoTowersModel(ModelConfig(base=str(base), tower="transformer"))
    assert np.allclose(teacher.vectors(TEXTS, "queries"), model.encode_queries(TEXTS), atol=2e-2)
    assert np.allclose(teacher.vectors(TEXTS, "documents"), model.encode_documents(TEXTS), atol=2e-2)


def test_a_head_is_for_outputs_where_token_vectors_are_narrower(tmp_path: Path) -> None:
    write_encoder(tmp_path / "base", "electra")
    model = TwoTowersModel(ModelConfig(base=str(tmp_path / "base"), tower="transformer", dim=16))
    assert model.encode_queries(TEXTS).shape == (len(TEXTS), 16)


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(json.dumps(change(json.loads((folder / name).read_text()))))

    return write


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


POOLING, PROMPT_FILE = "1_Pooling/config.json", "config_sentence_transformers.json"
BASES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "largest": (changed(POOLING, lambda c: c | {"pooling_mode": "max"}), ["the pooling is 'max'", "mean, cls"]),
    "unknown": (changed(POOLING, lambda c: c | {"pooling_mode": 3}), ["the pooling is 3"]),
    "two": (changed(POOLING, lambda c: c | {"pooling_mode": ["mean", "max"]}), ["the pooling is mean + max"]),
    "older": (
        written(POOLING, b'{"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true}'),
        ["the pooling is cls + max"],
    ),
    "without prompt": (changed(POOLING, lambda c: c | {"include_prompt": False}), ["include_prompt"]),
    "broken pooling": (written(POOLING, b"{"), [f"{POOLING} cannot be read"]),
    "pooling list": (written(POOLING, b"[]"), [f"{POOLING} holds no JSON object"]),
    "no pooling": (lambda folder: (folder / POOLING).unlink(), [f"{POOLING} cannot be read"]),
    "broken modules": (written("modules.json", b"\xff"), ["modules.json cannot be read"]),
    "no modules": (written("modules.json", b"{}"), ["model of no modules"]),
    "dense": (
        changed("modules.json", lambda c: [*c, {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]),
        ["a sentence-transformers model of Transformer, Pooling, Dense"],
    ),
    "elsewhere": (
        changed("modules.json", lambda c: [c[0], c[1] | {"path": "../1_Pooling"}]),
        ["names a folder outside of it"],
    ),
    "prompt": (changed(PROMPT_FILE, lambda c: c | {"prompts": {"query": 3}}), ["the prompt 'query' is no text"]),
    "prompts": (changed(PROMPT_FILE, lambda c: c | {"prompts": ["q: "]}), ["prompts is no object"]),
    "default": (changed(PROMPT_FILE, lambda c: c | {"default_prompt_name": "x"}), ["'x' names no prompt"]),
    "default list": (changed(PROMPT_FILE, lambda c: c | {"default_prompt_name": []}), ["[] names no prompt"]),
    "joined": (changed(PROMPT_FILE, lambda c: c | {"prompts": {"query": "a"}}), ["the prompt 'a' changes the tokens"]),
    "long": (
        changed(PROMPT_FILE, lambda c: c | {"prompts": {"query": "tower " * 80}}),
        ["reads 40 tokens, too few for its prompt"],
    ),
    "length": (written("sentence_bert_config.json", b'{"max_seq_length": "9"}'), ["'9' is no number of tokens"]),
    "short": (written("sentence_bert_config.json", b'{"max_seq_length": 2}'), ["reads 2 tokens, too few"]),
}


@pytest.mark.parametrize("case", BASES)
def test_a_base_that_cannot_be_followed_is_refused(
    case: str, base: Path, tmp_path: Path, rows_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, parts = BASES[case]
    folder = shutil.copytree(base, tmp_path / "base")
    damage(folder)
    train = ["train", "--no-wandb", "--tower", "transformer", "--base", folder, "--dataset", rows_file]
    said = refusal(capsys, tmp_path, *train, "--output", tmp_path / "model")
    assert [part for part in parts if part not in said] == []


def test_an_encoder_with_a_decoder_is_refused(
    tmp_path: Path, rows_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import transformers

    tokenizer, folder = sentence_piece(), tmp_path / "base"
    config = transformers.T5Config(
        vocab_size=tokenizer.get_vocab_size(), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    transformers.T5Model(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    train = ["train", "--no-wandb", "--tower", "transformer", "--base", folder, "--dataset", rows_file]
    assert "an encoder with a decoder (t5)" in refusal(capsys, tmp_path, *train, "--output", tmp_path / "model")


def test_lower_case_is_left_to_the_tokenizer(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "base")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 40, "do_lower_case": true}')
    assert read_sentence_config(folder).max_tokens == 40
    changed("tokenizer.json", lambda c: c | {"normalizer": None})(folder)
    with pytest.raises(UserError, match="do_lower_case is true and the tokenizer keeps case"):
        read_sentence_config(folder)


@pytest.mark.parametrize(
    ("sentence", "part"),
    [
        ({"pooling": "max"}, "pooling is 'max'"), ({"query_prompt": 3}, "query_prompt is 3"), ([], "mapping"),
        ({"pool": "cls"}, "pool"), ({"max_tokens": -1}, "too few"),
    ],
    ids=str,
)  # fmt: skip
def test_a_saved_model_whose_pooling_is_wrong_is_refused(
    sentence: object, part: str, base: Path, tmp_path: Path
) -> None:
    TwoTowersModel(ModelConfig(base=str(base), tower="transformer")).save(tmp_path / "model")
    changed("config.json", lambda content: content | {"sentence": sentence})(tmp_path / "model")
    resealed(tmp_path / "model")
    with pytest.raises(UserError, match=part):
        TwoTowersModel.load(tmp_path / "model")


@pytest.mark.parametrize("queries", ["transformer", "average"])
def test_sentence_transformers_gets_pooling_and_prompts_and_a_graph_refuses_them(
    queries: Literal["transformer", "average"], base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sentence_transformers import SentenceTransformer

    model = TwoTowersModel(ModelConfig(base=str(base), query_tower=queries, document_tower="transformer"))
    model.save(tmp_path / "model")
    command = ["export", str(tmp_path / "model"), "--output", str(tmp_path / "out"), "--format"]
    assert main([*command, "onnx"]) == 2
    assert "knows no prompts; export this transformer with sentence-transformers" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "sentence-transformers"]) == 0
    library = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    for ours, theirs in (
        (model.encode_queries(TEXTS), library.encode_query(TEXTS)),
        (model.encode_documents(TEXTS), library.encode_document(TEXTS)),
    ):
        torch.testing.assert_close(ours, vectors_of(theirs), atol=1e-5, rtol=0)
