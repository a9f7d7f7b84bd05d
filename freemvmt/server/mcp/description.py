"""What a model is told of a bundle that it has never seen: its size, some titles, and what a filter can use."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from freemvmt.data.documents import Document
from freemvmt.runtime.console import count_of, shorten
from freemvmt.search.retriever import Retriever
from freemvmt.search.stores.filters import FieldKind
from freemvmt.server.mcp.cutting import MOST_CHARACTERS

_EXAMPLES = 3  # documents that are named
_MOST_FIELDS = 20  # fields that are described; further ones can be used, and are not
_MOST_VALUES = 8  # values of a field that are named
_LONGEST = 60  # characters of a title, of a field's name and of a value that are named


@dataclass(frozen=True)
class Description:
    """One state of a bundle. ``fields`` are those that are described; ``values`` are the most frequent of a text."""

    name: str
    documents: int
    examples: list[Document]
    fields: dict[str, FieldKind]
    values: dict[str, list[str]]

    @property
    def contents(self) -> str:
        """What is in the bundle, in a sentence or two."""
        names = [shorten(" ".join((document.title or document.text).split()), _LONGEST) for document in self.examples]
        among = f" Among them: {_quoted(names)}." if names else ""
        return f'"{self.name}" holds {count_of(self.documents, "document")}.{among}'

    @property
    def search(self) -> str:
        """The description of the tool that searches."""
        lines = [
            f"Search documents by meaning and by words. {self.contents}",
            "Returns the k best documents, best first. Ask in plain words: a question or a few keywords. Try other "
            "words, or another method, when nothing fits.",
            f"An answer has at most {MOST_CHARACTERS:,} characters of text and metadata; `cut` says what is missing. "
            "Read a whole text by get.",
        ]
        if self.fields:
            lines.append(f"`filter` keeps documents by their metadata, such as {' or '.join(self._filters)}.")
        return "\n".join(lines)

    @property
    def _filters(self) -> list[str]:
        """Examples of filters on these fields."""
        examples: list[dict[str, Any]] = []
        for name, kind in self.fields.items():
            values = self.values.get(name, [])
            if kind == "string" and values:
                examples.append({name: values[0]})
                if len(values) > 1:
                    examples.append({name: values[:2]})
                break
        number = next((name for name, kind in self.fields.items() if kind == "number"), None)
        if number is not None:
            examples.append({number: {"gte": 1990, "lt": 2000}})
        flag = next((name for name, kind in self.fields.items() if kind == "boolean"), None)
        if flag is not None and not examples:
            examples.append({flag: True})
        return [json.dumps(example, ensure_ascii=False) for example in examples]

    def filter_schema(self) -> dict[str, Any]:
        """The JSON Schema of a filter on the documents."""
        return {
            "type": "object",
            "properties": {name: self._field_schema(name, kind) for name, kind in self.fields.items()},
            "description": "Conditions on metadata, all of which must hold: a value, a list of values (any of them), or"
            " a range of gte, gt, lte and lt. A list in a document is met by one of its members; text compares without"
            " case.",
        }

    def _field_schema(self, name: str, kind: FieldKind) -> dict[str, Any]:
        choices: list[dict[str, Any]] = [{"type": kind}, {"type": "array", "items": {"type": kind}}]
        if kind != "boolean":
            bounds = {bound: {"type": kind} for bound in ("gte", "gt", "lte", "lt")}
            choices.append({"type": "object", "properties": bounds, "additionalProperties": False})
        schema: dict[str, Any] = {"anyOf": choices}
        if values := self.values.get(name):
            schema["description"] = f"Most frequent: {_quoted(values)}."
        return schema


def _quoted(texts: Iterable[str]) -> str:
    return ", ".join(json.dumps(text, ensure_ascii=False) for text in texts)


def describe(retriever: Retriever) -> Description:
    """The description of the bundle that ``retriever`` searches, as it is now."""
    described = sorted((name, kind) for name, kind in retriever.fields.items() if len(name) <= _LONGEST)
    fields = dict(described[:_MOST_FIELDS])
    values = {
        name: [value for value in retriever.values(name, _MOST_VALUES) if value and len(value) <= _LONGEST]
        for name, kind in fields.items()
        if kind == "string"
    }
    name = shorten(" ".join(str(retriever.about["name"]).split()), _LONGEST)
    return Description(name, len(retriever), retriever.sample(_EXAMPLES), fields, values)
