"""Counts what was read from a folder, and what was passed over."""

from freemvmt.runtime.console import Console, count_of

_MAX_NAMED = 5  # files on lines of their own


class FolderReport:
    """The counts of a folder: its files, those without text (``empty``), and those that cannot be read."""

    def __init__(self) -> None:
        self.files = 0
        self.empty = 0
        self.passed_over = 0
        self.present: set[str] = set()  # the files that have a document, read now or before
        self._lines: list[str] = []

    def pass_over(self, name: str, reason: str) -> None:
        """Count a file that cannot be read."""
        self.passed_over += 1
        if len(self._lines) < _MAX_NAMED:
            self._lines.append(f"passed over {name}: {reason}")

    def documents(self, count: int) -> str:
        """A number of documents, and of the files that they come from, if they come from files."""
        return count_of(count, "document") + (f" from {count_of(self.files, 'file')}" if self.files else "")

    def summary(self) -> dict[str, int]:
        """The counts as a JSON object; empty if nothing was read from files."""
        return {"files": self.files, "passed_over": self.passed_over, "empty": self.empty} if self.files else {}

    def lines(self) -> list[str]:
        """A line for each of the first files that were passed over, and the number of all others."""
        lines = list(self._lines)
        if self.passed_over > len(lines):
            lines.append(f"… and {self.passed_over - len(lines):,} more")
        if self.empty:
            lines.append(f"{count_of(self.empty, 'file is', 'files are')} empty")
        return lines

    def print(self, console: Console) -> None:
        """Print the ``lines`` below the line of what was read."""
        for line in self.lines():
            console.line(f"          {line}")
