"""The text analysis of BM25: splits a text into words. Evaluation, bundles, the static site and Milvus all use it.

- A text is normalised: NFKC, case folding, and removal of ignorable characters (soft hyphens, joiners).
- A word is a run of letters and digits with their combining marks. All other characters separate words, ``_`` and
  apostrophes too.
- A run of more than 255 characters is cut into words of 255, so that long keys and hashes can still be found.
- Scripts without spaces between words are cut into overlapping pairs of characters; a Chinese character or a Korean
  syllable is also a word by itself.
- English stop words are removed, and English words are reduced to their stems (Snowball).
"""

import base64
import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from freemvmt.storage.digests import digest_of
from freemvmt.storage.files import storable

MAX_WORD_LENGTH = 255  # characters
STOP_WORDS = {
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not",
    "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was", "will",
    "with",
}  # fmt: skip
_VERSION = 2  # the version of the rules above

# Ignorable characters (Unicode: Default_Ignorable_Code_Point), except U+200B, which separates words.
IGNORED = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Chinese characters and Korean syllables: each has a meaning of its own.
SYMBOLS = (
    "\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003fffd"
)
# Kana, Bopomofo, Thai, Lao, Burmese, Khmer: they write sounds, also without spaces.
_SOUNDS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff\ua9e0-\ua9ff"
    "\uaa60-\uaa7f\U0001aff0-\U0001afff\U0001b000-\U0001b16f"
)
LAST_CODE = 0x3FFFF  # the last code point that may be a letter
_MAX_CACHED = 200_000  # different words in the cache, about 40 MB
_PROBE = "Happily flies the 3rd running nationalization of Stra\u00dfen in M\u00fcnchen, \u6771\u4eac\u90fd"


def normalized(text: str) -> str:
    """The normal form of ``text``, by which texts are compared: NFKC, case folded, without ignorable characters.

    A half of a surrogate pair becomes U+FFFD.
    """
    if text.isascii():
        return text.lower()
    if matches("\ud800-\udfff").search(text):
        text = storable(text)
    folded = matches(IGNORED).sub("", unicodedata.normalize("NFKC", text).casefold())
    return unicodedata.normalize("NFKC", folded)


@functools.cache
def matches(characters: str) -> re.Pattern[str]:
    """A pattern for one of ``characters``, which may contain ranges such as ``a-z``."""
    return re.compile(f"[{characters}]")


def words_of(text: str) -> list[str]:
    """The words of ``text``, repeated as often as they occur; words with non-ASCII characters come last."""
    return spaced_words(text).split()


def spaced_words(text: str) -> str:
    """The words of ``text``, joined by blanks."""
    if text.isascii():
        return " ".join(map(_run_cache().__getitem__, _ascii_runs(text)))
    chunks = text.split()  # neither words nor normalisation cross white space
    non_ascii = normalized(" ".join([chunk for chunk in chunks if not chunk.isascii()]))
    ascii_runs = _ascii_runs(" ".join(filter(str.isascii, chunks)))
    runs: list[str | bytes] = [*ascii_runs, *_pieces(_RUN, non_ascii)]
    return " ".join(map(_run_cache().__getitem__, runs))


def _ascii_runs(text: str) -> list[bytes]:
    """The runs of an ASCII text, as bytes: several times faster than a regular expression."""
    return text.encode().translate(_ASCII).split()


_ASCII = bytes(ord(chr(code).lower()) if chr(code).isalnum() else ord(" ") for code in range(128)).ljust(256)


def plain_words(text: str) -> str:
    """``spaced_words`` in ASCII letters and digits, so that no other analyser splits a word: others become a hash."""
    return " ".join(word if word.isascii() else _hashed(word) for word in words_of(text))


def _hashed(word: str) -> str:
    digest = hashlib.blake2b(word.encode(), digest_size=5).digest()
    return "0x" + base64.b32encode(digest).decode().lower()


class _Kinds(dict[int, str]):
    """The kind of each character, computed at its first use: ``s`` a letter of a script without spaces, ``o`` another
    letter or digit, ``m`` a combining mark, and a blank for all else."""

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code)) if code <= LAST_CODE else ""
        kind = "m" if category in ("Mn", "Mc") else "o" if category[:1] in ("L", "N") else " "
        if (category[:1] == "L" or category == "Nl") and matches(SYMBOLS + _SOUNDS).match(chr(code)):
            kind = "s"
        self[code] = kind
        return kind


_KINDS = _Kinds()
_RUN = re.compile("o[om]*|s[sm]*")  # in kinds: letters and digits, or letters of a script without spaces
_LETTER = re.compile("sm*")  # one letter of a script without spaces, with its marks


def _pieces(pattern: re.Pattern[str], text: str) -> list[str]:
    """The pieces of ``text`` whose kinds match ``pattern``."""
    return [text[match.start() : match.end()] for match in pattern.finditer(text.translate(_KINDS))]


CodeRanges = list[int]  # ranges of code points: the first and the last of each, one range after the other


@functools.cache
def classes(last: int) -> tuple[CodeRanges, CodeRanges, CodeRanges]:
    """Code points up to ``last``: letters of scripts without spaces, other letters and digits, and combining marks."""
    kinds = np.array(list("".join(map(chr, range(last + 1))).translate(_KINDS)))
    return code_ranges(kinds == "s"), code_ranges(kinds == "o"), code_ranges(kinds == "m")


def code_ranges(mask: NDArray[np.bool_]) -> CodeRanges:
    """The ranges of code points where ``mask`` is true."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    edges[1::2] -= 1
    ranges: CodeRanges = edges.tolist()
    return ranges


def parse_ranges(characters: str) -> CodeRanges:
    """The ranges in ``characters``, which are written as in a regular expression."""
    return [ord(end) for first, final in re.findall("(.)(?:-(.))?", characters) for end in (first, final or first)]


class _RunCache(dict[str | bytes, str]):
    """The words of each run, computed at its first use."""

    def __init__(self) -> None:
        import tantivy

        stemmer = tantivy.Filter.stemmer("english")
        self._stem = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.raw()).filter(stemmer).build().analyze

    def __missing__(self, run: str | bytes) -> str:
        text = run if isinstance(run, str) else run.decode()
        if not text.isascii() and (letters := _pieces(_LETTER, text)):
            return " ".join(_pairs(letters))
        pieces = [text[start : start + MAX_WORD_LENGTH] for start in range(0, len(text), MAX_WORD_LENGTH)]
        words = " ".join(stem for piece in pieces if piece not in STOP_WORDS for stem in self._stem(piece))
        if len(pieces) == 1:
            if len(self) >= _MAX_CACHED:
                self.clear()
            self[run] = words
        return words


_run_cache = functools.cache(_RunCache)


def _pairs(letters: list[str]) -> Iterator[str]:
    """The words of ``letters`` of a script without spaces: neighbouring pairs, and single symbols."""
    for number, letter in enumerate(letters):
        if len(letters) == 1 or matches(SYMBOLS).match(letter):
            yield letter
        if number + 1 < len(letters):
            yield letter + letters[number + 1]


@functools.cache
def signature() -> str:
    """The version of the rules, and a hash of the words that this installation makes of a sample text."""
    return f"{_VERSION}-{digest_of([spaced_words(_PROBE)], size=4)}"
