"""The search page by keyboard, on a phone, in the dark, without motion, and as axe reads it for a screen reader."""

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from browser import Visits, address, ask, ids, settle
from page_site import LONG

PHONE = {"width": 375, "has_touch": True, "is_mobile": True}
# How the page is looked at, and the rules of axe that this can matter to; none named: all of them.
LOOKS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "light": ({"color_scheme": "light"}, []),
    "dark": ({"color_scheme": "dark"}, ["color-contrast"]),
    "phone": (PHONE, []),
}


def place(page: Page) -> tuple[int, int]:
    """Column and place of the hit that has the focus."""
    found = page.evaluate(
        """() => { const all = (node) => [...node.parentElement.children].indexOf(node);
        const hit = document.activeElement.closest(".hit");
        return hit ? [all(hit.closest(".column")), all(hit.closest("li"))] : [-1, -1]; }"""
    )
    return found[0], found[1]


def states(page: Page, site: str) -> Iterator[str]:
    """Takes the page through everything that it can show."""
    page.goto(f"{site}/?k=5")
    settle(page)
    yield "before a search"
    ask(page, "finance lengthy")
    yield "hits"
    page.locator(".hit").nth(1).get_by_role("button", name="Show all").click()
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("debian").check()
    page.get_by_label("year from").fill("1900")
    expect(page.locator("#chips li")).to_have_count(2)
    settle(page)
    yield "filters"
    page.get_by_role("radio", name="Dense").check()
    settle(page)
    yield "one ranking"
    page.get_by_role("button", name="Help").click()
    yield "help"
    page.keyboard.press("Escape")
    page.goto(f"{site}/?q=finance&like={LONG['id']}")
    settle(page)
    yield "more like this"
    page.goto(f"{site}/?q=finance&f.year=3000..")
    settle(page)
    yield "nothing"
    page.goto(f"{site}/?q=finance&k=5000")
    expect(page.get_by_role("heading", name="That did not work")).to_be_visible()
    yield "an error"


def test_everything_by_keyboard(visits: Visits, site: str) -> None:
    page = visits(f"{site}/?q=finance")
    press = page.keyboard.press
    page.locator("#filters-open").focus()
    press("/")
    expect(page.locator("#query")).to_be_focused()
    press("/")  # a letter like any other in the box, where the text was selected
    expect(page.locator("#query")).to_have_value("/")
    ask(page, "finance")
    press("ArrowDown")
    assert place(page) == (0, 0)
    outline = page.locator(".hit:focus").evaluate("hit => getComputedStyle(hit).outlineStyle")
    assert outline == "solid"
    for key, there in [
        ("j", (0, 1)),
        ("ArrowDown", (0, 2)),
        ("ArrowRight", (1, 2)),
        ("ArrowRight", (2, 2)),
        ("ArrowRight", (2, 2)),
        ("k", (2, 1)),
        ("ArrowLeft", (1, 1)),
        ("ArrowUp", (1, 0)),
    ]:
        press(key)
        assert place(page) == there
    press("ArrowUp")
    expect(page.locator("#query")).to_be_focused()
    page.locator("#filters-open").focus()
    press("j")
    assert place(page) == (0, 0)

    hit = page.locator(".hit:focus")
    expect(hit.locator(".facts")).to_be_hidden()
    press("Enter")
    expect(hit.locator(".facts")).to_be_visible()
    press("Enter")
    expect(hit.locator(".facts")).to_be_hidden()

    press("j")
    id = ids(page)[1]
    press("m")
    expect(page.get_by_role("heading", name="More like")).to_be_visible()
    assert address(page)["like"] == [id]
    expect(page.locator("#results")).to_be_focused()
    press("j")
    press("Enter")
    expect(page.locator(".column .hit.open")).to_have_count(1)
    press("Escape")
    expect(page.locator(".column")).to_have_count(3)
    expect(page.locator(f'.hit[data-id="{id}"]').first).to_be_focused()
    press("Escape")
    expect(page.locator("#query")).to_be_focused()
    press("Escape")
    expect(page.locator("#query")).to_have_value("")
    expect(page.locator(".intro")).to_be_visible()


def test_tab_reaches_what_can_be_pressed(visits: Visits, site: str) -> None:
    page = visits(f"{site}/?q=finance&f.source=debian")
    page.locator(".skip").focus()
    page.keyboard.press("Shift+Tab")
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        outline = page.evaluate(
            """() => { const focus = document.activeElement;
            const shown = focus.type === "radio" ? focus.nextElementSibling : focus;
            return getComputedStyle(shown).outlineStyle; }"""
        )
        assert outline != "none", reached[-1]
    first = ["Skip to the results", "two-towers", "query", "help-open", "", "filters-open", "tints", "k"]
    assert reached == [*first, "source: debian ✕", "More like this", "Show all", "More like this"]


def test_keys_with_ctrl_belong_to_the_browser(visits: Visits, site: str) -> None:
    page = visits(f"{site}/?q=finance")
    page.locator("#filters-open").focus()
    page.keyboard.press("Control+/")
    page.keyboard.press("Alt+?")
    expect(page.locator("#filters-open")).to_be_focused()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_help_lists_the_keys(visits: Visits, site: str) -> None:
    page = visits(f"{site}/?q=finance")
    page.locator("#filters-open").focus()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys and marks")
    expect(dialog).to_be_visible()
    assert {"/", "j", "k", "Enter", "m", "Esc", "?"} <= set(dialog.locator("kbd").all_inner_texts())
    page.keyboard.press("j")  # nothing behind the dialog moves
    assert place(page) == (-1, -1)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator("#filters-open")).to_be_focused()
    page.get_by_role("button", name="Help").click()
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()


def test_a_phone_shows_one_ranking_at_a_time(visits: Visits, site: str) -> None:
    page = visits(f"{site}/?q=finance", **PHONE)
    expect(page.get_by_role("radio", name="Side by side")).to_be_hidden()
    expect(page.get_by_role("radio")).to_have_count(3)
    for name, marks in [("Hybrid", 0), ("Dense", 10), ("BM25", None)]:
        page.get_by_role("radio", name=name).check()
        settle(page)
        expect(page.locator(".column h2 span")).to_have_text([name])
        if marks is not None:
            expect(page.locator(".column .mark")).to_have_count(marks)
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{site}/?q=finance")
    expect(page.locator(".column")).to_have_count(3)
    page.set_viewport_size({"width": 375, "height": 800})
    expect(page.locator(".column h2 span")).to_have_text(["Hybrid"])


def test_a_phone_never_scrolls_sideways_and_has_room_for_a_thumb(visits: Visits, site: str) -> None:
    visits.refused = True
    page = visits(site, **PHONE)
    seen = 0
    for state in states(page, site):
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, state
        targets = page.evaluate(
            """() => [...document.querySelectorAll("a, button, input, select")]
            .filter((node) => node.checkVisibility() && !node.matches(".skip"))
            .map((node) => [node.outerHTML, (node.closest("label") ?? node).getBoundingClientRect().toJSON()])"""
        )
        for html, box in targets:
            assert min(box["width"], box["height"]) >= 43.99, (state, html, box)
            seen += 1
    assert seen > 100


def test_dark_when_the_system_is_dark(visits: Visits, site: str) -> None:
    lightness = "() => getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)"
    assert max(visits(site, color_scheme="dark").evaluate(lightness)) < 40
    assert min(visits(site, color_scheme="light").evaluate(lightness)) > 230


def test_nothing_moves_when_motion_is_not_wanted(visits: Visits, site: str) -> None:
    name = "() => getComputedStyle(document.getElementById('bar'), '::after').animationName"
    for motion, animation in [("reduce", "none"), ("no-preference", "slide")]:
        page = visits(f"{site}/?q=finance", reduced_motion=motion)
        page.route("**/search", lambda route: None)  # never answered
        page.fill("#query", "velocity")
        page.wait_for_selector(".busy")
        assert page.evaluate(name) == animation


def test_a_screen_reader_finds_its_way(visits: Visits, site: str) -> None:
    page = visits(f"{site}/?q=finance")
    for landmark in ("banner", "main", "search"):
        expect(page.get_by_role(landmark)).to_have_count(1)
    expect(page.get_by_role("searchbox", name="Search the documents")).to_be_visible()
    for name in ("Hybrid", "Dense", "BM25"):
        column = page.get_by_role("region", name=name)
        assert column.get_by_role("list").count() == 1
        assert column.get_by_role("listitem").count() == column.get_by_role("article").count() > 0
        assert column.get_by_role("heading", level=2).inner_text().startswith(name)
    status = page.get_by_role("status")
    assert status.evaluate("node => node.ariaLive ?? node.getAttribute('role')") in ("polite", "status")
    expect(status).to_have_text("10 hits of 64 documents for finance")
    ask(page, "velocity")
    expect(status).to_have_text("10 hits of 64 documents for velocity")


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_serious(visits: Visits, site: str, look: str) -> None:
    visits.refused = True
    profile, rules = LOOKS[look]
    page = visits(site, **profile)
    axe = Axe()
    options = {"runOnly": rules} if rules else {}
    for state in states(page, site):
        found = axe.run(page, options={"resultTypes": ["violations"], **options}).response
        assert len(found["passes"]) == len(rules) or len(found["passes"]) > 10
        bad = [rule for rule in found["violations"] if rule["impact"] in ("serious", "critical")]
        said = [(rule["id"], [node["html"] for node in rule["nodes"]][:3]) for rule in bad]
        assert bad == [], (state, said)
