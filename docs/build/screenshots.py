"""Pictures of the search page for the docs: the real server over a bundle, a query, and what Chromium draws.

    uv run python docs/build/screenshots.py BUNDLE --output docs/images --query "how do I sort a list"

Writes search.png, search-dark.png and search-phone.png. TWO_TOWERS_CHROMIUM names the browser's program.
"""

import argparse
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from chromium import find_chromium
from playwright.sync_api import Browser, sync_playwright

from freemvmt.errors import UserError
from freemvmt.search.retriever import Retriever
from freemvmt.server.http.listener import listen
from freemvmt.server.settings import ServeSettings
from freemvmt.server.uvicorn_server import make_server

LARGEST = 300_000  # bytes of a picture
PICTURES: dict[str, dict[str, Any]] = {
    "search.png": {"viewport": {"width": 1280, "height": 720}, "color_scheme": "light"},
    "search-dark.png": {"viewport": {"width": 1280, "height": 720}, "color_scheme": "dark"},
    "search-phone.png": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}


def main() -> int:
    """Serve, look, and write the pictures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--output", type=Path, default=Path("docs/images"))
    arguments.add_argument("--query", default="singular values of a matrix")
    options = arguments.parse_args()
    settings = ServeSettings(port=0, read_only=True, access_log=False)
    options.output.mkdir(parents=True, exist_ok=True)
    retriever = Retriever.load(options.bundle)
    with listen(settings) as listener, sync_playwright() as playwright:
        server = make_server(retriever, settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        try:
            for name, profile in PICTURES.items():
                address = f"http://127.0.0.1:{listener.getsockname()[1]}"
                size = take(browser, address, options.query, options.output / name, profile)
                sys.stdout.write(f"wrote {options.output / name} ({size / 1000:.0f} kB)\n")
        finally:
            browser.close()
            server.should_exit = True
            thread.join()
            retriever.close()
    return 0


def take(browser: Browser, address: str, query: str, path: Path, profile: dict[str, Any]) -> int:
    """Write a picture of the answer to ``query``; its size in bytes."""
    context = browser.new_context(**profile)
    page = context.new_page()
    page.goto(address)
    for _ in range(3):  # the last one is drawn: its times are those of a server that has answered before
        page.fill("#query", "")
        page.type("#query", query)
        page.wait_for_selector(".hit")
        page.wait_for_selector("#results[aria-busy=false]")
        page.wait_for_timeout(500)
    page.screenshot(path=path, animations="disabled", caret="hide")
    context.close()
    size = path.stat().st_size
    if size > LARGEST:
        raise UserError(f"{path} has {size:,} bytes, more than {LARGEST:,}; choose another query")
    return size


if __name__ == "__main__":
    sys.exit(main())
