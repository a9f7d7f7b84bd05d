"""Keeps answers short: a model reads every character of them.

The texts and metadata of one answer have at most ``MOST_CHARACTERS`` together. Short documents leave what they do not
need to the long ones. What is left out is named, so that a model knows how to get it.
"""

import json
from collections.abc import Sequence
from typing import Any

from freemvmt.runtime.console import shorten

MOST_CHARACTERS = 20_000  # of the texts and metadata in an answer, about 5,000 tokens
MOST_IN_TITLE = 200
MOST_IN_METADATA = 2_000  # of one document
MOST_IN_PAGE = MOST_CHARACTERS - MOST_IN_METADATA  # of a text that is read in parts


def shares(lengths: Sequence[int], total: int) -> list[int]:
    """How many characters each of several texts may have, so that all have at most ``total``."""
    limits = [0] * len(lengths)
    left = total
    for done, number in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        limits[number] = min(lengths[number], left // (len(lengths) - done))
        left -= limits[number]
    return limits


def title_of(title: str) -> str:
    """``title`` in one line of at most ``MOST_IN_TITLE`` characters."""
    return shorten(" ".join(title.split()), MOST_IN_TITLE)


def fitting(metadata: dict[str, Any], most: int) -> tuple[dict[str, Any], list[str]]:
    """The fields whose JSON fits into ``most`` characters, in order, and the names of the others."""
    kept: dict[str, Any] = {}
    for name, value in metadata.items():
        characters = len(json.dumps({name: value}, ensure_ascii=False))
        if characters <= most:
            kept[name] = value
            most -= characters
    return kept, [name for name in metadata if name not in kept]


def cut_note(shown: int, characters: int, left_out: Sequence[str]) -> str:
    """What is missing: ``shown`` of a text's ``characters`` are there, and the fields ``left_out`` are not."""
    notes = [f"the text: {shown:,} of {characters:,} characters"] if shown < characters else []
    if left_out:
        notes.append(f"the fields {shorten(', '.join(left_out), MOST_IN_TITLE)}")
    return "; ".join(notes)
