"""What a tokenizer.json says of cutting and padding, and how to say something else there, its other text untouched.

The files that bases ship often cut and pad at a length of their own, which is not the model's. What we write says the
model's, and what stood there is kept beside, so that the definition that names a model's vectors stays what it was.
"""

import json
from collections.abc import Iterator, Mapping

Settings = Mapping[str, str | None]  # of NAMES, the text of the value; None: nothing is said
NAMES = ("truncation", "padding")


def settings_of(definition: str) -> dict[str, str | None]:
    """What ``definition``, the sound text of a tokenizer.json, says of cutting and padding."""
    found: dict[str, str | None] = dict.fromkeys(NAMES)
    found.update({name: definition[value:stop] for name, _, value, stop in _members(definition) if name in NAMES})
    return found


def own_settings(max_length: int) -> dict[str, str | None]:
    """Cut at ``max_length`` tokens, and no padding."""
    cut = {"direction": "Right", "max_length": max_length, "strategy": "LongestFirst", "stride": 0}
    return {"truncation": json.dumps(cut), "padding": "null"}


def with_settings(definition: str, settings: Settings) -> str:
    """``definition`` with ``settings`` in place of what it says; with ``settings_of`` it is again what it was."""
    there = {name: (start, value, stop) for name, start, value, stop in _members(definition)}
    for name in sorted(settings, key=lambda name: -there.get(name, (0,))[0]):  # from the end, so that places stay
        new = settings[name]
        if name in there:
            start, value, stop = there[name]
            if new is None:
                definition = definition[:start] + definition[_after_space(definition, stop) + 1 :]  # its comma too
            else:
                definition = definition[:value] + new + definition[stop:]
        elif new is not None:
            first = definition.index("{") + 1
            definition = f'{definition[:first]}"{name}":{new},{definition[first:]}'
    return definition


def _members(definition: str) -> Iterator[tuple[str, int, int, int]]:
    """(name, where it starts, where its value starts and stops) of each member of the object."""
    decoder = json.JSONDecoder()
    place = _after_space(definition, definition.index("{") + 1)
    while definition[place] != "}":
        start = place
        name, place = decoder.raw_decode(definition, place)
        value = _after_space(definition, _after_space(definition, place) + 1)
        _, place = decoder.raw_decode(definition, value)
        yield name, start, value, place
        place = _after_space(definition, place)
        if definition[place] == ",":
            place = _after_space(definition, place + 1)


def _after_space(text: str, place: int) -> int:
    while text[place] in " \t\n\r":
        place += 1
    return place
