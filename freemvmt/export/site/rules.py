"""Tables for JavaScript of how the tokenizer (Rust) and the word analysis (Python) treat each character.

Browsers have newer Unicode tables than these libraries, and each browser has its own. So every character is passed
through the libraries once, in blocks, and the output is recorded.
"""

import functools
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from freemvmt.data.tokenizer import Tokenizer
from freemvmt.errors import UserError
from freemvmt.search.index import analysis

Ranges = list[int]  # first and last code point of each range, in one flat list

_SYLLABLES = range(0xAC00, 0xAC00 + 11_172)  # Hangul syllables, which have a rule in place of a table
_BLOCK_SIZE = 4096
_SEPARATOR = "0"  # between the characters of a block; no other character is normalized to it
_ALL_CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]


def tokenizer_rules(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokenizer for JavaScript: its vocabulary by id, its settings, and ``characters`` (see ``_characters``).

    Raises ``UserError`` for a tokenizer other than WordPiece with BERT's normalizer and pre-tokenizer.
    """
    definition = json.loads(tokenizer.definition)
    model = definition["model"]
    kinds = [(definition.get(part) or {}).get("type") for part in ("model", "normalizer", "pre_tokenizer")]
    if kinds != ["WordPiece", "BertNormalizer", "BertPreTokenizer"]:
        raise UserError(f"a page cannot read with this tokenizer ({', '.join(map(str, kinds))}); only BERT's WordPiece")
    vocabulary = [""] * tokenizer.vocabulary_size
    for token, number in model["vocab"].items():
        vocabulary[number] = token
    added = {}
    for token in definition.get("added_tokens", []):
        if token["normalized"] or token["single_word"] or token["lstrip"] or token["rstrip"]:
            raise UserError(f"a page cannot read with the added token {token['content']!r}; only plain special tokens")
        added[token["content"]] = token["id"]
    return {
        "vocabulary": vocabulary,
        "added": added,
        "unknown": vocabulary.index(model["unk_token"]),
        "prefix": model["continuing_subword_prefix"],
        "longest_word": model["max_input_chars_per_word"],
        "most_tokens": tokenizer.max_length,
        "characters": _characters(json.dumps([definition["normalizer"], definition["pre_tokenizer"]])),
    }


@functools.cache
def _characters(definition: str) -> dict[str, Any]:
    """How a normalizer and a pre-tokenizer, given as JSON, treat each character.

    ``removed``, ``spaced`` (put between two spaces): ranges of characters; ``becomes``: output of other characters that
    change; ``hangul``: whether syllables are decomposed. ``late``: marks that canonical ordering moves, with their
    order; ``barriers``: removed marks that no mark is moved across. ``white``, ``alone``: ranges of characters that
    separate words, and of characters that are words of their own.
    """
    from tokenizers import Tokenizer as HFTokenizer

    normalizer, pre_tokenizer = json.loads(definition)
    words = {"type": "WordLevel", "vocab": {}, "unk_token": ""}  # nosec B105
    tokenizer = {"version": "1.0", "model": words, "added_tokens": []}
    reference = HFTokenizer.from_str(
        json.dumps({**tokenizer, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer})
    )
    normalize = reference.normalizer.normalize_str
    becomes = dict(zip(_ALL_CHARACTERS, _normalize_each(normalize, _ALL_CHARACTERS), strict=True))
    removed = [character for character, output in becomes.items() if output == ""]
    late = _reordered_marks(normalize, becomes)
    spaced = [character for character, output in becomes.items() if output == f" {character} "]
    excluded = {*removed, *spaced, *map(chr, _SYLLABLES)}
    white, alone = _word_boundaries(reference.pre_tokenizer.pre_tokenize_str)
    return {
        "removed": ranges_of(removed),
        "spaced": ranges_of(spaced),
        "becomes": {
            character: output
            for character, output in becomes.items()
            if output != character and character not in excluded
        },
        "hangul": becomes["가"] != "가",
        "late": late,
        "barriers": ranges_of(_barriers(normalize, removed, late)),
        "white": ranges_of(white),
        "alone": ranges_of(alone),
    }


@functools.cache
def word_rules() -> dict[str, Any]:
    """The word analysis of ``search/index/analysis.py`` for JavaScript, as ranges of characters.

    ``unassigned``: not in Python's Unicode, so never letters; ``folds``: the case folding of each character that it
    changes; ``ignored``: removed after folding. Words consist of ``spaceless``, ``others`` and ``marks``; each of the
    ``symbols`` is also a word by itself.
    """
    characters = [chr(code) for code in range(analysis.LAST_CODE + 1)]
    ignored = analysis.matches(analysis.IGNORED)
    unassigned = np.array(
        [unicodedata.category(character) == "Cn" and not ignored.match(character) for character in characters]
    )
    spaceless, others, marks = analysis.classes(analysis.LAST_CODE)
    return {
        "unassigned": analysis.code_ranges(unassigned),
        "folds": {character: folded for character in characters if (folded := character.casefold()) != character},
        "ignored": analysis.parse_ranges(analysis.IGNORED),
        "spaceless": spaceless,
        "others": others,
        "marks": marks,
        "symbols": analysis.parse_ranges(analysis.SYMBOLS),
        "stop": sorted(analysis.STOP_WORDS),
        "longest": analysis.MAX_WORD_LENGTH,
    }


def ranges_of(characters: Iterable[str]) -> Ranges:
    """The ranges of ``characters``, which are sorted by code point."""
    ranges: Ranges = []
    for code in map(ord, characters):
        if ranges and ranges[-1] == code - 1:
            ranges[-1] = code
        else:
            ranges += [code, code]
    return ranges


def _normalize_each(normalize: Callable[[str], str], texts: list[str]) -> Iterator[str]:
    """The normalized form of each of ``texts``, computed in blocks; the separator itself is not changed."""
    for start in range(0, len(texts), _BLOCK_SIZE):
        block = ["" if text == _SEPARATOR else text for text in texts[start : start + _BLOCK_SIZE]]
        outputs = normalize(_SEPARATOR.join(["", *block, ""])).split(_SEPARATOR)[1:-1]
        assert len(outputs) == len(block)
        yield from (_SEPARATOR if text == "" else output for text, output in zip(block, outputs, strict=True))


def _reordered_marks(normalize: Callable[[str], str], becomes: dict[str, str]) -> dict[str, int]:
    """The marks that stay and that canonical ordering may move, with numbers that increase with their class."""
    marks = [mark for mark in becomes if unicodedata.combining(mark) and becomes[mark] == mark]
    pairs = [(first, second) for first in marks for second in marks]
    outputs = zip(pairs, _normalize_each(normalize, [first + second for first, second in pairs]), strict=True)
    classes: dict[str, int] = {}
    for (first, second), output in outputs:
        if output == second + first != first + second:
            classes[first] = classes.get(first, 1) + 1
            classes.setdefault(second, 1)
    return classes


def _barriers(normalize: Callable[[str], str], removed: list[str], late: dict[str, int]) -> list[str]:
    if not late:
        return []
    high, low = max(late, key=late.__getitem__), min(late, key=late.__getitem__)
    outputs = _normalize_each(normalize, [high + mark + low for mark in removed])
    return [mark for mark, output in zip(removed, outputs, strict=True) if output == high + low]


def _word_boundaries(pre_tokenize: Callable[[str], list[tuple[str, tuple[int, int]]]]) -> tuple[list[str], list[str]]:
    """(characters that separate words and are dropped, characters that are words of their own)."""
    white, alone = [], []
    for start in range(0, len(_ALL_CHARACTERS), _BLOCK_SIZE):
        block = _ALL_CHARACTERS[start : start + _BLOCK_SIZE]
        text = _SEPARATOR.join(["", *block, ""])
        in_word, is_word = bytearray(len(text)), bytearray(len(text))
        for _, (first, stop) in pre_tokenize(text):
            in_word[first:stop] = b"\1" * (stop - first)
            is_word[first] |= stop - first == 1
        # A separator may be a word of its own, too: only the positions of the characters count.
        for position, character in zip(range(1, len(text), 2), block, strict=True):
            if not in_word[position]:
                white.append(character)
            elif is_word[position]:
                alone.append(character)
    return white, alone
