"""How every command ends.

Exit codes: 0 done; 2 what the user gave is wrong (one line says what, and what to do); 1 anything else. With
``--json`` what is wrong is one JSON object on stdout too: ``{"error": "…"}``.
"""

import contextlib
import io
import sys
from collections.abc import Callable, Sequence

from freemvmt.errors import UserError
from freemvmt.runtime.console import report
from freemvmt.runtime.cores import obey_container
from freemvmt.runtime.home import provide_home

LEFT_OUT = ("torch", "pyarrow", "transformers", "datasets", "safetensors", "bm25s", "ir_measures")  # by serve-lite


def run(action: Callable[[], object], argv: Sequence[str] = ()) -> int:
    """Do ``action``, which ``argv`` asks for; errors of the user become one line and 2, an interruption or a closed
    pipe become 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path need not be UTF-8, a terminal need not show "±"
            stream.reconfigure(errors="backslashreplace")
    try:
        obey_container()
        provide_home()
        result = action()
        sys.stdout.flush()
    except UserError as error:
        return _refused(" ".join(str(error).split()), argv)
    except ModuleNotFoundError as error:
        if error.name not in LEFT_OUT:
            raise
        needed = f"this needs {error.name}, which an environment made only to serve leaves out"
        return _refused(f"{needed}; install two-towers whole", argv)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        instead = "free some, or give less at once (--batch-size, --max-samples)"
        return _refused(f"there is not enough memory for this; {instead}", argv)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 1
    except BrokenPipeError:
        sys.stdout = io.StringIO()  # nobody reads on: nothing more to flush at the end
        return 1
    return result if isinstance(result, int) else 0


def _refused(message: str, argv: Sequence[str]) -> int:
    """Say what is wrong on stderr, and where ``argv`` asks for JSON on stdout; return the exit code."""
    from freemvmt.runtime.console import fail

    fail(message)
    words = list(argv[: argv.index("--")] if "--" in argv else argv)  # what follows is no flag
    asked = [word for word in words if word in ("--json", "--no-json")]
    with contextlib.suppress(OSError):  # nobody reads it
        report(asked[-1:] == ["--json"], {"error": message})
        sys.stdout.flush()
    return 2


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory was asked for and not had: numpy and Arrow say so by type, torch, CUDA and threads in words."""
    words = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "can't start new thread")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
