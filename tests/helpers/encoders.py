"""Tiny encoders and cross-encoders of each kind with random weights, in folders as their libraries write them."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
import transformers.models.bert.modeling_bert  # takes seconds: here no test is charged for them
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from freemvmt.towers.transformer import silenced

_TEXTS = ["a tower of stone, 300 metres high", "query: what is a tower?", "passage: the tower is made of stone",
          "naïve cafés in Paris; Ärger im Büro", "Represent this sentence: 1,234.5 (x)"]  # fmt: skip
# What cross-encoders score.
QUERY = "what is a TOWER?"
TEXTS = [
    "a tower of stone, 300 metres high", "stone " * 80, "naïve CAFÉ 東京 👋", "", " a  b ", "the tower", "x" * 200,
    "Represent this sentence: 1,234.5 (x)",
]  # fmt: skip
_SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def word_piece(pad: str = "[PAD]", cls: str = "[CLS]", sep: str = "[SEP]") -> Tokenizer:
    """BERT's: lower case, and words that are split where they are rare."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [cls, pad, sep, "[UNK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(_TEXTS, trainer)
    tokenizer.post_processor = processors.BertProcessing((sep, 2), (cls, 0))
    return tokenizer


def sentence_piece() -> Tokenizer:
    """XLM-R's: a unigram model over words that begin with a mark, <s> and </s>."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(_TEXTS * 3, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def byte_level(cls: str = "<s>", sep: str = "</s>") -> Tokenizer:
    """RoBERTa's and ModernBERT's: pairs of bytes, in which a space belongs to the word after it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [cls, "<pad>", sep, "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_TEXTS * 3, trainer)
    tokenizer.post_processor = processors.BertProcessing((sep, 2), (cls, 0))
    return tokenizer


# The class of a kind's configuration in `transformers`, its tokenizer, and its sizes beside the usual ones.
_PADDED = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
_DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48}
_KINDS: dict[str, tuple[str, Callable[[], Tokenizer], dict[str, Any]]] = {
    "bert": ("BertConfig", word_piece, _SIZES),
    "distilbert": ("DistilBertConfig", word_piece, _DISTILBERT),
    "electra": ("ElectraConfig", word_piece, _SIZES | {"embedding_size": 16}),  # token vectors that are narrower
    "wide electra": ("ElectraConfig", word_piece, _SIZES | {"embedding_size": 48}),
    "mpnet": ("MPNetConfig", lambda: word_piece("<pad>", "<s>", "</s>"), _SIZES),
    "xlm-roberta": ("XLMRobertaConfig", sentence_piece, _SIZES),
    "roberta": ("RobertaConfig", byte_level, _SIZES),
    "modernbert": (
        "ModernBertConfig", lambda: byte_level("[CLS]", "[SEP]"),
        _SIZES | {"local_attention": 8, "cls_token_id": 0, "sep_token_id": 2},
    ),
}  # fmt: skip
KINDS = tuple(_KINDS)
LENGTH = 40  # tokens that each reads, special ones included


def _config(kind: str) -> tuple[Any, Tokenizer]:
    """The configuration of a small model of ``transformers``, and its tokenizer."""
    name, make_tokenizer, sizes = _KINDS[kind]
    positions = LENGTH + 2 if kind in ("mpnet", "roberta", "xlm-roberta") else LENGTH  # two of them are for padding
    config = getattr(transformers, name)(max_position_embeddings=positions, **_PADDED, **sizes)
    tokenizer = make_tokenizer()
    config.vocab_size = tokenizer.get_vocab_size()
    return config, tokenizer


def _shaken(model: Any) -> Any:
    """``model`` with random numbers also where a new one has 0 and 1: in its biases and norms."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def _names(config: Any) -> list[str]:
    """What a model of ``config`` reads."""
    names = ["input_ids", "attention_mask"]
    return [*names, "token_type_ids"] if getattr(config, "type_vocab_size", 0) > 1 else names


def _wrapped(tokenizer: Tokenizer, config: Any) -> Any:
    """``tokenizer`` as `transformers` saves it."""
    pad = next(token for token in ("[PAD]", "<pad>") if tokenizer.token_to_id(token) is not None)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, model_input_names=_names(config)
    )


def write_encoder(
    folder: Path,
    kind: str,
    pooling: str = "mean",
    prompts: Mapping[str, str] | None = None,
    max_length: int | None = LENGTH,
) -> Any:
    """Write ``folder`` by sentence-transformers, and return the model that it reads from there."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    plain = folder.with_name(folder.name + "-plain")
    with silenced(transformers.logging):
        torch.manual_seed(0)
        config, tokenizer = _config(kind)
        _shaken(transformers.AutoModel.from_config(config)).save_pretrained(plain)
        _wrapped(tokenizer, config).save_pretrained(plain)
        transformer = modules.Transformer(str(plain), max_seq_length=max_length)
        parts = [transformer, modules.Pooling(transformer.get_embedding_dimension(), pooling)]
        made = SentenceTransformer(modules=parts, device="cpu", prompts=dict(prompts or {}))
        made.save_pretrained(str(folder), create_model_card=False)
        return SentenceTransformer(str(folder), device="cpu")


def write_cross_encoder(folder: Path, kind: str = "bert", labels: int = 1, graph: bool = False) -> Path:
    """Write a cross-encoder with ``labels`` outputs to ``folder``; ``graph``: as an ONNX graph instead of weights."""
    torch.manual_seed(0)
    config, tokenizer = _config(kind)
    config.num_labels = labels
    with silenced(transformers.logging):
        model = _shaken(transformers.AutoModelForSequenceClassification.from_config(config)).train(False)
        model.save_pretrained(folder)
        _wrapped(tokenizer, config).save_pretrained(folder)
    if graph:
        (folder / "model.safetensors").unlink()
        (folder / "onnx").mkdir()
        _write_graph(model, folder / "onnx" / "model.onnx")
    return folder


class _Logits(torch.nn.Module):
    def __init__(self, model: Any, names: list[str]) -> None:
        super().__init__()
        self._model, self._names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model(**dict(zip(self._names, inputs, strict=True))).logits
        return logits


def _write_graph(model: Any, path: Path) -> None:
    names = _names(model.config)
    ids = torch.arange(21).reshape(3, 7)
    inputs = {"input_ids": ids + 4, "attention_mask": (ids % 7 < 6).long(), "token_type_ids": (ids % 7 > 3).long()}
    axes = {name: {0: "texts", 1: "tokens"} for name in names} | {"logits": {0: "texts"}}
    with warnings.catch_warnings(action="ignore"), torch.no_grad():  # about what a model decides in Python
        torch.onnx.export(
            _Logits(model, names).train(False), tuple(inputs[name] for name in names), path, input_names=names,
            output_names=["logits"], dynamic_axes=axes, opset_version=20, dynamo=False,
        )  # fmt: skip
