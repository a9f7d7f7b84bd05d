"""Runs a command, prints its error, and returns its exit code.

Exit codes: 0 done; 2 the user can correct the error (one line says what is wrong, and what to do); 1 any other error.
With ``--json`` the error is also one JSON object on stdout: ``{"error": "…"}``.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Sequence

from freemvmt.errors import UserError
from freemvmt.runtime.console import print_json
from freemvmt.runtime.cores import limit_to_container
from freemvmt.runtime.devices import keep_arrow_to_malloc
from freemvmt.runtime.home import ensure_home

NOT_IN_SERVE_LITE = (
    "torch",
    "pyarrow",
    "transformers",
    "datasets",
    "safetensors",
    "bm25s",
    "ir_measures",
)  # the extra serve-lite leaves these out


def run(action: Callable[[], object], argv: Sequence[str] = ()) -> int:
    """Call ``action``, the command of ``argv``, and return the exit code.

    A ``UserError``, a missing library, a lack of memory and a full disk become one line and 2. An interruption and a
    closed pipe become 1. Other exceptions are raised.
    """
    _use_utf8()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path may not be UTF-8, a terminal may not show "±"
            stream.reconfigure(errors="backslashreplace")
    try:
        limit_to_container()
        keep_arrow_to_malloc()
        ensure_home()
        result = action()
        sys.stdout.flush()
    except UserError as error:
        return _report_error(" ".join(str(error).split()), argv)
    except ModuleNotFoundError as error:
        if error.name not in NOT_IN_SERVE_LITE:
            raise
        reason = f"this needs {error.name}, which an environment made only to serve leaves out"
        return _report_error(f"{reason}; install two-towers whole", argv)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        hint = "free some, or give less at once (--batch-size, --max-samples)"
        return _report_error(f"there is not enough memory for this; {hint}", argv)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 1
    except BrokenPipeError:
        sys.stdout = io.StringIO()  # nobody reads stdout any more: nothing to flush at exit
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.stdout = io.StringIO()  # it may be the full one
        return _report_error("no space is left to write to; free some, or write elsewhere", argv)
    return result if isinstance(result, int) else 0


def _use_utf8() -> None:
    """Start this process again in Python's UTF-8 mode, if it takes names of files, arguments and output for ASCII.

    Python does so in the locale C with ``PYTHONUTF8=0``. It can then open no file with an ``é`` in its name and write
    no ``é``, and half of the libraries below fail.
    """
    if sys.getfilesystemencoding() == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONUTF8": "1"})  # nosec B606


def _report_error(message: str, argv: Sequence[str]) -> int:
    """Print the error to stderr, and as JSON to stdout if ``argv`` asks for it; return the exit code."""
    from freemvmt.runtime.console import print_error

    print_error(message)
    flags = list(argv[: argv.index("--")] if "--" in argv else argv)  # after -- there are no flags
    json_flags = [flag for flag in flags if flag in ("--json", "--no-json")]
    with contextlib.suppress(OSError):  # nobody reads stdout
        print_json(json_flags[-1:] == ["--json"], {"error": message})
        sys.stdout.flush()
    return 2


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed. Numpy and Arrow raise ``MemoryError``; torch, CUDA and threads say it in words."""
    phrases = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "can't start new thread")
    return isinstance(error, MemoryError) or any(phrase in str(error) for phrase in phrases)
