"""The `two-towers` command: which verbs there are and where each lives.

A verb's module is imported when that verb is called, so the overview is there at once.
Exit codes: 0 done; 2 what the user gave is wrong (one line says what, and what to do); 1 anything else.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from freemvmt.errors import UserError

# For each verb the module that holds the function of that name, and the function's first line.
VERBS = {
    "quickstart": ("cli_model", "Train, measure and search the docs of the Python packages installed here."),
    "train": ("cli_model", "Train a model and save it."),
    "evaluate": ("cli_measure", "Measure a model on a collection."),
    "compare": ("cli_measure", "Compare two models on a collection."),
    "mine": ("cli_model", "Find hard negatives for training pairs."),
    "sweep": ("cli_model", "Search for good settings."),
    "encode": ("cli_bundle", "Write the vectors of a corpus as Parquet shards."),
    "report": ("cli_export", "Lay trained models side by side on one page."),
    "export": ("cli_export", "Write a model in the form that others read, or a bundle as a site."),
    "push": ("cli_export", "Put a model on the Hugging Face Hub."),
    "index": ("cli_bundle", "Index a corpus with a model into a bundle."),
    "search": ("cli_bundle", "Search a bundle."),
    "add": ("cli_bundle", "Add documents to a bundle, without indexing it again."),
    "delete": ("cli_bundle", "Delete documents from a bundle."),
    "serve": ("cli_serve", "Serve a bundle over HTTP, with a search page; with no bundle, the docs installed here."),
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
    from freemvmt.shell import run

    return run(lambda: _function(verb)(arguments[1:]), arguments)


def _function(verb: str) -> Callable[[Sequence[str]], int]:
    if verb not in VERBS:
        raise UserError(f"there is no command {verb!r}; the commands are {', '.join(VERBS)}")
    function: Callable[[Sequence[str]], int] = getattr(import_module(f"freemvmt.{VERBS[verb][0]}"), verb)
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
