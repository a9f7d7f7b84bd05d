"""The `two-towers` command: the table of its commands, and the module of each.

Each command has a dataclass of options (``XOptions``), and a function that parses the flags, calls the package and
prints the result. ``parsing`` reads the flags of all commands. A command's module is imported only when the command is
called, so the overview appears at once. This module imports only the standard library and ``errors``.

Exit codes: 0 done; 2 the user can correct the error (one line says what is wrong, and what to do); 1 any other error.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from freemvmt.errors import UserError

# Command -> its module, and the first line of its function's docstring. Command and function have the same name.
VERBS = {
    "quickstart": (
        "quickstart",
        "Train, measure and search a folder of documents, or the docs installed here.",
    ),
    "train": ("train", "Train a model and save it."),
    "evaluate": ("evaluate", "Measure a model on a collection."),
    "compare": ("evaluate", "Compare two models on a collection."),
    "mine": ("mine", "Find hard negatives for training pairs."),
    "sweep": ("sweep", "Search for good settings."),
    "encode": ("encode", "Write the vectors of a corpus as Parquet shards."),
    "report": ("report", "Lay trained models side by side on one page."),
    "export": ("export", "Write a model in the form that others read, or a bundle as a site."),
    "push": ("push", "Put a model on the Hugging Face Hub."),
    "index": ("index", "Index a corpus with a model into a bundle."),
    "retune": ("retune", "Give a bundle another query tower, without indexing it again."),
    "search": ("search", "Search a bundle."),
    "add": ("documents", "Add documents to a bundle, without indexing it again."),
    "sync": ("sync", "Bring a bundle in step with a folder of files."),
    "delete": ("documents", "Delete documents from a bundle."),
    "serve": ("serve", "Serve a bundle over HTTP, with a search page; with no bundle, the docs installed here."),
    "mcp": ("mcp", "Let agents search a bundle, by the Model Context Protocol."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of `two-towers`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = arguments[0] if arguments else "--help"
    if verb in ("-h", "--help"):
        sys.stdout.write(_overview())
        return 0
    if verb == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"two-towers {version('two-towers')}\n")
        return 0
    from freemvmt.runtime.exit_codes import run

    return run(lambda: _function(verb)(arguments[1:]), arguments)


def _function(verb: str) -> Callable[[Sequence[str]], int]:
    if verb not in VERBS:
        raise UserError(f"there is no command {verb!r}; the commands are {', '.join(VERBS)}")
    function: Callable[[Sequence[str]], int] = getattr(import_module(f"freemvmt.cli.{VERBS[verb][0]}"), verb)
    return function


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in VERBS.items()]
    return "\n".join(
        [
            "usage: two-towers COMMAND [flags]",
            "",
            "A two-tower document retriever: train it, measure it, search with it.",
            "",
            *lines,
            "",
            "two-towers COMMAND --help shows a command's flags.",
            "",
        ]
    )
