"""The flags of every command, from the dataclasses that tyro makes them of, and values to try each with."""

import contextlib
import dataclasses
import importlib
import typing
from collections.abc import Iterator, Mapping
from unittest import mock

import tyro

from freemvmt import cli
from freemvmt.cli import parsing
from freemvmt.config import flag


def commands() -> dict[str, type]:
    """For each command the dataclass of its flags: what it gives to the parser."""
    return {verb: _options(verb) for verb in cli.VERBS}


def _options(verb: str) -> type:
    modules = [
        importlib.import_module(f"freemvmt.cli.{name}") for name in sorted({name for name, _ in cli.VERBS.values()})
    ]
    parser = mock.Mock(side_effect=StopIteration)
    with contextlib.ExitStack() as stack:
        for module in (*modules, parsing):
            stack.enter_context(mock.patch.object(module, "parse", parser))
        stack.enter_context(contextlib.suppress(StopIteration))
        cli._function(verb)([])
    kind: type = parser.call_args.args[0]
    return kind


def flags_of(command: str, kind: type, values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each flag of ``kind`` with each value that it is tried with, and the name of its field.

    ``values`` are those that do not follow from the type of a field, by its name, or by command and name.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        marks = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
        if tyro.conf.Positional in marks or tyro.conf.Suppress in marks:
            continue
        plain = typing.get_type_hints(kind)[field.name]
        given = entry(values, command, field.name)
        for value in [given] if given else _values(command, field, plain):
            yield (value if value.startswith("--") else f"{flag(field.name)} {value}"), field.name


def entry(table: Mapping[str, str], command: str, name: str) -> str:
    """What ``table`` says of a flag of ``command``, or of every flag of that name; else nothing."""
    return table.get(f"{command} {name}") or table.get(name, "")


def _values(command: str, field: "dataclasses.Field[object]", hint: object) -> list[str]:
    options = [one for one in typing.get_args(hint) if one is not type(None)]
    if field.default is None and len(options) == 1:
        hint = options[0]
        options = list(typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return [str(one) for one in options if one != field.default]
    if hint is bool:
        return [flag(f"no_{field.name}" if field.default else field.name)]
    default = 0 if field.default is None else field.default
    if hint is int and isinstance(default, int):
        return [str(default + 1 if default else 2)]
    if hint is float and isinstance(default, float | int):
        return [str(default / 2 if default else 0.5)]
    raise AssertionError(f"{command} has a new flag, {flag(field.name)}: say a value of it in VALUES")
