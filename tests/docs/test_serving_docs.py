"""docs/serving.md says what is true: its commands, requests and Python are run, and answer what stands there."""

import re
import shutil
from pathlib import Path

import pytest
import serving_page

ROOT = Path(__file__).parents[2]
PAGE = serving_page.PAGE.read_text(encoding="utf-8")


@pytest.mark.skipif(not shutil.which("curl"), reason="the page asks with curl, which is not installed here")
def test_what_the_page_shows_is_what_happens(tmp_path: Path) -> None:
    with serving_page.Transcript(tmp_path) as transcript:
        found = transcript.filled(PAGE)
    shown, real = (serving_page.lasting(page).splitlines() for page in (PAGE, found))
    assert real == shown, "run docs/build/serving_page.py and read what changed"


def test_the_page_is_run_and_not_only_read() -> None:
    """The blocks that the transcript knows hold a command of every verb, every way to ask and both clients."""
    blocks = "".join(body for kind, body in serving_page.blocks(PAGE) if kind in ("text", "python"))
    commands = re.findall(r"^\$ (.*)", blocks, re.MULTILINE)
    for verb in ("index", "search", "add", "delete", "serve"):
        assert any(f"two-towers {verb} " in command for command in commands), verb
    routes = ("/search", "/search/batch", "/similar", "/documents", "/documents/moon", "/health", "/ready", "/metrics")
    for route in routes:
        assert any(re.search(rf":8000{route}(\s|$)", command) for command in commands), route
    assert '"/explain"' in blocks
    assert "embeddings.create" in blocks


def test_links_and_files_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE)
    assert targets
    for target in targets:
        assert (ROOT / "docs" / target).exists(), target
    files = re.findall(r"\b(?:deploy|benchmarks)/[\w.-]+\w", PAGE)
    assert files
    for file in files:
        assert (ROOT / file).exists(), file


def test_what_differs_from_run_to_run_is_all_that_is_not_compared() -> None:
    one = 'took 3.25 ms  {"took_ms":2.1,"score":0.72198,"documents":4,"request_id": "d0b8"} year 1889'
    other = 'took 9.1 ms {"took_ms":11,"score":0.72201,"documents":4,"request_id": "ffff"} year 1889'
    assert serving_page.lasting(one) == serving_page.lasting(other)
    for wrong in (other.replace("4", "5"), other.replace("0.722", "0.742"), other.replace("1889", "1890")):
        assert serving_page.lasting(one) != serving_page.lasting(wrong)
