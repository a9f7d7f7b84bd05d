"""Chromium for the tests of the search page: found, started, watched; and said loudly where there is none.

A pytest plugin: ``pytest_plugins = ["browser"]``. TWO_TOWERS_CHROMIUM names the program; with
TWO_TOWERS_REQUIRE_BROWSER set, its absence is a failure instead of a skip.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Dialog, Page, Route, expect, sync_playwright

PROGRAM = "TWO_TOWERS_CHROMIUM"
REQUIRED = "TWO_TOWERS_REQUIRE_BROWSER"
NOT_RUN = "the browser tests did not run"

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE = 20_000  # milliseconds that something on a page may take on a machine that does other work


def find_chromium() -> str | None:
    """The browser's path: the one that TWO_TOWERS_CHROMIUM names, else the first that is on the PATH."""
    named = os.environ.get(PROGRAM)
    return shutil.which(named) if named else next(filter(None, map(shutil.which, _NAMES)), None)


def why_none() -> str:
    """Why there is no browser, and what to do."""
    if named := os.environ.get(PROGRAM):
        return f"{PROGRAM} names {named}, which is no program; name Chromium's"
    return f"there is no {', '.join(_NAMES)} on the PATH; install Chromium, or name it in {PROGRAM}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end of a run that there was no browser: a skip alone is easily overlooked."""
    skipped = [report for report in terminalreporter.getreports("skipped") if NOT_RUN in str(report.longrepr)]
    if skipped:
        title = f"browser tests that DID NOT RUN: {len(skipped)}"
        terminalreporter.section(title, sep="!", red=True, bold=True)
        terminalreporter.line(why_none(), red=True)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One for each file of tests, no longer: while it runs, its event loop is the main thread's."""
    path = find_chromium()
    if path is None:
        if os.environ.get(REQUIRED):
            pytest.fail(f"{NOT_RUN}, and {REQUIRED} is set: {why_none()}", pytrace=False)
        pytest.skip(f"{NOT_RUN}: {why_none()}")
    expect.set_options(timeout=_PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visits:
    """Opens pages, each in a profile of its own, and collects what the browser complains of."""

    def __init__(self, chromium: Browser) -> None:
        self._chromium = chromium
        self.problems: list[str] = []
        self.refused = False  # whether a test wants requests to fail: the browser notes each on its console

    def __call__(self, url: str, *, width: int = 1280, script: str = "", settled: bool = True, **profile: Any) -> Page:
        """The page at ``url``, when ``settled`` once it shows an answer; ``script`` runs before those of the page."""
        context = self._chromium.new_context(viewport={"width": width, "height": 800}, **profile)
        context.set_default_timeout(_PATIENCE)
        page = context.new_page()
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", self._dismiss)
        if script:
            page.add_init_script(script)
        page.goto(url)
        if settled:
            settle(page)
        return page

    def _note(self, kind: str, text: str) -> None:
        if not (self.refused and text.startswith("Failed to load resource")):
            self.problems.append(f"{kind}: {text}")

    def _dismiss(self, dialog: Dialog) -> None:
        self.problems.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def close(self) -> None:
        """Close all pages."""
        for context in self._chromium.contexts:
            context.close()


@pytest.fixture
def visits(chromium: Browser) -> Iterator[Visits]:
    """Pages whose console must stay empty."""
    visits = Visits(chromium)
    yield visits
    visits.close()
    assert visits.problems == []


def settle(page: Page) -> None:
    """Wait until the page shows the answer to what it asked last."""
    page.wait_for_selector("#results[aria-busy=false]", state="attached")


def ask(page: Page, query: str) -> None:
    """Write a query and wait for its answer."""
    page.fill("#query", query)
    page.press("#query", "Enter")
    settle(page)


def ids(page: Page, column: int = 0) -> list[str]:
    """The ids of the hits in a column, in their order."""
    hits = page.locator(".column").nth(column).locator(".hit")
    return [str(hit.get_attribute("data-id")) for hit in hits.all()]


def address(page: Page) -> dict[str, list[str]]:
    """What stands in the page's address."""
    return parse_qs(urlsplit(page.url).query)


def queries_asked(page: Page) -> list[str]:
    """Fills itself with the queries of the searches that the page sends from now on."""
    asked: list[str] = []

    def note(route: Route) -> None:
        asked.append(json.loads(route.request.post_data or "")["query"])
        route.continue_()

    page.route("**/search", note)
    return asked


def until(page: Page, holds: Callable[[], bool]) -> None:
    """Let the page go on until ``holds``."""
    deadline = time.monotonic() + _PATIENCE / 1000
    while not holds():
        assert time.monotonic() < deadline
        page.wait_for_timeout(20)
