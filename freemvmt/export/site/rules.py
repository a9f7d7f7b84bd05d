"""What Rust and Python do to each character, as tables that a browser can follow.

A browser's own Unicode is newer than that of the libraries, and another in each browser. So the libraries are asked:
every character is given to them once, in blocks, and what comes out is written down.
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

Ranges = list[int]  # first and last of each stretch of code points, one after the other

_SYLLABLES = range(0xAC00, 0xAC00 + 11_172)  # Hangul, which has a rule in place of a table
_BLOCK = 4096
_BETWEEN = "0"  # stands between the characters of a block; nothing else becomes it
_ALL = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]


def tokenizer_rules(tokenizer: Tokenizer) -> dict[str, Any]:
    """All that makes token ids of a text: the vocabulary by id, its settings, and ``characters``.

    Raises ``UserError`` for a tokenizer that is no WordPiece behind BERT's normalizer and pre-tokenizer.
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
def _characters(parts: str) -> dict[str, Any]:
    """How each character is treated by a normalizer and a pre-tokenizer, given as JSON.

    ``removed``, ``spaced`` (itself between two spaces): ranges; ``becomes``: what any other turns into; ``hangul``:
    whether syllables are taken apart. ``late``: marks that canonical order moves, by their class; ``barriers``: removed
    marks that it does not move others across. ``white``, ``alone``: what parts words, and is a word of its own.
    """
    from tokenizers import Tokenizer as HFTokenizer

    normalizer, pre_tokenizer = json.loads(parts)
    words = {"type": "WordLevel", "vocab": {}, "unk_token": ""}  # nosec B105
    plain = {"version": "1.0", "model": words, "added_tokens": []}
    reference = HFTokenizer.from_str(json.dumps({**plain, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer}))
    normalize = reference.normalizer.normalize_str
    becomes = dict(zip(_ALL, _each(normalize, _ALL), strict=True))
    removed = [character for character, found in becomes.items() if found == ""]
    late = _late(normalize, becomes)
    spaced = [character for character, found in becomes.items() if found == f" {character} "]
    by_rule = {*removed, *spaced, *map(chr, _SYLLABLES)}
    white, alone = _apart(reference.pre_tokenizer.pre_tokenize_str)
    return {
        "removed": ranges_of(removed),
        "spaced": ranges_of(spaced),
        "becomes": {one: found for one, found in becomes.items() if found != one and one not in by_rule},
        "hangul": becomes["가"] != "가",
        "late": late,
        "barriers": ranges_of(_barriers(normalize, removed, late)),
        "white": ranges_of(white),
        "alone": ranges_of(alone),
    }


@functools.cache
def word_rules() -> dict[str, Any]:
    """The analysis of ``search/analysis.py`` for a browser, whose own Unicode may be newer.

    ``unassigned`` is what this Unicode does not know, and so is no letter; ``folds``: what a character becomes when its
    case is folded, ``ignored``: what then goes. ``spaceless``, ``others``, ``marks``: of these are words; ``symbols``
    count alone too.
    """
    every = [chr(code) for code in range(analysis.LAST + 1)]
    ignored = analysis.matches(analysis.IGNORED)
    unassigned = np.array([unicodedata.category(one) == "Cn" and not ignored.match(one) for one in every])
    spaceless, others, marks = analysis.classes(analysis.LAST)
    return {
        "unassigned": analysis.stretches(unassigned),
        "folds": {one: found for one in every if (found := one.casefold()) != one},
        "ignored": analysis.stretches_in(analysis.IGNORED),
        "spaceless": spaceless,
        "others": others,
        "marks": marks,
        "symbols": analysis.stretches_in(analysis.SYMBOLS),
        "stop": sorted(analysis.STOP_WORDS),
        "longest": analysis.LONGEST_WORD,
    }


def ranges_of(characters: Iterable[str]) -> Ranges:
    """The stretches that ``characters``, in the order of their code points, make up."""
    found: Ranges = []
    for code in map(ord, characters):
        if found and found[-1] == code - 1:
            found[-1] = code
        else:
            found += [code, code]
    return found


def _each(normalize: Callable[[str], str], texts: list[str]) -> Iterator[str]:
    """What each of ``texts`` becomes, many at once; the separator itself stays what it is."""
    for start in range(0, len(texts), _BLOCK):
        block = ["" if text == _BETWEEN else text for text in texts[start : start + _BLOCK]]
        found = normalize(_BETWEEN.join(["", *block, ""])).split(_BETWEEN)[1:-1]
        assert len(found) == len(block)
        yield from (_BETWEEN if text == "" else out for text, out in zip(block, found, strict=True))


def _late(normalize: Callable[[str], str], becomes: dict[str, str]) -> dict[str, int]:
    """Marks that stay and that canonical order may move, each with a number that grows with its class."""
    marks = [mark for mark in becomes if unicodedata.combining(mark) and becomes[mark] == mark]
    pairs = [(one, other) for one in marks for other in marks]
    found = zip(pairs, _each(normalize, [one + other for one, other in pairs]), strict=True)
    late: dict[str, int] = {}
    for (one, other), out in found:
        if out == other + one != one + other:
            late[one] = late.get(one, 1) + 1
            late.setdefault(other, 1)
    return late


def _barriers(normalize: Callable[[str], str], removed: list[str], late: dict[str, int]) -> list[str]:
    if not late:
        return []
    high, low = max(late, key=late.__getitem__), min(late, key=late.__getitem__)
    found = _each(normalize, [high + mark + low for mark in removed])
    return [mark for mark, out in zip(removed, found, strict=True) if out == high + low]


def _apart(pre_tokenize: Callable[[str], list[tuple[str, tuple[int, int]]]]) -> tuple[list[str], list[str]]:
    """(characters that part words and are gone, characters that are words of their own)."""
    white, alone = [], []
    for start in range(0, len(_ALL), _BLOCK):
        block = _ALL[start : start + _BLOCK]
        text = _BETWEEN.join(["", *block, ""])
        kept, own = bytearray(len(text)), bytearray(len(text))
        for _, (first, stop) in pre_tokenize(text):
            kept[first:stop] = b"\1" * (stop - first)
            own[first] |= stop - first == 1
        # A separator between two that are apart from it is alone too: only the characters' own places count.
        for place, character in zip(range(1, len(text), 2), block, strict=True):
            if not kept[place]:
                white.append(character)
            elif own[place]:
                alone.append(character)
    return white, alone
