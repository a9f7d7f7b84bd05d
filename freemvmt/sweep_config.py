"""`python sweep_config.py`: the named sweeps as a command.

    cd freemvmt && uv run python sweep_config.py --config basic --count 10

The sweeps themselves are in ``freemvmt.tuning.spaces``, in W&B's sweep format.
"""

import sys

from freemvmt.cli.sweep import run_sweep_command
from freemvmt.runtime.exit_codes import run
from freemvmt.tuning.spaces import SWEEPS, definition

__all__ = ["SWEEPS", "definition", "run_sweep_command"]

if __name__ == "__main__":
    sys.exit(run(lambda: run_sweep_command(sys.argv[1:], prog="sweep_config.py"), sys.argv[1:]))
