"""A folder on the page: the passage that was found, its place, the document opened at it, and the filters."""

import datetime
import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from notes import NEEDLE, index_notes, write_notes
from playwright.sync_api import expect

from browser import Visits
from live_server import running
from rows import ANSWERED, FILLER


@pytest.fixture(scope="module")
def bundle(tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of 61 files, one of them long."""
    place = tmp_path_factory.mktemp("passages")
    texts = [f"# {ANSWERED[n % 30]}\n\n{ANSWERED[n % 30]} {FILLER[n % 20]}.\n" for n in range(60)]
    filler = "\n\n".join(f"😀 {ANSWERED[n % 30]} and {FILLER[n % 20]}, said once more." for n in range(40))
    part_two = f"## Part two\n\n{'A map. ' * 16}\n\n### The compass\n\n{NEEDLE}"
    long = f"# The book\n\n{filler}\n\n{part_two}\n\n## Part three\n\n{filler}\n"
    notes = write_notes(place, texts, long)
    for number, path in enumerate(sorted((notes / "a").iterdir())):
        date = datetime.datetime(2024 + number % 2, 12, 31, 23, tzinfo=datetime.UTC)
        os.utime(path, (date.timestamp(), date.timestamp() + number))
    return index_notes(tiny_base, notes)


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


@pytest.mark.parametrize("more", ["", "&tints=off"], ids=["tinted", "plain"])
def test_the_headings_of_a_passage_stand_once(visits: Visits, bundle: Path, more: str) -> None:
    with running(bundle) as address:
        page = visits(f"{address}/?q=the+compass+of+part+two&view=hybrid{more}")
        hit = page.locator(".hit[data-id='book.md']").first
        expect(hit.locator("h3")).to_have_text("The book")
        expect(hit.locator(".place")).to_have_text(re.compile("^Part two › The compass, lines? [0-9-]+$"))
        assert (hit.locator(".place .tint").count() > 1) == (not more)


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


def test_the_filters_of_a_folder(visits: Visits, bundle: Path) -> None:
    with running(bundle) as address:
        info = httpx.get(f"{address}/info").json()["fields"]
        assert info["path"]["values"] == []  # nobody would choose one of so many
        assert info["modified"]["years"][-2:] == ["2025", "2024"]
        assert "years" not in info["headings"]
        page = visits(f"{address}/?q=tower&view=hybrid&k=100")
        page.locator("#filters-open").click()
        assert page.locator("#filters legend").all_text_contents() == ["folder", "type", "modified", "headings"]
        asked: list[Any] = []
        page.on("request", lambda request: asked.append(request.post_data_json) if request.method == "POST" else None)
        page.get_by_label("modified").select_option("2024")
        expect(page.locator("#chips li")).to_have_text(["modified: 2024 ✕"])
        expect(page.locator(".hit")).to_have_count(30)
        assert asked[-1]["filter"] == {"modified": {"gte": "2024-01-01", "lt": "2025-01-01"}}
        page.reload()
        expect(page.get_by_role("button", name="Filters (1)")).to_be_visible()
        expect(page.locator(".hit")).to_have_count(30)
        page.locator("#filters-open").click()
        expect(page.get_by_label("modified", exact=True)).to_have_value("2024")


@pytest.mark.parametrize("width", [1280, 360])
def test_many_values_are_seen_once_they_are_asked_for(visits: Visits, bundle: Path, width: int) -> None:
    with running(bundle) as address:
        values = httpx.get(f"{address}/info").json()["fields"]["headings"]["values"]
        assert len(values) > 13
        page = visits(address, width=width)
        page.locator("#filters-open").click()
        group = page.get_by_role("group", name="headings")
        expect(group.get_by_role("checkbox")).to_have_count(13)
        more = group.get_by_role("button", name=f"Show {len(values) - 12} more of headings")
        more.focus()
        page.keyboard.press("Enter")
        expect(group.get_by_label(values[12], exact=True)).to_be_focused()
        expect(group.get_by_role("checkbox")).to_have_count(len(values) + 1)
        expect(more).to_have_count(0)
        page.keyboard.press("Space")
        expect(page.locator("#chips li")).to_have_text([f"headings: {values[12]} ✕"])
        page.reload()
        page.locator("#filters-open").click()
        expect(group.get_by_label(values[12], exact=True)).to_be_checked()  # what is chosen is seen at once
        expect(group.get_by_role("checkbox")).to_have_count(14)
