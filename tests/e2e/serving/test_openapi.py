"""The description of the API holds: schemathesis asks what it allows and what it does not, with every check on."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from freemvmt.server.http.auth import WrongTokens

from live_server import running

# No schema can say that the ids of documents differ: those of one request that do not are refused with 422.
RULES = """
[[operations]]
include-path = "/documents"
checks.positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "409", "422"]
"""
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


def ask_everything(address: str, folder: Path, *more: str) -> str:
    """Run schemathesis against the server; its report. What it keeps between runs goes to ``folder``."""
    (folder / "schemathesis.toml").write_text(RULES, encoding="utf-8")
    flags = ["--checks", "all", "--max-examples", "8", "--seed", "4", "--generation-database", "none"]
    command = [str(SCHEMATHESIS), "--no-color", "run", f"{address}/openapi.json", *flags, *more]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_every_answer_is_as_described(own_bundle: Path, tmp_path: Path) -> None:
    with running(own_bundle) as address:
        report = ask_everything(address, tmp_path)
    assert "Tested: 14" in report
    cases = re.search(r"([\d,]+) generated", report)
    assert cases
    assert int(cases[1].replace(",", "")) > 500


def test_the_token_is_asked_for_where_the_description_says_so(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WrongTokens, "MOST", 10_000)  # wrong ones are tried here by the hundred
    with running(own_bundle, token="secret", protect_reads=True) as address:
        assert httpx.get(f"{address}/openapi.json").status_code == 401
        description = httpx.get(f"{address}/openapi.json", headers={"Authorization": "Bearer secret"}).json()
        guarded = {
            f"{method} {path}"
            for path, operations in description["paths"].items()
            for method, operation in operations.items()
            if operation.get("security")
        }
        assert len(guarded) == 12  # all but /health and /ready
        ask_everything(address, tmp_path, "--header", "Authorization: Bearer secret", "--phases", "coverage")


def test_the_description_names_the_fields_of_the_bundle(own_bundle: Path) -> None:
    with running(own_bundle) as address, httpx.Client(base_url=address) as client:

        def fields() -> set[str]:
            return set(client.get("/openapi.json").json()["components"]["schemas"]["Filter"]["properties"])

        assert fields() == {"source", "year"}
        document = {"id": "new", "text": "new", "metadata": {"<b>read</b>": True}}
        assert client.post("/documents", json={"documents": [document]}).status_code == 200
        assert fields() == {"source", "year", "<b>read</b>"}
        page = client.get("/docs")
        assert "&lt;b&gt;read" in page.text
        assert "<b>read" not in page.text


def test_the_docs_load_nothing(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert re.findall(r'(?:src|href)="(?!#)([^"]*)"', page.text) == ["/openapi.json", "/"]
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in page.text


@pytest.mark.parametrize("path", ["/search", "/documents", "/v1/embeddings"])
def test_the_docs_say_what_a_body_holds(client: httpx.Client, path: str) -> None:
    text = client.get("/docs").text
    section = text[text.index(f"<h2>POST {path}</h2>") :]
    name = re.search(r'<td>body</td><td><a href="#(\w+)">', section)
    assert name
    assert f'<h3 id="{name[1]}">' in text


def test_the_docs_say_which_values_are_taken(client: httpx.Client) -> None:
    text = client.get("/docs").text
    assert "<td>k</td><td>integer (from 1, to 1000) or null</td><td>default 10</td>" in text
    assert "<td>dimensions</td><td><code>48</code> or null</td>" in text
