"""What a reader makes of a file, and the bounds that all readers keep."""

from dataclasses import dataclass

from freemvmt.data.documents import NO_OUTLINE, Heading, Outline

MAX_FILE_BYTES = 64 * 2**20  # of a file on disk
MAX_CHARACTERS = 20_000_000  # of a text that is unpacked from a file
MAX_TITLE = 200  # characters of a title or a heading

_TOO_LONG = f"its text has more than {MAX_CHARACTERS:,} characters"


class UnreadableError(Exception):
    """A file cannot be read. The message is the reason, in a few words."""


@dataclass(frozen=True)
class FileContent:
    """The text of a file and its outline; ``title`` is "" if the file has none."""

    text: str
    title: str = ""
    outline: Outline = NO_OUTLINE


class Blocks:
    """Joins blocks to a text, with a blank line between them, and keeps the place of each heading and page.

    Raises ``UnreadableError`` when the text becomes too long.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self.headings: list[Heading] = []
        self.pages: list[int] = []

    def add(self, block: str) -> int:
        """Append a block; return the character at which it begins."""
        if self._parts:
            self._parts.append("\n\n")
            self._length += 2
        start = self._length
        self._parts.append(block)
        self._length += len(block)
        if self._length > MAX_CHARACTERS:
            raise UnreadableError(_TOO_LONG)
        return start

    def add_heading(self, title: str, level: int) -> None:
        """Append a heading as a block."""
        title = one_line(title)
        self.headings.append(Heading(self.add(title), level, title))

    def add_page(self, text: str) -> None:
        """Append a page as a block, also if it is blank."""
        self.pages.append(self.add(text))

    @property
    def outline(self) -> Outline:
        """The headings and pages so far."""
        return Outline(tuple(self.headings), tuple(self.pages))

    def text(self) -> str:
        """The whole text."""
        return "".join(self._parts)


def one_line(title: str) -> str:
    """A title on one line, in at most ``MAX_TITLE`` characters."""
    return " ".join(title.split())[:MAX_TITLE].rstrip()


def first_title(headings: list[Heading]) -> str:
    """The title of the first heading of level 1, or ""."""
    return next((heading.title for heading in headings if heading.level == 1), "")


def line_starts(text: str) -> list[int]:
    """The character at which each line begins."""
    starts = [0]
    while end := text.find("\n", starts[-1]) + 1:
        starts.append(end)
    return starts
