"""Long documents on the page: the passage that was found, its place, and the document opened at it."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from freemvmt.config import ModelConfig
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.retriever import Retriever

from browser import Visits
from live_server import running
from rows import ANSWERED, FILLER

NEEDLE = "A magnet 🧲 holds the needle of this compass."


@pytest.fixture(scope="module")
def bundle(tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 61 files, one of them long."""
    place = tmp_path_factory.mktemp("passages")
    notes = place / "notes"
    (notes / "a").mkdir(parents=True)
    for number in range(60):
        text = f"# {ANSWERED[number % 30]}\n\n{ANSWERED[number % 30]} {FILLER[number % 20]}.\n"
        (notes / "a" / f"{number}.md").write_text(text, encoding="utf-8")
    filler = "\n\n".join(f"😀 {ANSWERED[n % 30]} and {FILLER[n % 20]}, said once more." for n in range(40))
    long = f"# The book\n\n{filler}\n\n## Part two\n\n### The compass\n\n{NEEDLE}\n\n## Part three\n\n{filler}\n"
    (notes / "book.md").write_text(long, encoding="utf-8")
    build(TwoTowersModel(ModelConfig(base=tiny_base, max_length=48)), str(notes), place / "bundle")
    return place / "bundle"


def test_a_passage_stands_with_its_place_and_opens_its_document_there(visits: Visits, bundle: Path) -> None:
    with running(bundle) as address:
        text = httpx.get(f"{address}/documents/book.md").json()["text"]
        page = visits(f"{address}/?q=magnet+holds+the+needle+of+this+compass&view=bm25")
        hit = page.locator(".hit").first
        expect(hit).to_have_attribute("data-id", "book.md")
        expect(hit.locator(".place")).to_contain_text("Part two")
        expect(hit.locator(".text")).not_to_contain_text("said once more")
        hit.get_by_role("button", name="In the document").click()
        expect(hit.locator("mark")).to_contain_text(NEEDLE)
        expect(hit.locator("mark")).to_be_in_viewport()
        assert hit.locator(".text").evaluate("node => node.textContent") == text
        assert hit.locator("mark").evaluate("node => node.textContent").strip() in text
        expect(hit.get_by_role("button", name="In the document")).to_have_count(0)
        expect(hit.get_by_role("button", name="Show less")).to_be_visible()


def test_a_key_opens_it_too(visits: Visits, bundle: Path) -> None:
    with running(bundle) as address:
        page = visits(f"{address}/?q=magnet+holds+the+needle+of+this+compass&view=bm25")
        page.locator(".hit").first.focus()
        page.keyboard.press("o")
        expect(page.locator(".hit mark")).to_contain_text(NEEDLE)
        page.locator(".hit").nth(1).focus()
        page.keyboard.press("o")  # a document that was not cut has nothing to open
        expect(page.locator(".hit mark")).to_have_count(1)


def test_a_document_that_is_gone_is_said_on_the_button(visits: Visits, bundle: Path) -> None:
    with running(bundle) as address:
        page = visits(f"{address}/?q=magnet+holds+the+needle+of+this+compass&view=bm25")
        button = page.locator(".hit").first.get_by_role("button", name="In the document")
        expect(button).to_be_visible()
        page.route(
            "**/documents/*", lambda route: route.fulfill(status=404, json={"error": {"message": "It is gone."}})
        )
        button.click()
        expect(page.locator(".hit").first.get_by_role("button", name="It is gone.")).to_be_visible()
        visits.problems.clear()  # the browser notes the 404 on its console


def test_what_nobody_would_choose_is_no_filter(visits: Visits, bundle: Path) -> None:
    assert Retriever.load(bundle).values("path") == []
    with running(bundle) as address:
        page = visits(address)
        page.locator("#filters-open").click()
        names = page.locator("#filters legend").all_text_contents()
        assert "folder" in names
        assert "path" not in names
        assert "modified" not in names
