"""`python -m freemvmt` is `two-towers`."""

import sys

from freemvmt.cli import main

if __name__ == "__main__":
    sys.exit(main())
