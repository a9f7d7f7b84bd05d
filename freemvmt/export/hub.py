"""A model folder goes to the Hugging Face Hub, in one commit: its files, and the card with what the Hub reads of it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, get_token
from huggingface_hub.errors import HfHubHTTPError

from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.storage import hub
from freemvmt.storage.files import check_regular
from freemvmt.storage.model_card import evaluations, metadata
from freemvmt.towers.model_folder import (
    ACCUMULATORS,
    METRICS,
    PICTURE,
    TOKENIZER,
    WEIGHTS,
    check_files,
    read_description,
)

_FILES = (WEIGHTS, TOKENIZER, "config.json")
_MORE = (ACCUMULATORS, METRICS, PICTURE)  # what not every model has; one that is no longer there goes from the Hub too


@dataclass(frozen=True)
class Pushed:
    """Where it is: the page of the model, or of the pull request, and the commit."""

    url: str
    commit: str


def push(
    folder: Path,
    name: str,
    *,
    private: bool = False,
    pull_request: bool = False,
    language: str | None = None,
    license: str | None = None,
    scores: Sequence[Path] = (),
    message: str = "A two-towers model",
) -> Pushed:
    """Write the model in ``folder`` to ``name`` (owner/name) on the Hub, which is made if it is not there.

    The token is that of `hf auth login`, or HF_TOKEN. ``scores`` are files of what `evaluate --json` printed; they
    join the validation score in the card. All of it is one commit, so nobody ever reads half a model.

    Raises ``UserError`` when the folder is no sound model, a file of scores is none, or the Hub refuses.
    """
    _check_name(name)
    description = read_description(folder / "config.json")
    kept = [file for file in _MORE if (folder / file).is_file()]
    TwoTowersModel.load(folder)  # what could not be loaded from there is not put there
    if ACCUMULATORS in kept:
        check_files(folder, description, ACCUMULATORS)
    card = card_for(folder, description, name, language, license, [_scores_of(path) for path in scores])
    with _asking(name):
        api = HfApi(library_name="two-towers")
        api.create_repo(name, private=private, exist_ok=True)
        there = set(api.list_repo_files(name))
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(file, folder / file) for file in (*_FILES, *kept)
        ]
        operations.append(CommitOperationAdd("README.md", card.encode()))
        operations += [CommitOperationDelete(file) for file in _MORE if file in there and file not in kept]
        done = api.create_commit(name, operations, commit_message=message, create_pr=pull_request)
    return Pushed(done.pr_url or f"{api.endpoint}/{name}", done.oid)


def card_for(
    folder: Path,
    description: dict[str, Any],
    name: str,
    language: str | None = None,
    license: str | None = None,
    measured: Sequence[dict[str, Any]] = (),
) -> str:
    """The README.md of ``folder`` under the name ``name``: its own words, and front matter that is complete.

    What stands in the front matter already stays, but for the scores, which are those of the record and ``measured``.
    """
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else f"# {name}\n"
    try:
        card = ModelCard(text.replace(f'load("{folder.name}")', f'load("{name}")'), ignore_metadata_errors=True)
    except (ValueError, import_module("yaml").YAMLError) as error:
        raise UserError(f"the front matter of {path} cannot be read ({error}); mend it, or take it out") from error
    fresh = metadata(description["model"]["base"], description["training"], name)
    found = [score for one in measured for score in evaluations(one)]
    fresh.eval_results = [*(fresh.eval_results or []), *found] or None
    for key, value in vars(fresh).items():
        if value is not None and (key in ("eval_results", "model_name") or card.data.get(key) is None):
            setattr(card.data, key, value)
    for key, value in (("language", language), ("license", license)):
        if value is not None:
            setattr(card.data, key, value)
    return str(card)


def _scores_of(path: Path) -> dict[str, Any]:
    try:
        check_regular(path)
        found = json.loads(path.read_text(encoding="utf-8"))
        evaluations(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} does not hold scores ({type(error).__name__}: {error}); "
            "write it by `two-towers evaluate MODEL COLLECTION --json`"
        ) from error
    if not found["queries"]:
        raise UserError(f"{path} holds scores of no query; measure the model on a collection with queries")
    return dict(found)


def _check_name(name: str) -> None:
    if name.count("/") != 1 or not hub.is_name(name):
        raise UserError(f"{name!r} is no name for a model on the Hub; give owner/name")


@contextmanager
def _asking(name: str) -> Iterator[None]:
    """Around what is asked of the Hub: its client is quiet, and what goes wrong is one line that says what to do."""
    if not hub.reachable():
        raise hub.Unavailable(f"{hub.AWAY}; go online and push again")
    if get_token() is None:
        raise UserError("there is no token to write to the Hub with; log in (hf auth login), or set HF_TOKEN")
    utils = import_module(hub.UTILS)
    try:
        with hub.quiet(utils):
            yield
    except (OSError, ValueError, RuntimeError, utils.httpx.HTTPError) as error:
        if isinstance(error, HfHubHTTPError) and (status := error.response.status_code) in (401, 403):
            raise UserError(
                f"the Hub does not let this token write to {name} ({status}); log in with one that may (hf auth login)"
            ) from error
        raise hub.Unavailable(f"cannot write {name} to the Hub: {hub.reason(error)}; push again later") from error
