import copy
import json
import pickle
from pathlib import Path

import pytest
import torch

from freemvmt.config import ModelConfig
from freemvmt.data.tokenizer import FEW
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel

ODD_TEXTS = ["", "   \t\n", "\u200b", "\U000e0001", "word " * 200_000, "a\x00b", "\ud800", "日本語のテキスト", "😀"]


@pytest.fixture(scope="module")
def model() -> TwoTowersModel:
    return TwoTowersModel()


def test_the_mission_line_by_line(model: TwoTowersModel) -> None:
    queries = model.encode_queries(["how tall is a tower", "what is a neural network"])
    documents = model.encode_documents(["A network of artificial neurons.", "The tower is 300 metres tall."])
    assert queries.shape == documents.shape == (2, 384)
    assert queries.dtype == documents.dtype == torch.float32
    cosines = torch.cosine_similarity(queries, documents)
    assert cosines.shape == (2,)
    crossed = torch.cosine_similarity(queries, documents.flip(0))
    assert bool((crossed > cosines).all())  # each query is nearer to the passage that answers it


def test_towers_agree_while_they_share_everything(model: TwoTowersModel) -> None:
    texts = ["one text", "another"]
    assert torch.equal(model.encode_queries(texts), model.encode_documents(texts))


def test_a_vector_is_the_normalised_mean_of_its_token_rows(model: TwoTowersModel) -> None:
    ids = torch.from_numpy(model.tokenizer.encode(["unbelievable towers"]).ids).long()
    mean = model.document_tower.table[ids].mean(0)
    torch.testing.assert_close(model.encode_documents(["unbelievable towers"])[0], mean / mean.norm())


@pytest.mark.parametrize("text", ODD_TEXTS, ids=ascii)
def test_every_text_has_a_finite_vector(model: TwoTowersModel, text: str) -> None:
    vector = model.encode_queries([text])
    assert vector.shape == (1, 384)
    assert bool(torch.isfinite(vector).all())
    length = float(vector.norm())
    assert length == pytest.approx(1) or length == 0


def test_no_text_is_no_vector_and_order_is_kept(model: TwoTowersModel) -> None:
    assert model.encode_queries([]).shape == (0, 384)
    texts = [f"text number {number} " * (number % 7) for number in range(300)]
    together = model.encode_documents(texts)
    apart = torch.cat([model.encode_documents([text]) for text in texts])
    torch.testing.assert_close(together, apart, atol=1e-6, rtol=0)


def test_one_text_instead_of_a_list_is_refused(model: TwoTowersModel) -> None:
    with pytest.raises(TypeError, match="list of texts"):
        model.encode_queries("not a list")


def test_text_beyond_max_length_does_not_count(tiny_base: str) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_base, max_length=3))
    short, long = model.encode_queries(["one two three", "one two three four five"])
    assert torch.equal(short, long)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"dim": 16},
        {"separate_towers": True},
        {"dim": 16, "separate_towers": True},
        {"tower": "recurrent", "cell": "gru", "dropout": 0},
        {"tower": "recurrent", "cell": "lstm", "pooling": "mean", "layers": 2, "bidirectional": False},
        {"tower": "recurrent", "pooling": "both", "hidden": 8},
        {"tower": "recurrent", "separate_towers": True},
        {"query_tower": "recurrent", "hidden": 8},
        {"tower": "recurrent", "separate_towers": True, "shared_table": True, "dim": 16},
    ],
    ids=str,
)
def test_a_saved_model_comes_back_equal(tiny_base: str, tmp_path: Path, config: dict[str, object]) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_base, **config))
    with torch.no_grad():  # as after training: the towers differ
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.01
    model.record = {"data": "made here"}
    model.save(tmp_path / "model")
    loaded = TwoTowersModel.load(tmp_path / "model")
    texts = ["a tower", "two towers", ""]
    assert torch.equal(loaded.encode_queries(texts), model.encode_queries(texts))
    assert torch.equal(loaded.encode_documents(texts), model.encode_documents(texts))
    assert loaded.config == model.config
    assert loaded.record == model.record
    separate = bool(config.get("separate_towers") or config.get("query_tower"))
    assert torch.equal(model.encode_queries(["a"]), model.encode_documents(["a"])) is not separate
    assert loaded.dim == config.get("dim", 48)


def test_saving_replaces_a_model_and_refuses_anything_else(tiny_base: str, tmp_path: Path) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_base))
    model.save(tmp_path / "model")
    model.save(tmp_path / "model", card="# New")
    assert (tmp_path / "model" / "README.md").read_text() == "# New"
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "monday.txt").write_text("dear diary")
    with pytest.raises(UserError, match="not a model"):
        model.save(tmp_path / "diary")
    assert [file.name for file in (tmp_path / "diary").iterdir()] == ["monday.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["diary", "model"]


def test_a_model_of_a_newer_format_is_refused(tiny_base: str, tmp_path: Path) -> None:
    TwoTowersModel(ModelConfig(base=tiny_base)).save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"two_towers": 99}))
    with pytest.raises(UserError, match="update two-towers"):
        TwoTowersModel.load(tmp_path / "model")


def test_untrained_is_a_model_by_name(model: TwoTowersModel) -> None:
    assert torch.equal(TwoTowersModel.load("untrained").encode_queries(["a"]), model.encode_queries(["a"]))


def test_blocks_in_threads_give_the_vectors_of_one_text_at_a_time(
    tiny_base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freemvmt.model._BLOCK", 3)
    model = TwoTowersModel(ModelConfig(base=tiny_base))
    texts = [f"tower number {number} " * (number % 4) for number in range(50)]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = model.encode_documents(texts)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(together, torch.cat([model.encode_documents([text]) for text in texts]))
    assert not together.requires_grad


def test_a_model_that_has_encoded_many_texts_goes_to_another_process(tiny_base: str) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_base))
    texts = [f"text number {number}" for number in range(FEW)]
    vectors = model.encode_documents(texts)
    assert model.tokenizer.engine == "nanotoken"
    pickled = pickle.loads(pickle.dumps(model))  # noqa: S301
    for copied in (pickled, copy.deepcopy(model)):
        assert torch.equal(copied.encode_documents(texts), vectors)


def test_vectors_are_float32_whatever_the_default_of_torch_is(tiny_base: str) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert TwoTowersModel(ModelConfig(base=tiny_base)).encode_queries(["a text"]).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
