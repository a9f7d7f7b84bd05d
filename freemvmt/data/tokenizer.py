"""Tokenize texts once, into a ``TokenArray``: one flat array of ids and one array of offsets.

Hugging Face ``tokenizers`` is the reference. nanotoken, which is faster and takes longer to load, makes the ids of all
but the first ``FEW`` texts if it gives the same ids as ``tokenizers`` for ``PROBE``. Special tokens ([CLS], [SEP]) are
not added: the towers average words.
"""

import functools
import itertools
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freemvmt.data.ragged import TokenArray, offsets_of
from freemvmt.data.tokenizer_json import own_settings, settings_of, with_settings
from freemvmt.errors import UserError
from freemvmt.storage.digests import digest_of, sha256_of_text
from freemvmt.storage.files import storable

logger = logging.getLogger(__name__)

FEW = 64  # texts: a process that encodes no more, such as one search, does without nanotoken

# Texts for which tokenizers are known to differ: accents, controls, CJK, emoji, markup, very long words.
PROBE = (
    "",
    " \t\r\n",
    "The quick brown fox, 1,234.5 times; it's un-be-liev-able!",
    "naïve café ÅNGSTRÖM İstanbul ΣΊΣΥΦΟΣ ſtraße ﬁnal",
    "e\u0301 a\u0308\u0323 \u200b\u200d\ufeff\u00ad zero\u0000width\x0bvertical\x0cfeed \x85next",
    "東京都 한국어 हिन्दी العربية עִבְרִית ไทย",
    "👩‍👩‍👧‍👦 🏳️‍🌈 e=mc² ½ ™ © \ufffd \U0001f9ea",
    "[CLS] [SEP] [MASK] [UNK] <s> </s> [pad] [MASK]s",
    "x" * 99 + " " + "y" * 101 + " " + "z" * 300,
    "http://user@example.com:80/a_b?c=d&e=%20#f C++ C# <b>bold</b> \\n {json: 'true'}",
    "\u2014dash\u2013 \u201cquotes\u201d \u2026 \u3000ideographic\u00a0space",
)


class Tokenizer:
    """The tokenizer of a ``tokenizer.json``. It truncates texts to ``max_length`` tokens, whatever the file says.

    ``definition`` is the text of the file and part of the identity of a model's vectors. Raises ``UserError``, which
    names the file ``where``, if the definition is invalid.
    """

    def __init__(self, definition: str, max_length: int, where: str = "the tokenizer") -> None:
        try:
            self._engines = _engines(definition)
        except ValueError as error:
            raise UserError(f"{where} cannot be read ({error}); give a sound tokenizer.json") from error
        self.definition = definition
        self.max_length = max_length

    @classmethod
    def from_file(cls, path: Path, max_length: int, settings: object = None) -> "Tokenizer":
        """Read a ``tokenizer.json``. If it was made by ``written``, ``settings`` are its original ``replaced``."""
        try:
            definition = path.read_text(encoding="utf-8")
            if isinstance(settings, dict) and all(isinstance(value, str | None) for value in settings.values()):
                definition = with_settings(definition, settings)
            return cls(definition, max_length, str(path))
        except (OSError, ValueError, IndexError) as error:
            raise UserError(f"{path} cannot be read ({error}); give a sound tokenizer.json") from error

    @property
    def written(self) -> str:
        """``definition`` with our truncation and no padding, so that other programs make the same ids from the file."""
        return with_settings(self.definition, own_settings(self.max_length))

    @property
    def replaced(self) -> dict[str, str | None]:
        """The settings of ``definition`` that ``written`` replaces, for ``from_file``."""
        return settings_of(self.definition)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ``definition``, by which a manifest names the tokenizer."""
        return sha256_of_text(self.definition)

    @property
    def engine(self) -> str:
        """The library that makes the ids of many texts: ``nanotoken`` or ``tokenizers``."""
        return "tokenizers" if self._engines.fast is None else "nanotoken"

    @property
    def vocabulary_size(self) -> int:
        """A number that is greater than every id; ids may have gaps."""
        return self._engines.vocabulary_size

    def prepare(self) -> None:
        """Load nanotoken now, and not when ``FEW`` texts are encoded."""
        self._engines.expect(FEW)

    def clear_cache(self) -> None:
        """Free the words that nanotoken keeps with their ids: some 50 MB after 100,000 texts."""
        if (fast := self._engines.expect(0)) is not None:
            fast.clear_cache()

    def encode(self, texts: Sequence[str]) -> TokenArray:
        """The token ids of ``texts``, each truncated to ``max_length``.

        A lone surrogate, which UTF-8 cannot encode, counts as the replacement character.
        """
        try:
            return self._encode(texts, self.max_length)
        except (UnicodeEncodeError, TypeError):
            for number, text in enumerate(texts):
                if not isinstance(text, str):
                    raise TypeError(f"text {number} is {type(text).__name__}; give a list of strings") from None
            return self._encode([storable(text) for text in texts], self.max_length)

    def longer_than(self, tokens: int, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each of ``texts``, which UTF-8 can encode, has more than ``tokens`` tokens."""
        return self._encode(texts, tokens + 1).lengths > tokens

    def length_of(self, text: str) -> int:
        """The number of tokens of ``text``, which UTF-8 can encode; nothing is truncated."""
        fast = self._engines.expect(1)
        if fast is not None:
            return len(fast.encode(text, add_special_tokens=False))
        return len(self._engines.reference.encode(text, add_special_tokens=False).ids)

    def _encode(self, texts: Sequence[str], max_length: int) -> TokenArray:
        if not texts:
            return TokenArray(np.empty(0, np.int32), np.zeros(1, np.int64))
        fast = self._engines.expect(len(texts))
        if fast is not None:
            flat, offsets = fast.encode_batch(list(texts), add_special_tokens=False, max_length=max_length)
            return TokenArray(flat.view(np.int32), offsets)
        encoded = [
            encoding.ids[:max_length]
            for encoding in self._engines.reference.encode_batch_fast(list(texts), add_special_tokens=False)
        ]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        ids = np.fromiter((id for row in encoded for id in row), np.int32, int(lengths.sum()))
        return TokenArray(ids, offsets_of(lengths))

    def decode(self, tokens: TokenArray) -> list[str]:
        """The texts of ``tokens``; the very texts that were encoded, if the tokenizer keeps every character."""
        rows = [tokens[number].tolist() for number in range(len(tokens))]
        texts: list[str] = self._engines.reference.decode_batch(rows, skip_special_tokens=False)
        return texts

    def words(self, text: str) -> tuple[list[tuple[int, int, int]], TokenArray]:
        """(start, stop, number of tokens) of each word of a text after truncation, and the tokens of all words."""
        encoding = self._engines.reference.encode(storable(text), add_special_tokens=False)
        words: list[tuple[int, int, int]] = []
        last = None
        tokens = zip(encoding.word_ids[: self.max_length], encoding.offsets[: self.max_length], strict=True)
        for word, (start, stop) in tokens:
            if words and word == last and word is not None:
                words[-1] = (words[-1][0], max(stop, words[-1][1]), words[-1][2] + 1)
            else:
                words.append((start, stop, 1))
            last = word
        ids = np.array(encoding.ids[: self.max_length], np.int32)
        return words, TokenArray(ids, np.array([0, len(ids)], np.int64))

    def encode_cached(self, texts: Sequence[str], folder: Path) -> TokenArray:
        """As ``encode``, with a cache file in ``folder``. The key is a digest of texts, tokenizer and ``max_length``.

        Cached arrays are memory-mapped. A damaged file, or one with another key, is made again. If ``folder`` cannot be
        written to, nothing is cached.
        """
        import torch  # not in an environment made only to serve

        from freemvmt.storage.tensor_files import load_cached, save_cached

        key = self._key(texts)
        path = folder / f"{key}.safetensors"
        cached, cached_key = load_cached(path, "tokens")
        if cached_key == key:
            return TokenArray(cached["ids"].numpy(), cached["offsets"].numpy())
        tokens = self.encode(texts)
        save_cached(path, {"ids": torch.from_numpy(tokens.ids), "offsets": torch.from_numpy(tokens.offsets)}, key)
        return tokens

    def _key(self, texts: Sequence[str]) -> str:
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        blocks = ("".join(texts[start : start + 4096]) for start in range(0, len(texts), 4096))
        settings = (self.definition, f"\0{self.max_length}\0{len(texts)}")
        return digest_of(itertools.chain(settings, [lengths], blocks))


class _Engines:
    """The tokenizers of a definition; ``ValueError`` if it is invalid."""

    def __init__(self, definition: str) -> None:
        from tokenizers import Tokenizer as HFTokenizer

        self._definition, self._texts = definition, 0
        try:
            self.reference = HFTokenizer.from_str(definition)
            self.reference.no_truncation()
            self.reference.no_padding()
            encodings = self.reference.encode_batch(list(PROBE), add_special_tokens=False)
        except Exception as error:  # the Rust side raises plain Exception for a bad definition
            raise ValueError(str(error)) from error
        self._probe_ids = [encoding.ids for encoding in encodings]

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        # Of the libraries' objects, nanotoken's cannot be pickled. The definition makes them again.
        return _engines, (self._definition,)

    def expect(self, texts: int) -> Any | None:
        """nanotoken's tokenizer for so many more texts; None if ``reference`` makes their ids."""
        self._texts += texts
        return self.fast if self._texts >= FEW else None

    @cached_property
    def fast(self) -> Any | None:
        """nanotoken's tokenizer; None if its ids for ``PROBE`` are not those of ``reference``."""
        return _nanotoken_if_equal(self._definition, self._probe_ids)

    @cached_property
    def vocabulary_size(self) -> int:
        """A number that is greater than every id."""
        return 1 + max(self.reference.get_vocab().values(), default=-1)


@functools.lru_cache(maxsize=4)
def _engines(definition: str) -> _Engines:
    """The engines of a definition. Immutable but for a count, so models with the same tokenizer share them: to read one
    takes 0.1 seconds and 10 MB."""
    return _Engines(definition)


def _nanotoken_if_equal(definition: str, expected_ids: list[list[int]]) -> Any | None:
    """nanotoken's tokenizer for ``definition``; None if its ids for ``PROBE`` are not ``expected_ids``."""
    import nanotoken

    try:
        fast = nanotoken.WordPieceTokenizer.from_json(definition)
        ids = [text_ids.tolist() for text_ids in (fast.encode(text, add_special_tokens=False) for text in PROBE)]
    except (nanotoken.UnsupportedTokenizerError, ValueError) as error:
        logger.debug("nanotoken does not support this tokenizer: %s", error)
        return None
    if ids != expected_ids:
        logger.warning("nanotoken and tokenizers disagree on this tokenizer; using tokenizers, which is slower")
        return None
    return fast
