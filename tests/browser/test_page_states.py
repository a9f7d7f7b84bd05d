"""The search page when there is nothing yet, nothing found, something wrong, or text that would be more than text."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from browser import Visits, address, ask, ids, settle, until
from live_server import running
from page_site import DOTS, FOREIGN, HOSTILE, LONG, ids_of


def refuse(page: Page, status: int, kind: str, message: str, **headers: str) -> list[Route]:
    """The page's searches are refused from now on; the list fills with them."""
    refused: list[Route] = []

    def answer(route: Route) -> None:
        refused.append(route)
        error = {"type": kind, "message": message, "request_id": "r1"}
        route.fulfill(status=status, json={"error": error}, headers=headers)

    page.route("**/search", answer)
    return refused


def test_before_a_search_it_says_what_is_there(visits: Visits, site: str, api: httpx.Client) -> None:
    page = visits(site)
    info = api.get("/info").json()
    expect(page.get_by_role("heading", name="Search 64 documents")).to_be_visible()
    expect(page.locator("#query")).to_be_focused()
    facts = dict(
        zip(page.locator(".intro dt").all_inner_texts(), page.locator(".intro dd").all_inner_texts(), strict=True)
    )
    assert facts == {
        "Documents": "64",
        "Model": f"{info['model']['base']}, 48 dimensions, {info['model']['id'][:12]}",
        "Index": "exact, fp32",
        "Recall@10": "100.0 % of exact search",
        "Filters": ", ".join(info["fields"]),
    }
    ask(page, "finance")
    expect(page.locator(".intro")).to_have_count(0)
    ask(page, "   ")
    expect(page.locator(".intro")).to_be_visible()


def test_waiting_is_shown_after_a_while_and_the_answer_before_stays(visits: Visits, site: str) -> None:
    page = visits(f"{site}/?q=finance")
    before = ids(page)
    bar = page.locator("#bar")
    expect(bar).to_have_css("opacity", "0")
    held: list[Route] = []
    page.route("**/search", lambda route: held.append(route))
    page.fill("#query", "velocity")
    until(page, lambda: len(held) == 3)
    expect(bar).to_have_css("transition-delay", "0.15s")
    expect(bar).to_have_css("opacity", "1")
    assert page.locator("#results").get_attribute("aria-busy") == "true"
    assert ids(page) == before
    for route in held:
        route.continue_()
    settle(page)
    expect(bar).to_have_css("opacity", "0")
    assert ids(page) != before


def test_words_that_no_document_has(visits: Visits, site: str) -> None:
    page = visits(f"{site}/?q=zyzzyva")
    expect(page.locator(".column").nth(2)).to_contain_text("No document has a word of this query.")
    page.get_by_role("radio", name="BM25").check()
    settle(page)
    expect(page.get_by_role("heading", name="No hits")).to_be_visible()
    expect(page.locator(".nothing")).to_contain_text("Nothing was found for “zyzzyva”. Try other words.")
    expect(page.get_by_role("button", name="Remove the filters")).to_have_count(0)


@pytest.mark.parametrize(
    ("asked", "body"),
    [
        ("q=finance&k=5000", {"query": "finance", "k": 5000}),
        ("q=finance&f.colour=red", {"query": "finance", "filter": {"colour": "red"}}),
        (f"q={'x' * 10_001}", {"query": "x" * 10_001}),
    ],
    ids=["too many hits", "no such field", "too long"],
)
def test_what_the_server_refuses_is_said_in_its_words(
    visits: Visits, site: str, api: httpx.Client, asked: str, body: dict[str, Any]
) -> None:
    visits.refused = True
    page = visits(f"{site}/?{asked}")
    answer = api.post("/search", json=body)
    assert answer.status_code == 422
    alert = page.get_by_role("alert")
    expect(alert.get_by_role("heading", name="That did not work")).to_be_visible()
    expect(alert).to_contain_text(answer.json()["error"]["message"])
    expect(alert).to_contain_text(re.compile("Request [0-9a-f]{16}"))
    assert page.locator(".hit").count() == 0
    page.goto(f"{site}/?q=finance")
    expect(page.locator(".column")).to_have_count(3)


def test_a_passage_that_is_gone(visits: Visits, site: str) -> None:
    visits.refused = True
    page = visits(f"{site}/?q=finance&like=gone")
    expect(page.get_by_role("alert")).to_contain_text("there is no document 'gone'")
    page.get_by_role("button", name="Back").click()
    expect(page.locator(".column")).to_have_count(3)


def test_a_busy_server_is_asked_again(visits: Visits, site: str) -> None:
    visits.refused = True
    page = visits(site)
    refused = refuse(page, 503, "busy", "the queue is full", **{"Retry-After": "1"})
    page.fill("#query", "finance")
    expect(page.get_by_role("alert")).to_contain_text("The server is busy")
    expect(page.get_by_role("alert")).to_contain_text("the queue is full")
    until(page, lambda: len(refused) > 3)  # three methods, and again
    page.unroute("**/search")
    expect(page.locator(".column")).to_have_count(3)
    expect(page.get_by_role("alert")).to_be_empty()


def test_a_failure_can_be_tried_again(visits: Visits, site: str) -> None:
    visits.refused = True
    page = visits(site)
    refused = refuse(page, 504, "timeout", "no answer within 10 s")
    ask(page, "finance")
    expect(page.get_by_role("alert")).to_contain_text("no answer within 10 s")
    page.unroute("**/search")
    assert len(refused) in (3, 6)  # Enter asks again when the keys rested so long that they were refused by then
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".column")).to_have_count(3)


def test_a_server_that_is_away_and_comes_back(visits: Visits, site: str) -> None:
    visits.refused = True
    page = visits(site)
    page.route("**/search", lambda route: route.abort("connectionrefused"))
    ask(page, "finance")
    expect(page.get_by_role("heading", name="The server does not answer")).to_be_visible()
    page.unroute("**/search")
    expect(page.locator(".column")).to_have_count(3)


def test_a_page_whose_server_stopped(visits: Visits, site_bundle: Path) -> None:
    visits.refused = True
    with running(site_bundle, read_only=True) as address:
        page = visits(f"{address}/?q=finance")
    ask(page, "velocity")
    expect(page.get_by_role("heading", name="The server does not answer")).to_be_visible()
    assert page.locator(".hit").count() == 0


def test_offline_and_on_again(visits: Visits, site: str) -> None:
    visits.refused = True
    page = visits(site)
    page.context.set_offline(True)
    ask(page, "finance")
    expect(page.get_by_role("heading", name="You are offline")).to_be_visible()
    page.context.set_offline(False)
    expect(page.locator(".column")).to_have_count(3)


def test_a_server_that_asks_for_its_token(visits: Visits, site_bundle: Path) -> None:
    visits.refused = True
    with running(site_bundle, token="secret", protect_reads=True) as address:
        page = visits(f"{address}/?q=finance")
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Go on").click()
        settle(page)
        page.get_by_label("Token").fill("secret")
        page.get_by_role("button", name="Go on").click()
        expect(page.locator(".column")).to_have_count(3)
        assert "secret" not in page.url
        page.reload()
        expect(page.locator(".column")).to_have_count(3)


@pytest.mark.parametrize("document", [HOSTILE, FOREIGN], ids=["hostile", "foreign"])
def test_text_is_text(visits: Visits, site: str, api: httpx.Client, document: dict[str, Any]) -> None:
    word = document["text"].split()[0]
    page = visits(f"{site}/?q={word}&f.year=1900..1903")  # few: every column has them all
    plain = {
        name: value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        for name, value in document["metadata"].items()
    }
    for column in range(3):
        place = ids(page, column).index(document["id"])
        hit = page.locator(".column").nth(column).locator(".hit").nth(place)
        assert hit.locator("h3").text_content() == document["title"]
        assert hit.locator(".text").text_content() == document["text"]
        hit.get_by_role("button", name="Show all").click()
        names, values = (hit.locator(f".facts {kind}").all_text_contents() for kind in ("dt", "dd"))
        facts = dict(zip(names, values, strict=True))
        assert facts["id"] == document["id"]
        assert plain.items() <= facts.items()

    hit.get_by_role("button", name="More like this").click()
    expect(page.get_by_role("heading", name="More like")).to_have_text(f"More like “{document['title']}”")
    assert address(page)["like"] == [document["id"]]
    assert ids(page) == ids_of(
        api.post("/similar", json={"id": document["id"], "filter": {"year": {"gte": 1900, "lte": 1903}}}).json()["hits"]
    )
    page.reload()
    settle(page)
    assert page.locator(".source .text").text_content() == document["text"]

    source = document["metadata"]["source"]
    page.goto(f"{site}/?q={word}&f.source={quote(source, safe='')}")
    settle(page)
    assert ids(page) == [document["id"]]
    assert page.locator("#chips").text_content() == f"source: {source} ✕"
    assert page.locator("script, img, svg").count() == 2  # the page's own
    assert page.locator("main b, main i, main u, main svg, main script, main img").count() == 0


def test_an_id_that_no_path_can_hold(visits: Visits, site: str) -> None:
    page = visits(f"{site}/?like={DOTS['id']}")
    expect(page.get_by_role("heading", name="More like “..”")).to_be_visible()
    assert len(ids(page)) == 10


@pytest.mark.parametrize("width", [375, 1280])
def test_long_texts_are_folded_and_long_words_broken(visits: Visits, site: str, width: int) -> None:
    page = visits(f"{site}/?q=lengthy&f.source={LONG['metadata']['source']}", width=width)
    wide = "() => document.documentElement.scrollWidth"
    hit = page.locator(f'.hit[data-id="{LONG["id"]}"]').first
    text = hit.locator(".text")
    assert page.evaluate(wide) <= width
    assert text.evaluate("text => text.scrollHeight > 3 * text.clientHeight")
    hit.get_by_role("button", name="Show all").click()
    assert text.evaluate("text => text.scrollHeight === text.clientHeight")
    assert page.evaluate(wide) <= width
    expect(hit.get_by_role("button", name="Show less")).to_have_attribute("aria-expanded", "true")
    hit.get_by_role("button", name="Show less").click()
    assert text.evaluate("text => text.scrollHeight > 3 * text.clientHeight")
    page.get_by_role("button", name=re.compile("Filters")).click()
    assert page.evaluate(wide) <= width
    hit.get_by_role("button", name="More like this").click()
    settle(page)
    assert page.evaluate(wide) <= width
