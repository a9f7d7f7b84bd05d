"""Other processes that run this package's Python."""

import sys
from pathlib import Path

_PACKAGE_PARENT = Path(__file__).parents[2]


def command_of(function: str) -> list[str]:
    """The command of a process that calls ``function``, such as ``freemvmt.tuning.worker.main``."""
    module, _, name = function.rpartition(".")
    code = f"import sys; sys.path.append(sys.argv[1]); from {module} import {name}; {name}()"
    # -P: no imports from the current folder, which may have a json.py.
    return [sys.executable or "python", "-P", "-c", code, str(_PACKAGE_PARENT)]
