"""`two-towers push`: upload a model to the Hugging Face Hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from freemvmt.cli.parsing import Options, parse


@dataclass(frozen=True, kw_only=True)
class PushOptions(Options):
    """Put a model on the Hugging Face Hub, with a card that says what it is and how good."""

    model: Annotated[str, tyro.conf.arg(metavar="MODEL"), tyro.conf.Positional]
    """A model folder."""
    name: Annotated[str, tyro.conf.arg(metavar="NAME"), tyro.conf.Positional]
    """Its name on the Hub, owner/name; made if it is not there."""
    private: bool = False
    """For you alone, if it is made now."""
    pull_request: bool = False
    """Open a pull request in place of a commit."""
    scores: tuple[str, ...] = ()
    """Files of what `two-towers evaluate --json` printed: these scores stand in the card too."""
    language: str | None = None
    """Language of the texts, such as en, for the card."""
    license: str | None = None
    """Licence, such as apache-2.0, for the card."""
    message: str = "A two-towers model"
    """What the commit is called."""


def push(argv: Sequence[str]) -> int:
    """Put a model on the Hugging Face Hub."""
    options = parse(PushOptions, argv, "two-towers push")
    from freemvmt.export import hub as publishing

    console = options.console()
    result = publishing.push(
        Path(options.model),
        options.name,
        private=options.private,
        pull_request=options.pull_request,
        language=options.language,
        license=options.license,
        scores=[Path(path) for path in options.scores],
        message=options.message,
    )
    console.line(f"pushed    {result.url}")
    return options.finish({"model": options.model, "url": result.url, "commit": result.commit})
