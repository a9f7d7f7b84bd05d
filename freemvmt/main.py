"""`python main.py`: train two towers, with the flags of `two-towers train`; with --sweep, search for good settings."""

import sys

from freemvmt.cli.sweep import run_sweep_command
from freemvmt.cli.train import train
from freemvmt.runtime.exit_codes import run


def main() -> int:
    """Train, or with --sweep run the basic sweep (or the one that --config names)."""
    arguments = sys.argv[1:]
    if "--sweep" in arguments:
        arguments.remove("--sweep")
        return run(lambda: run_sweep_command(arguments, prog="main.py --sweep"), arguments)
    return run(lambda: train(arguments, prog="main.py"), arguments)


if __name__ == "__main__":
    sys.exit(main())
