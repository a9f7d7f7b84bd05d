"""Upload a model folder to the Hugging Face Hub in one commit: its files, and a model card with metadata."""

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
    WEIGHT_FILES,
    check_files,
    read_description,
)

_FILES = (*WEIGHT_FILES, TOKENIZER, "config.json", ACCUMULATORS, METRICS, PICTURE)  # deleted on the Hub if absent here


@dataclass(frozen=True)
class PushResult:
    """``url`` of the model's page, or of the pull request, and the id of the commit."""

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
) -> PushResult:
    """Upload the model in ``folder`` to ``name`` (owner/name) on the Hub; the repository is created if necessary.

    The token is that of `hf auth login`, or HF_TOKEN. ``scores`` are files with the output of `evaluate --json`; the
    card shows them beside the validation score. The upload is one commit, so a reader never gets half a model.

    Raises ``UserError`` when the folder is not a valid model, a file of scores is invalid, or the Hub refuses.
    """
    _check_name(name)
    description = read_description(folder / "config.json")
    files = [file for file in _FILES if (folder / file).is_file()]
    TwoTowersModel.load(folder)  # do not upload a model that cannot be loaded
    if ACCUMULATORS in files:
        check_files(folder, description, ACCUMULATORS)
    card = card_for(folder, description, name, language, license, [_read_scores(path) for path in scores])
    with _hub_session(name):
        api = HfApi(library_name="two-towers")
        api.create_repo(name, private=private, exist_ok=True)
        remote_files = set(api.list_repo_files(name))
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(file, folder / file) for file in files
        ]
        operations.append(CommitOperationAdd("README.md", card.encode()))
        operations += [CommitOperationDelete(file) for file in _FILES if file in remote_files and file not in files]
        commit = api.create_commit(name, operations, commit_message=message, create_pr=pull_request)
    return PushResult(commit.pr_url or f"{api.endpoint}/{name}", commit.oid)


def card_for(
    folder: Path,
    description: dict[str, Any],
    name: str,
    language: str | None = None,
    license: str | None = None,
    reports: Sequence[dict[str, Any]] = (),
) -> str:
    """The README.md of ``folder`` for the Hub name ``name``: its own text, with complete front matter.

    Existing entries of the front matter stay, except the name and the scores: the scores come from the training record
    and from ``reports``, the outputs of `evaluate --json`.
    """
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else f"# {name}\n"
    try:
        card = ModelCard(text.replace(f'load("{folder.name}")', f'load("{name}")'), ignore_metadata_errors=True)
    except (ValueError, import_module("yaml").YAMLError) as error:
        raise UserError(f"the front matter of {path} cannot be read ({error}); mend it, or take it out") from error
    new_data = metadata(description["model"]["base"], description["training"], name)
    results = [score for report in reports for score in evaluations(report)]
    new_data.eval_results = [*(new_data.eval_results or []), *results] or None
    for key, value in vars(new_data).items():
        if value is not None and (key in ("eval_results", "model_name") or card.data.get(key) is None):
            setattr(card.data, key, value)
    for key, value in (("language", language), ("license", license)):
        if value is not None:
            setattr(card.data, key, value)
    return str(card)


def _read_scores(path: Path) -> dict[str, Any]:
    try:
        check_regular(path)
        scores = json.loads(path.read_text(encoding="utf-8"))
        evaluations(scores)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} does not hold scores ({type(error).__name__}: {error}); "
            "write it by `two-towers evaluate MODEL COLLECTION --json`"
        ) from error
    if not scores["queries"]:
        raise UserError(f"{path} holds scores of no query; measure the model on a collection with queries")
    return dict(scores)


def _check_name(name: str) -> None:
    if name.count("/") != 1 or not hub.is_name(name):
        raise UserError(f"{name!r} is no name for a model on the Hub; give owner/name")


@contextmanager
def _hub_session(name: str) -> Iterator[None]:
    """A context for calls to the Hub: its client prints nothing, and an error becomes a ``UserError`` of one line."""
    if not hub.reachable():
        raise hub.Unavailable(f"{hub.UNREACHABLE}; go online and push again")
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
        raise hub.Unavailable(f"cannot write {name} to the Hub: {hub.reason_of(error)}; push again later") from error
