"""Read and replace the truncation and padding settings of a tokenizer.json; its other text stays the same.

A base model's file often truncates and pads to another length than our model. The file that we write has the model's
settings. The original settings are stored with the model, so that the original definition can be restored: it is
part of the identity of the model's vectors.
"""

import json
from collections.abc import Iterator, Mapping

Settings = Mapping[str, str | None]  # name (of NAMES) -> JSON text of its value; None: the file does not have it
NAMES = ("truncation", "padding")


def settings_of(definition: str) -> dict[str, str | None]:
    """The truncation and padding settings of ``definition``, the valid text of a tokenizer.json."""
    settings: dict[str, str | None] = dict.fromkeys(NAMES)
    settings.update({name: definition[value:stop] for name, _, value, stop in _members(definition) if name in NAMES})
    return settings


def own_settings(max_length: int) -> dict[str, str | None]:
    """Settings to truncate to ``max_length`` tokens without padding."""
    truncation = {"direction": "Right", "max_length": max_length, "strategy": "LongestFirst", "stride": 0}
    return {"truncation": json.dumps(truncation), "padding": "null"}


def with_settings(definition: str, settings: Settings) -> str:
    """``definition`` with ``settings``. Its former ``settings_of`` restore the original text."""
    members: dict[str, tuple[int, int, int]] = {}
    for name, start, value, stop in _members(definition):
        members[name] = (start, value, stop)
        if members.keys() >= settings.keys():
            break  # they stand before the vocabulary, which takes longest to read
    # From the end, so that earlier positions stay valid.
    for name in sorted(settings, key=lambda name: -members.get(name, (0,))[0]):
        new_value = settings[name]
        if name in members:
            start, value, stop = members[name]
            if new_value is None:
                definition = definition[:start] + definition[_after_space(definition, stop) + 1 :]  # with its comma
            else:
                definition = definition[:value] + new_value + definition[stop:]
        elif new_value is not None:
            insert_at = definition.index("{") + 1
            definition = f'{definition[:insert_at]}"{name}":{new_value},{definition[insert_at:]}'
    return definition


def _members(definition: str) -> Iterator[tuple[str, int, int, int]]:
    """(name, start, start of the value, end of the value) of each member of the JSON object."""
    decoder = json.JSONDecoder()
    position = _after_space(definition, definition.index("{") + 1)
    while definition[position] != "}":
        start = position
        name, position = decoder.raw_decode(definition, position)
        value = _after_space(definition, _after_space(definition, position) + 1)
        _, position = decoder.raw_decode(definition, value)
        yield name, start, value, position
        position = _after_space(definition, position)
        if definition[position] == ",":
            position = _after_space(definition, position + 1)


def _after_space(text: str, position: int) -> int:
    while text[position] in " \t\n\r":
        position += 1
    return position
