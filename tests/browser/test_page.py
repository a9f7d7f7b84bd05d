"""The search page in a real browser, over a real server: what it shows is what the server answers."""

import json
import re
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest
from playwright.sync_api import Route, expect

import freemvmt

from browser import Visits, address, ask, ids, queries_asked, settle, until
from page_site import hits_of, ids_of

WEB = Path(freemvmt.__file__).parent / "web"
PAGE = [path for folder in (WEB, WEB / "server") for path in folder.iterdir() if path.is_file()]


def test_the_files_hold_nothing_inline_and_load_nothing_from_elsewhere() -> None:
    html = (WEB / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:", html)
    assert set(re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', html)) == {
        "page/app.js",
        "page/style.css",
        "./",
        "docs",
    }
    for file in PAGE:
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|@import", text)


def test_everything_is_loaded_from_the_server_under_its_policy(visits: Visits, site: str) -> None:
    page = visits("about:blank", settled=False)
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url))
    answer = page.goto(site + "/?q=finance")
    settle(page)
    assert answer is not None
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in str(
        answer.header_value("content-security-policy")
    )
    assert all(url.startswith((site, "data:")) for url in loaded)
    assert {urlsplit(url).path for url in loaded} > {"/", "/page/app.js", "/page/style.css", "/info", "/search"}


def test_it_searches_as_one_types(visits: Visits, site: str, api: httpx.Client) -> None:
    page = visits(site)
    steps = page.evaluate("history.length")
    page.type("#query", "harvest and velocity")
    expect(page).to_have_url(f"{site}/?q=harvest+and+velocity")
    expect(page.locator(".column")).to_have_count(3)
    expect(page.locator("#status")).to_have_text("10 hits of 64 documents for harvest and velocity")
    expect(page.locator("#latency")).to_have_text(re.compile(r"^server \d+(\.\d)? ms · round trip \d+(\.\d)? ms$"))
    for column, method in enumerate(["hybrid", "dense", "bm25"]):
        assert ids(page, column) == ids_of(hits_of(api, "harvest and velocity", method))
    assert page.evaluate("history.length") == steps
    assert page.title() == "harvest and velocity · two-towers"


def test_it_asks_when_the_keys_rest(visits: Visits, site: str) -> None:
    page = visits(site)
    asked = queries_asked(page)
    page.evaluate(
        """() => { const box = document.getElementById("query");
        for (const end of [1, 2, 3, 4, 5, 6, 7]) {
            box.value = "finance".slice(0, end);
            box.dispatchEvent(new Event("input", { bubbles: true }));
        } }"""
    )
    expect(page.locator(".column")).to_have_count(3)
    assert set(asked) == {"finance"}


def test_enter_does_not_ask_twice(visits: Visits, site: str) -> None:
    page = visits(site)
    held: list[Route] = []
    page.route("**/search", lambda route: held.append(route))
    page.fill("#query", "finance")
    until(page, lambda: len(held) == 3)
    page.press("#query", "Enter")
    page.wait_for_timeout(100)
    for route in held:
        route.continue_()
    expect(page.locator(".column")).to_have_count(3)
    assert len(held) == 3


@pytest.mark.parametrize("late", [False, True], ids=["is given up", "comes all the same"])
def test_an_older_answer_never_overwrites_a_newer_one(visits: Visits, site: str, api: httpx.Client, late: bool) -> None:
    deaf = "const real = fetch; window.fetch = (path, request) => real(path, { ...request, signal: undefined });"
    page = visits(site, script=deaf if late else "")
    held: list[Route] = []
    ended: list[str] = []

    def hold(route: Route) -> None:
        if json.loads(route.request.post_data or "")["query"] == "finance":
            held.append(route)
        else:
            route.continue_()

    page.route("**/search", hold)
    page.fill("#query", "finance")
    until(page, lambda: len(held) == 3)
    ask(page, "velocity")
    newer = ids_of(hits_of(api, "velocity"))
    assert ids(page) == newer
    assert newer != ids_of(hits_of(api, "finance"))
    if late:
        page.on("requestfinished", lambda request: ended.append(str(request.post_data)))
        for route in held:
            route.continue_()
        until(page, lambda: sum("finance" in body for body in ended) == 3)
    else:
        assert all(route.request.failure == "net::ERR_ABORTED" for route in held)
    page.wait_for_timeout(100)
    assert ids(page) == newer


def test_ranks_are_compared_with_hybrid(visits: Visits, site: str, api: httpx.Client) -> None:
    query = "harvest velocity always over canyon"
    page = visits(f"{site}/?q={quote(query)}")
    hybrid = ids_of(hits_of(api, query))
    signs = set()
    for column, method in enumerate(["dense", "bm25"], start=1):
        for place, id in enumerate(ids_of(hits_of(api, query, method))):
            moved = hybrid.index(id) - place if id in hybrid else None
            places = f"{abs(moved or 0)} place{'' if abs(moved or 0) == 1 else 's'}"
            if moved is None:
                sign, words = "new", "not among the hits of hybrid"
            elif moved:
                sign = f"{'▲' if moved > 0 else '▼'}{abs(moved)}"
                words = f"{places} {'above' if moved > 0 else 'below'} its place in hybrid"
            else:
                sign, words = "=", "same place as in hybrid"
            mark = page.locator(".column").nth(column).locator(".hit").nth(place).locator(".mark")
            assert mark.locator("[aria-hidden]").inner_text() == sign
            assert mark.locator(".unseen").text_content() == words
            signs.add(sign[0])
    assert signs == {"▲", "▼", "=", "n"}  # the query was chosen so that each occurs
    assert page.locator(".column").first.locator(".mark").count() == 0


def test_a_document_is_marked_in_every_column(visits: Visits, site: str) -> None:
    page = visits(f"{site}/?q=finance")
    shared = next(id for id in ids(page, 0) if id in ids(page, 1) and id in ids(page, 2))
    same = page.locator(".hit.same")
    page.locator(".column").nth(1).locator(f'.hit[data-id="{shared}"]').hover()
    expect(same).to_have_count(3)
    assert {hit.get_attribute("data-id") for hit in same.all()} == {shared}
    page.hover("#query")
    expect(same).to_have_count(0)
    page.locator(".column").nth(2).locator(f'.hit[data-id="{shared}"]').focus()
    expect(same).to_have_count(3)
    page.focus("#query")
    expect(same).to_have_count(0)


def test_words_are_tinted_by_their_share(visits: Visits, site: str, api: httpx.Client) -> None:
    page = visits(f"{site}/?q=finance+and+harvest&view=dense")
    hits = hits_of(api, "finance and harvest", "dense", explain=True)
    signs = set()
    for place, hit in enumerate(hits):
        pieces = hit["explanation"]["title"] + hit["explanation"]["text"]
        largest = max(piece["share"] for piece in pieces)
        strong = [piece for piece in pieces if piece["share"] >= 0.12 * largest]
        signs |= {piece["share"] > 0 for piece in pieces if piece["share"]}
        card = page.locator(".hit").nth(place)
        drawn = card.locator(".tint").evaluate_all(
            "words => words.map((word) => [word.textContent, word.style.getPropertyValue('--share'), word.title])"
        )
        score = hit["explanation"]["score"]
        assert drawn == [
            [piece["text"], f"{piece['share'] / largest:.3f}", f"{piece['share']:.3f} of the dense score {score:.3f}"]
            for piece in strong
        ]
        best = max(pieces, key=lambda piece: piece["share"])
        said = card.locator("p.unseen").text_content() or ""
        assert said.startswith(f"Largest shares of the dense score {score:.3f}: {best['text']} {best['share']:.3f}")
        assert card.locator(".text").text_content() == hit["text"]
    assert signs == {True, False}  # some words do harm: they are not tinted
    colours = "word => getComputedStyle(word).backgroundColor"
    clear = "rgba(0, 0, 0, 0)"
    assert page.locator(".tint").first.evaluate(colours) != clear


def test_tints_can_be_switched_off(visits: Visits, site: str) -> None:
    page = visits(f"{site}/?q=finance")
    assert page.locator(".tint").count() > 0
    page.get_by_label("Tint words").uncheck()
    settle(page)
    expect(page.locator(".tint")).to_have_count(0)
    assert address(page)["tints"] == ["off"]
    page.reload()
    settle(page)
    expect(page.get_by_label("Tint words")).not_to_be_checked()
    assert page.locator(".hit").count() > 0
    assert page.locator(".tint").count() == 0
