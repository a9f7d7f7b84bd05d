"""Where the browser is."""

import os
import shutil

from freemvmt.errors import UserError


def find_chromium() -> str:
    """The browser's path."""
    names = [os.environ.get("TWO_TOWERS_CHROMIUM") or "chromium", "chromium-browser", "google-chrome"]
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise UserError(f"there is no {', '.join(names)}; install Chromium, or name it in TWO_TOWERS_CHROMIUM")
    return found
