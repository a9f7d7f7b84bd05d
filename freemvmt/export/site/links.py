"""Links from the hits of a site to the original pages.

template = LinkTemplate("https://docs.example.org/{stem}/#{anchor}", documents)
print(template.link(document, passage))  # https://docs.example.org/how-to/folders/#what-is-read

A placeholder is a text field of the metadata, or one of ``OWN``. Every value is percent-encoded and loses the slashes
at its beginning, so a document can change neither the scheme nor the host of its link.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from urllib.parse import quote

from freemvmt.data.documents import Document
from freemvmt.data.passages import BETWEEN, Passage
from freemvmt.errors import UserError

OWN = ("anchor", "id", "page", "stem", "title")

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_HTTP = re.compile(r"https?://[^/?#{}]+(?=[/?]|$)", re.IGNORECASE)  # the host is the template's own
_UNSAFE = re.compile(r"[\s\\\x00-\x1f\x7f]")
_STEM_FOLDER = "stem/"  # `{stem}/` in a template: of a file that is the page of its folder, the folder
_PAGE_OF_FOLDER = re.compile(r"(^|(?<=/))(index|README)/$")
_EXAMPLE = 'give one such as "https://docs.example.org/{path}#{anchor}"'


class LinkTemplate:
    """Makes the link of a hit from ``template``; ``UserError`` for one that is no safe address, or that names a field
    that none of ``documents`` has."""

    def __init__(self, template: str, documents: Iterable[Document]) -> None:
        self._address, _, self._fragment = template.replace("{stem}/", f"{{{_STEM_FOLDER}}}").partition("#")
        check_address(template)
        texts = {name for one in documents for name, value in one.metadata.items() if isinstance(value, str)}
        known = sorted({*OWN, *texts} - ({"stem"} if "path" not in texts else set()))
        for name in _PLACEHOLDER.findall(template):
            if name not in known:
                raise UserError(f"--url names {{{name}}}, which no document has; give {', '.join(known)}")

    def link(self, document: Document, passage: Passage | None) -> str | None:
        """The address of ``passage`` in the original of ``document``; None where a value is missing.

        The fragment is left out where a value of it is missing, as the anchor is above the first heading.
        """
        values = _values(document, passage)
        address = _filled(self._address, values)
        if address is None:
            return None
        fragment = _filled(self._fragment, values)
        return f"{address or './'}#{fragment}" if fragment else address or "./"


def check_address(template: str) -> None:
    """Raise ``UserError`` unless ``template`` is an address of http or https, or a relative one."""
    address = template.partition("#")[0]
    without = _PLACEHOLDER.sub("", template)
    if not address or _UNSAFE.search(template) or "{" in without or "}" in without:
        raise UserError(f"--url {template!r} is no template of an address; {_EXAMPLE}")
    if not _HTTP.match(address) and not _is_relative(address):
        raise UserError(f"--url {template!r} is neither http, https nor relative, or its host has a field; {_EXAMPLE}")


def slug(heading: str) -> str:
    """The anchor that MkDocs gives a heading: lower case, without punctuation, with hyphens for blanks."""
    kept = "".join(letter for letter in heading.lower() if letter.isalnum() or letter in "_-" or letter.isspace())
    return re.sub(r"[-\s]+", "-", kept.strip())


def _is_relative(address: str) -> bool:
    """Whether a browser finds neither a scheme nor a host in ``address``."""
    return ":" not in re.split(r"[/?]", address, maxsplit=1)[0] and not address.startswith("//")


def _values(document: Document, passage: Passage | None) -> dict[str, str | None]:
    """The value of each placeholder, percent-encoded; None where it is missing."""
    path = document.metadata.get("path")
    trail = "" if passage is None else passage.trail
    page = "" if passage is None or passage.page is None else str(passage.page)
    own = {"anchor": slug(trail.rpartition(BETWEEN)[2]), "id": document.id, "page": page, "title": document.title}
    stem = str(PurePosixPath(path).with_suffix("")) if isinstance(path, str) and PurePosixPath(path).name else ""
    fields = {name: value for name, value in document.metadata.items() if isinstance(value, str)}
    values: dict[str, str | None] = {name: _encoded(value) for name, value in {**own, "stem": stem, **fields}.items()}
    values[_STEM_FOLDER] = None if not values["stem"] else _PAGE_OF_FOLDER.sub("", f"{values['stem']}/")
    return values


def _encoded(value: str) -> str | None:
    return quote(value.lstrip("/"), safe="/", errors="replace") or None


def _filled(template: str, values: Mapping[str, str | None]) -> str | None:
    names = _PLACEHOLDER.findall(template)
    if any(values.get(name) is None for name in names):
        return None
    return _PLACEHOLDER.sub(lambda found: values[found[1]] or "", template)
