"""A text becomes words: the one analysis of BM25, for what is measured, what is served, the static site and Milvus.

A text is normalised first: NFKC, case folding, no characters that are made to be ignored (soft hyphens, joiners). A
word is then a run of letters and digits with their combining marks; all else, ``_`` and apostrophes too, stands between
words. A longer run than 255 characters is cut into words of 255, so that no key or hash is lost. Scripts that put no
spaces between words are cut into overlapping pairs of characters; Chinese characters and Korean syllables count alone
too. English stop words go, and English words become their stems (Snowball).
"""

import base64
import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LONGEST_WORD = 255  # characters
STOP_WORDS = {
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not",
    "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was", "will",
    "with",
}  # fmt: skip
_VERSION = 2  # of these rules

# Characters that Unicode asks to ignore (Default_Ignorable_Code_Point); but for U+200B, which stands between words.
IGNORED = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Chinese characters and Korean syllables: each one means something.
SYMBOLS = (
    "\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003fffd"
)
# Kana, Bopomofo, Thai, Lao, Burmese, Khmer: sounds, written without spaces too.
_SOUNDS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff\ua9e0-\ua9ff"
    "\uaa60-\uaa7f\U0001aff0-\U0001afff\U0001b000-\U0001b16f"
)
LAST = 0x3FFFF  # no code point beyond is a letter
_MOST_KNOWN = 200_000  # different words that are remembered, some 40 MB
_PROBE = "Happily flies the 3rd running nationalization of Stra\u00dfen in M\u00fcnchen, \u6771\u4eac\u90fd"


def normalized(text: str) -> str:
    """``text`` in the form in which texts compare: NFKC, case folded, without characters that are made to be ignored.

    Half of a surrogate pair counts as U+FFFD.
    """
    if text.isascii():
        return text.lower()
    if matches("\ud800-\udfff").search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    folded = matches(IGNORED).sub("", unicodedata.normalize("NFKC", text).casefold())
    return unicodedata.normalize("NFKC", folded)


@functools.cache
def matches(characters: str) -> re.Pattern[str]:
    """What finds one of ``characters``, which may hold ranges."""
    return re.compile(f"[{characters}]")


def words_of(text: str) -> list[str]:
    """The words of ``text``, each as often as it stands there; those with other letters than ASCII's come last."""
    return spaced_words(text).split()


def spaced_words(text: str) -> str:
    """``words_of`` with blanks between them."""
    if text.isascii():
        return " ".join(map(_known().__getitem__, _ascii_runs(text)))
    parts = text.split()  # no word and no normalisation reaches across white space
    foreign = normalized(" ".join([part for part in parts if not part.isascii()]))
    runs = _patterns(_reach(foreign)).run.findall(foreign)
    plain = _ascii_runs(" ".join(filter(str.isascii, parts)))
    return " ".join(map(_known().__getitem__, [*plain, *runs]))


def _ascii_runs(text: str) -> list[bytes]:
    """Of an ASCII text; as bytes, which are several times as fast as a regular expression."""
    return text.encode().translate(_ASCII).split()


_ASCII = bytes(ord(chr(code).lower()) if chr(code).isalnum() else ord(" ") for code in range(128)).ljust(256)


def plain_words(text: str) -> str:
    """``spaced_words``, each as ASCII letters and digits, so that no other analyser takes it apart: else by a hash."""
    return " ".join(word if word.isascii() else _hashed(word) for word in words_of(text))


def _hashed(word: str) -> str:
    digest = hashlib.blake2b(word.encode(), digest_size=5).digest()
    return "0x" + base64.b32encode(digest).decode().lower()


def _reach(text: str) -> int:
    """Up to where classes of characters have to be known for ``text``: most need no others than the first 65,536."""
    return LAST if matches("\U00010000-\U0010ffff").search(text) else 0xFFFF


class _Patterns(NamedTuple):
    run: re.Pattern[str]  # of which words are made: of letters and digits, or of letters of a script without spaces
    letter: re.Pattern[str]  # one of a script without spaces, with its marks


@functools.cache
def _patterns(last: int) -> _Patterns:
    """For texts whose characters are ``last`` at most: fewer stretches make them faster."""
    spaceless, others, marks = map(_listed, classes(last))
    return _Patterns(
        re.compile(f"[{others}][{others}{marks}]*|[{spaceless}][{spaceless}{marks}]*"),
        re.compile(f"[{spaceless}][{marks}]*"),
    )


Stretches = list[int]  # the first and the last code point of each, one after the other


@functools.cache
def classes(last: int) -> tuple[Stretches, Stretches, Stretches]:
    """Code points, up to ``last``: letters of scripts without spaces; other letters, and digits; combining marks."""
    kinds = np.array([unicodedata.category(chr(code)) for code in range(last + 1)])
    apart = np.zeros(last + 1, np.bool_)
    for first, final in zip(*[iter(stretches_in(SYMBOLS + _SOUNDS))] * 2, strict=True):
        apart[first : final + 1] = True
    letters, digits = (kinds.astype("U1") == kind for kind in "LN")
    spaceless = (letters | (kinds == "Nl")) & apart
    return stretches(spaceless), stretches((letters | digits) & ~spaceless), stretches(np.isin(kinds, ("Mn", "Mc")))


def stretches(mask: NDArray[np.bool_]) -> Stretches:
    """Those of the code points where ``mask`` holds."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    edges[1::2] -= 1
    found: Stretches = edges.tolist()
    return found


def stretches_in(characters: str) -> Stretches:
    """Those that ``characters``, as a regular expression lists them, name."""
    return [ord(one) for first, final in re.findall("(.)(?:-(.))?", characters) for one in (first, final or first)]


def _listed(stretches: Stretches) -> str:
    pairs = zip(stretches[::2], stretches[1::2], strict=True)
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in pairs)


class _Known(dict[str | bytes, str]):
    """From a run to its words, made when they are first needed."""

    def __init__(self) -> None:
        import tantivy

        stemmer = tantivy.Filter.stemmer("english")
        self._stem = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.raw()).filter(stemmer).build().analyze

    def __missing__(self, run: str | bytes) -> str:
        text = run if isinstance(run, str) else run.decode()
        if not text.isascii():
            letter = _patterns(_reach(text)).letter
            if letter.match(text):
                return " ".join(_pairs(letter.findall(text)))
        pieces = [text[start : start + LONGEST_WORD] for start in range(0, len(text), LONGEST_WORD)]
        words = " ".join(stem for piece in pieces if piece not in STOP_WORDS for stem in self._stem(piece))
        if len(pieces) == 1:
            if len(self) >= _MOST_KNOWN:
                self.clear()
            self[run] = words
        return words


_known = functools.cache(_Known)


def _pairs(letters: list[str]) -> Iterator[str]:
    """Of a script without spaces: each pair of neighbours, and alone what counts alone, all with their marks."""
    for number, letter in enumerate(letters):
        if len(letters) == 1 or matches(SYMBOLS).match(letter):
            yield letter
        if number + 1 < len(letters):
            yield letter + letters[number + 1]


@functools.cache
def signature() -> str:
    """Which analysis this is: the number of its rules, and what this installation makes of a probe."""
    return f"{_VERSION}-{hashlib.blake2b(spaced_words(_PROBE).encode(), digest_size=4).hexdigest()}"
