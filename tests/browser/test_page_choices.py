"""What can be chosen on the search page: views, filters, a passage to start from; and that the address holds it all."""

from typing import Any

import httpx
from playwright.sync_api import expect

from browser import Visits, address, ask, ids, queries_asked, settle
from page_site import hits_of, ids_of


def test_one_ranking_alone(visits: Visits, site: str, api: httpx.Client) -> None:
    page = visits(f"{site}/?q=finance")
    page.get_by_role("radio", name="Hybrid").check()
    settle(page)
    expect(page).to_have_url(f"{site}/?q=finance&view=hybrid")
    expect(page.locator(".column")).to_have_count(1)
    expect(page.locator(".hit .facts").first).to_be_visible()
    asked = queries_asked(page)
    ask(page, "velocity")
    assert asked == ["velocity"]
    page.get_by_role("radio", name="Dense").check()
    settle(page)
    assert ids(page) == ids_of(hits_of(api, "velocity", "dense"))
    assert page.locator(".column .mark").count() == 10
    page.go_back()
    expect(page.get_by_role("radio", name="Hybrid")).to_be_checked()
    page.go_back()
    expect(page.get_by_role("radio", name="Side by side")).to_be_checked()
    expect(page.locator(".column")).to_have_count(3)


def test_filters_are_made_of_the_fields(visits: Visits, site: str, api: httpx.Client) -> None:
    page = visits(f"{site}/?q=finance&k=20")
    page.get_by_role("button", name="Filters").click()
    panel = page.get_by_role("form", name="Filters")
    fields = api.get("/info").json()["fields"]
    assert panel.locator("legend").all_inner_texts() == list(fields)
    boxes = panel.get_by_role("group", name="source").get_by_role("checkbox")
    assert boxes.evaluate_all("all => all.slice(1).map((box) => box.value)") == fields["source"]["values"]
    expect(panel.get_by_label("any")).to_be_checked()
    wire: dict[str, Any] = {}

    def check(field: str, condition: Any, chips: list[str]) -> None:
        wire[field] = condition
        expect(page.locator("#chips li")).to_have_text(chips)
        settle(page)
        wanted = hits_of(
            api, "finance", k=20, filter={name: value for name, value in wire.items() if value is not None}
        )
        assert ids(page) == ids_of(wanted)
        assert wanted

    panel.get_by_label("debian").check()
    check("source", "debian", ["source: debian ✕"])
    panel.get_by_label("reuters").check()
    check("source", ["debian", "reuters"], ["source: debian ✕", "source: reuters ✕"])
    panel.get_by_label("year from").fill("1991")
    check("year", {"gte": 1991}, ["source: debian ✕", "source: reuters ✕", "year: from 1991 ✕"])
    panel.get_by_label("year to").fill("2010")
    check("year", {"gte": 1991, "lte": 2010}, ["source: debian ✕", "source: reuters ✕", "year: 1991 to 2010 ✕"])
    panel.get_by_label("open").select_option("no")
    check("open", False, ["source: debian ✕", "source: reuters ✕", "year: 1991 to 2010 ✕", "open: no ✕"])
    assert address(page)["f.year"] == ["1991..2010"]
    assert page.get_by_role("button", name="Filters (4)").is_visible()

    page.get_by_role("button", name="Remove filter year: 1991 to 2010").click()
    check("year", None, ["source: debian ✕", "source: reuters ✕", "open: no ✕"])
    expect(panel.get_by_label("year from")).to_have_value("")
    panel.get_by_label("any").first.check()
    check("source", None, ["open: no ✕"])
    page.go_back()
    check("source", ["debian", "reuters"], ["source: debian ✕", "source: reuters ✕", "open: no ✕"])


def test_filters_that_match_nothing_can_be_removed(visits: Visits, site: str) -> None:
    page = visits(f"{site}/?q=finance&f.year=3000..")
    expect(page.get_by_role("heading", name="Nothing matches these filters")).to_be_visible()
    expect(page.locator("#status")).to_have_text("No hits for finance")
    page.get_by_role("button", name="Remove the filters").click()
    expect(page.locator(".column")).to_have_count(3)
    expect(page).to_have_url(f"{site}/?q=finance")


def test_more_like_this_and_the_way_back(visits: Visits, site: str, api: httpx.Client) -> None:
    page = visits(f"{site}/?q=finance")
    id = ids(page)[1]
    hit = page.locator(f'.hit[data-id="{id}"]').first
    hit.get_by_role("button", name="More like this").click()
    document = api.get(f"/documents/{id}").json()
    heading = page.get_by_role("heading", name=f"More like “{document['title']}”")
    expect(heading).to_be_visible()
    expect(page.locator(".source .text")).to_have_text(document["text"])
    assert ids(page) == ids_of(api.post("/similar", json={"id": id}).json()["hits"])
    expect(page.locator("#status")).to_have_text("10 hits like this passage")
    assert address(page) == {"q": ["finance"], "like": [id]}

    page.get_by_role("button", name="Back").click()
    expect(page.locator(".column")).to_have_count(3)
    expect(hit).to_be_focused()
    page.go_forward()
    expect(heading).to_be_visible()
    page.reload()
    expect(heading).to_be_visible()
    page.go_back()
    expect(page.locator(".column")).to_have_count(3)

    shared = visits(f"{site}/?q=finance&like={id}")
    expect(shared.get_by_role("heading", name=f"More like “{document['title']}”")).to_be_visible()
    shared.get_by_role("button", name="Back").click()
    expect(shared.locator(".column")).to_have_count(3)
    shared.go_back()
    shared.fill("#query", "velocity")
    expect(shared).to_have_url(f"{site}/?q=velocity")
    expect(shared.locator(".column")).to_have_count(3)


def test_a_link_holds_all_that_was_chosen(visits: Visits, site: str, api: httpx.Client) -> None:
    url = f"{site}/?q=finance&view=bm25&k=5&f.source=debian&f.source=scifact&f.year=..2020&f.open=true&tints=off"
    page = visits(url)
    for _ in range(2):
        chosen = {"source": ["debian", "scifact"], "year": {"lte": 2020}, "open": True}
        assert ids(page) == ids_of(hits_of(api, "finance", "bm25", k=5, filter=chosen))
        expect(page.locator("#query")).to_have_value("finance")
        expect(page.get_by_role("radio", name="BM25")).to_be_checked()
        expect(page.get_by_label("Hits")).to_have_value("5")
        expect(page).to_have_url(url)
        page.reload()
        settle(page)
    page.get_by_label("Hits").select_option("20")
    settle(page)
    assert address(page)["k"] == ["20"]
    assert ids(page) == ids_of(hits_of(api, "finance", "bm25", k=20, filter=chosen))
