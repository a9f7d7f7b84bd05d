"""Text becomes token ids once: a ``TokenArray`` is the only form in which text moves on from here.

Many texts are one flat array of ids and one array of offsets, with no padding and no Python strings in between.
Ids come from nanotoken when it agrees with Hugging Face ``tokenizers`` on a probe, else from ``tokenizers`` itself,
which stays the definition of what is right. Special tokens ([CLS], [SEP]) are not added: the towers average words.
"""

import functools
import hashlib
import json
import logging
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freemvmt.data.ragged import TokenArray, offsets_of
from freemvmt.data.tokenizer_json import own_settings, settings_of, with_settings
from freemvmt.errors import UserError
from freemvmt.runtime.home import note_uncached
from freemvmt.storage.files import whole_folder

logger = logging.getLogger(__name__)

# Where tokenizers have been seen to part ways: accents, controls, CJK, emoji, markup, very long words.
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
    """A ``tokenizer.json``, read once; ``max_length`` tokens of a text are kept, whatever it says itself of cutting.

    ``definition`` is its text, which is part of what names a model's vectors. Raises ``UserError``, which calls it
    ``where``, when it is not sound.
    """

    def __init__(self, definition: str, max_length: int, where: str = "the tokenizer") -> None:
        try:
            self._reference, self._fast, self.vocabulary_size = _engines(definition)
        except ValueError as error:
            raise UserError(f"{where} cannot be read ({error}); give a sound tokenizer.json") from error
        self.definition = definition
        self.max_length = max_length

    @classmethod
    def from_file(cls, path: Path, max_length: int, replaced: object = None) -> "Tokenizer":
        """Read a ``tokenizer.json``; of one that ``written`` is, ``replaced`` is put back."""
        try:
            definition = path.read_text(encoding="utf-8")
            if isinstance(replaced, dict) and all(isinstance(value, str | None) for value in replaced.values()):
                definition = with_settings(definition, replaced)
            return cls(definition, max_length, str(path))
        except (OSError, ValueError, IndexError) as error:
            raise UserError(f"{path} cannot be read ({error}); give a sound tokenizer.json") from error

    @property
    def written(self) -> str:
        """``definition`` for a file that others read too: it says our cut and no padding, so that they make our ids."""
        return with_settings(self.definition, own_settings(self.max_length))

    @property
    def replaced(self) -> dict[str, str | None]:
        """What ``written`` no longer says, for ``from_file``."""
        return settings_of(self.definition)

    @property
    def engine(self) -> str:
        """Which library makes the ids: ``nanotoken`` or ``tokenizers``."""
        return "tokenizers" if self._fast is None else "nanotoken"

    def encode(self, texts: Sequence[str]) -> TokenArray:
        """Token ids of ``texts``, in order, each cut at ``max_length``.

        A lone surrogate, which no UTF-8 can hold, counts as the replacement character.
        """
        try:
            return self._encode(texts)
        except (UnicodeEncodeError, TypeError):
            for number, text in enumerate(texts):
                if not isinstance(text, str):
                    raise TypeError(f"text {number} is {type(text).__name__}; give a list of strings") from None
            return self._encode([text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts])

    def _encode(self, texts: Sequence[str]) -> TokenArray:
        if not texts:
            return TokenArray(np.empty(0, np.int32), np.zeros(1, np.int64))
        if self._fast is not None:
            flat, offsets = self._fast.encode_batch(list(texts), add_special_tokens=False, max_length=self.max_length)
            return TokenArray(flat.astype(np.int32, copy=False), offsets)
        encoded = [
            encoding.ids[: self.max_length]
            for encoding in self._reference.encode_batch_fast(list(texts), add_special_tokens=False)
        ]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        ids = np.fromiter((id for row in encoded for id in row), np.int32, int(lengths.sum()))
        return TokenArray(ids, offsets_of(lengths))

    def words(self, text: str) -> tuple[list[tuple[int, int, int]], TokenArray]:
        """The words of one text that ``encode`` keeps, each (start, stop, number of tokens), and all their tokens."""
        sound = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        encoding = self._reference.encode(sound, add_special_tokens=False)
        words: list[tuple[int, int, int]] = []
        last = None
        kept = zip(encoding.word_ids[: self.max_length], encoding.offsets[: self.max_length], strict=True)
        for word, (start, stop) in kept:
            if words and word == last and word is not None:
                words[-1] = (words[-1][0], max(stop, words[-1][1]), words[-1][2] + 1)
            else:
                words.append((start, stop, 1))
            last = word
        ids = np.array(encoding.ids[: self.max_length], np.int32)
        return words, TokenArray(ids, np.array([0, len(ids)], np.int64))

    def encode_cached(self, texts: Sequence[str], folder: Path) -> TokenArray:
        """As ``encode``, kept in ``folder`` under a hash of texts, tokenizer and ``max_length``, and mapped from there.

        A damaged entry is made anew; a folder that cannot be written to only costs the time.
        """
        entry = folder / self._key(texts)
        if (found := _read_entry(entry, len(texts), self.vocabulary_size)) is not None:
            return found
        tokens = self.encode(texts)
        try:
            _write_entry(entry, tokens)
        except (UserError, OSError) as error:
            note_uncached(error)
        return tokens

    def _key(self, texts: Sequence[str]) -> str:
        digest = hashlib.blake2b(self.definition.encode(), digest_size=16)
        digest.update(f"\0{self.max_length}\0{len(texts)}".encode())
        digest_texts(digest, texts)
        return digest.hexdigest()


def digest_texts(digest: "hashlib.blake2b", texts: Sequence[str]) -> None:
    """Let ``digest`` take in ``texts``: no two different lists give it the same bytes."""
    for start in range(0, len(texts), 4096):
        block = texts[start : start + 4096]
        # Lengths and then the joined text.
        digest.update(np.fromiter(map(len, block), np.int64, len(block)).tobytes())
        digest.update("".join(block).encode("utf-8", "surrogatepass"))


@functools.lru_cache(maxsize=4)
def _engines(definition: str) -> tuple[Any, Any | None, int]:
    """The tokenizer of ``tokenizers``, nanotoken's if it agrees, and a number that every id is below.

    Neither changes any more, so models with one tokenizer share it: to read it takes a tenth of a second and 10 MB.
    Raises ``ValueError`` when the definition is not sound.
    """
    from tokenizers import Tokenizer as HFTokenizer

    try:
        reference = HFTokenizer.from_str(definition)
        reference.no_truncation()
        reference.no_padding()
        probed = reference.encode_batch(list(PROBE), add_special_tokens=False)
    except Exception as error:  # the Rust side raises plain Exception for a bad definition
        raise ValueError(str(error)) from error
    fast = _agreed_nanotoken(definition, [encoding.ids for encoding in probed])
    return reference, fast, 1 + max(reference.get_vocab().values(), default=-1)  # ids may have gaps


def _agreed_nanotoken(definition: str, want: list[list[int]]) -> Any | None:
    """nanotoken's tokenizer for ``definition`` if it gives the ids of ``tokenizers`` on the probe, else None."""
    import nanotoken

    try:
        fast = nanotoken.WordPieceTokenizer.from_json(definition)
        got = [ids.tolist() for ids in (fast.encode(text, add_special_tokens=False) for text in PROBE)]
    except (nanotoken.UnsupportedTokenizerError, ValueError) as error:
        logger.debug("nanotoken does not support this tokenizer: %s", error)
        return None
    if got != want:
        logger.warning("nanotoken and tokenizers disagree on this tokenizer; using tokenizers, which is slower")
        return None
    return fast


def _write_entry(entry: Path, tokens: TokenArray) -> None:
    with whole_folder(entry) as folder:
        np.save(folder / "ids.npy", tokens.ids)
        np.save(folder / "offsets.npy", tokens.offsets)
        (folder / "entry.json").write_text(json.dumps(_checksums(tokens)))


def _read_entry(entry: Path, texts: int, vocabulary_size: int) -> TokenArray | None:
    try:
        if not entry.is_dir():
            return None
        # Copy-on-write mapping: nothing is read before it is used, and torch may share the memory.
        with warnings.catch_warnings(action="error"):  # of headers as Python 2 wrote them
            ids = np.load(entry / "ids.npy", mmap_mode="c", allow_pickle=False)
            offsets = np.load(entry / "offsets.npy", allow_pickle=False)
        known = json.loads((entry / "entry.json").read_text())
        sound = (
            ids.dtype == np.int32
            and offsets.dtype == np.int64
            and len(offsets) == texts + 1
            and offsets[0] == 0
            and offsets[-1] == len(ids)
            and bool((np.diff(offsets) >= 0).all())
            and known == _checksums(TokenArray(ids, offsets))
            and (len(ids) == 0 or (ids.min() >= 0 and ids.max() < vocabulary_size))
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, SyntaxError, TokenError, Warning):  # numpy's headers
        sound = False
    if not sound:
        logger.warning("the token cache entry %s is damaged; making it anew", entry.name)
        return None
    return TokenArray(ids, offsets)


def _checksums(tokens: TokenArray) -> dict[str, int]:
    return {"ids": _checksum(tokens.ids), "offsets": _checksum(tokens.offsets)}


def _checksum(numbers: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(numbers).data) if len(numbers) else 0
