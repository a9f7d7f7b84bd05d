"""The `two-towers` command: which commands there are, and the module of each.

One module a command: its options as a dataclass (``XOptions``), and a function that parses, calls the package and
reports. ``parsing`` reads flags for all of them. A command's module is imported when that command is called, so the
overview is there at once; this module imports nothing but the standard library and ``errors``.

Exit codes: 0 done; 2 what the user gave is wrong (one line says what, and what to do); 1 anything else.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from freemvmt.errors import UserError

# For each verb the module that holds the function of that name, and the function's first line.
VERBS = {
    "quickstart": ("quickstart", "Train, measure and search the docs of the Python packages installed here."),
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
    "search": ("search", "Search a bundle."),
    "add": ("documents", "Add documents to a bundle, without indexing it again."),
    "delete": ("documents", "Delete documents from a bundle."),
    "serve": ("serve", "Serve a bundle over HTTP, with a search page; with no bundle, the docs installed here."),
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
