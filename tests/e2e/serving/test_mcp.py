"""`two-towers mcp` as a process, asked by the protocol's own client: over stdin and stdout, and over HTTP."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters

from freemvmt.cli import main
from freemvmt.data.documents import Document
from freemvmt.search.retriever import Retriever
from freemvmt.server.mcp.cutting import MOST_CHARACTERS, MOST_IN_PAGE
from freemvmt.server.settings import TOKEN_VARIABLE

from bundles import write_corpus
from live_server import HOSTILE_TEXT

TOKEN = "long-and-random-1"
COMMAND = [sys.executable, "-W", "error", "-m", "freemvmt", "mcp"]
TOOLS = ["search", "get", "similar", "explain"]
Talk = Callable[[Client], Awaitable[None]]


@asynccontextmanager
async def over_stdio(bundle: Path, mode: str = "auto") -> AsyncIterator[Client]:
    """A client of a process of its own."""
    server = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], str(bundle)], env=dict(os.environ))
    async with Client(server, mode=mode) as client:  # type: ignore[arg-type]
        yield client


@asynccontextmanager
async def over_http(bundle: Path, mode: str = "auto") -> AsyncIterator[Client]:
    with serving(bundle) as (_, address):
        async with Client(address, mode=mode) as client:  # type: ignore[arg-type]
            yield client


@contextmanager
def serving(bundle: Path, *flags: str, token: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """(process, address) of a server over HTTP."""
    command = [*COMMAND, str(bundle), "--http", "--port", "0", *flags]
    pipe, environment = subprocess.PIPE, os.environ | {TOKEN_VARIABLE: token}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            assert process.stdout
            said = [process.stdout.readline() for _ in range(2)]
            found = re.fullmatch(r"MCP +http://.+:(\d+)/mcp\n", said[1])
            assert found, (said, process.stderr and process.stderr.read())
            yield process, f"http://127.0.0.1:{found[1]}/mcp"
        finally:
            process.kill()


def structured(result: Any) -> Any:
    """What a call returned; the text beside it has the same ids."""
    assert not result.is_error, result.content
    return result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """The one line that a call is refused with."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    (content,) = result.content
    assert content.type == "text"
    assert "\n" not in content.text
    assert "Traceback" not in content.text
    return str(content.text)


@pytest.mark.parametrize("transport", [over_stdio, over_http])
@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_finds_and_reads_documents(transport: Any, mode: str, bundle: Path) -> None:
    async def talk() -> None:
        async with transport(bundle, mode) as client:
            assert client.server_info.name == "two-towers"
            assert 'the document collection "bundle"' in client.instructions
            await check_the_list(client)
            await check_the_tools(client, Retriever.load(bundle))
            await check_the_resources(client)
            await check_the_refusals(client)
            await check_calls_at_the_same_time(client)

    asyncio.run(talk())


async def check_the_list(client: Client) -> None:
    """The description says what a model needs to know of this bundle."""
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == TOOLS
    search = tools["search"]
    assert search.description
    assert '"bundle" holds 60 documents. Among them: "About ' in search.description
    assert '{"source": "debian"} or {"source": ["debian", "reuters"]} or {"year": {"gte": 1990' in search.description
    properties = search.input_schema["properties"]
    assert (properties["k"]["minimum"], properties["k"]["maximum"]) == (1, 50)
    fields = properties["filter"]["properties"]
    assert fields["source"]["description"] == 'Most frequent: "debian", "reuters", "scifact".'
    assert {"type": "number"} in fields["year"]["anyOf"]
    for tool in tools.values():
        assert tool.description
        assert tool.output_schema
        assert tool.annotations
        assert tool.annotations.read_only_hint
        assert "$ref" not in json.dumps(tool.input_schema)


async def check_the_tools(client: Client, retriever: Retriever) -> None:
    """Each answers as the retriever does."""
    query, condition = "magnet", {"source": "reuters", "year": {"lt": 2000}}
    result = await client.call_tool("search", {"query": query, "k": 4, "filter": condition})
    found = structured(result)
    expected = retriever.search(query, 4, filter=condition)
    assert found["documents"] == 60
    assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in expected]
    for hit, true in zip(found["hits"], expected, strict=True):
        assert hit["score"] == pytest.approx(true.score, abs=1e-4)
        assert (hit["title"], hit["text"], hit["metadata"]) == (true.title, true.text, true.metadata)
        assert hit["cut"] == ""
        assert f"[{hit['id']}]" in result.content[0].text  # type: ignore[union-attr]
    as_text = await client.call_tool("search", {"query": query, "k": 4, "filter": json.dumps(condition)})
    assert structured(as_text) == found
    by_words = structured(await client.call_tool("search", {"query": query, "method": "bm25", "k": None}))
    assert [hit["id"] for hit in by_words["hits"]] == [hit.id for hit in retriever.search(query, 10, "bm25")]

    whole = structured(await client.call_tool("get", {"id": "d59"}))
    assert (whole["text"], whole["next_start"], whole["start"]) == (HOSTILE_TEXT, None, 0)
    assert whole["metadata"] == {"source": "scifact", "year": 2029}
    near = structured(await client.call_tool("similar", {"id": "d3", "k": 3}))
    assert [hit["id"] for hit in near["hits"]] == [hit.id for hit in retriever.similar("d3", 3)]
    why = structured(await client.call_tool("explain", {"query": query, "id": "d3"}))
    assert why["score"] == pytest.approx(retriever.explain(query, "d3").score, abs=1e-4)
    assert sum(word["share"] for word in why["words"]) + why["rest"] == pytest.approx(why["score"], abs=2e-3)
    assert why["side"] == "document"


async def check_the_resources(client: Client) -> None:
    (template,) = (await client.list_resource_templates()).resource_templates
    assert template.uri_template == "document://{id}"
    listed = (await client.list_resources()).resources
    assert len(listed) == 3
    (content,) = (await client.read_resource(listed[-1].uri)).contents
    assert content.text.endswith(HOSTILE_TEXT)  # type: ignore[union-attr]
    for uri, message in (("document://none", "no document 'none'"), ("file:///etc/passwd", "there is no resource")):
        with pytest.raises(MCPError, match=message):
            await client.read_resource(uri)


async def check_the_refusals(client: Client) -> None:
    assert await refused(client, "get", id="none") == "there is no document 'none'; check the id"
    assert "no document" in await refused(client, "similar", id="none")
    assert "no document" in await refused(client, "explain", id="none", query="x")
    assert "a smaller start" in await refused(client, "get", id="d1", start=10**6)
    assert "less than or equal to 50" in await refused(client, "search", query="x", k=51)
    assert "greater than or equal to 1" in await refused(client, "search", query="x", k=0)
    assert "field required" in await refused(client, "search")
    assert "no such field" in await refused(client, "search", query="x", weights=1)
    assert "at most 10000 characters" in await refused(client, "search", query="x" * 10_001)
    assert "the fields are: source, year" in await refused(client, "search", query="x", filter={"colour": "red"})
    assert "is a number, not str" in await refused(client, "search", query="x", filter={"year": "1990"})
    assert "dictionary" in await refused(client, "search", query="x", filter="{")
    with pytest.raises(MCPError, match="there is no tool 'write'; the tools are search"):
        await client.call_tool("write", {})


async def check_calls_at_the_same_time(client: Client) -> None:
    """Each gets its own answer."""
    ids = [f"d{number}" for number in range(40)]
    found = await asyncio.gather(*(client.call_tool("get", {"id": id}) for id in ids))
    assert [structured(one)["id"] for one in found] == ids


def test_what_is_added_while_the_server_runs_is_found(own_bundle: Path, tmp_path: Path) -> None:
    async def talk() -> None:
        async with over_stdio(own_bundle) as client:
            assert "holds 60 documents" in str((await client.list_tools()).tools[0].description)
            added = write_corpus(tmp_path / "more.jsonl", [Document("a/b c%", "quagga", "Beasts", {"size": 3})])
            command = [*COMMAND[:-1], "add", str(own_bundle), str(added)]
            await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
            found = structured(await client.call_tool("search", {"query": "quagga", "method": "bm25"}))
            assert [hit["id"] for hit in found["hits"]] == ["a/b c%"]
            (content,) = (await client.read_resource("document://a%2Fb%20c%25")).contents
            assert content.text == "Beasts\n\nquagga"  # type: ignore[union-attr]
            (search, *_) = (await client.list_tools()).tools
            assert "holds 61 documents" in str(search.description)
            assert set(search.input_schema["properties"]["filter"]["properties"]) == {"source", "year", "size"}

    asyncio.run(talk())


def test_answers_are_bounded_and_say_what_is_missing(own_bundle: Path) -> None:
    long = Retriever.load(own_bundle)
    text = "quagga " * 9_000
    metadata = {"notes": "n" * 30_000, "plain": "p"}
    long.add([Document(f"long{number}", text, "t" * 999, metadata) for number in range(40)])
    long.add([Document("short", "quagga, in short")])
    long.close()

    async def talk() -> None:
        async with over_stdio(own_bundle) as client:
            result = await client.call_tool("search", {"query": "quagga", "k": 50, "method": "bm25"})
            hits = structured(result)["hits"]
            assert len(hits) == 41
            sizes = [len(hit["text"]) + len(json.dumps(hit["metadata"])) for hit in hits]
            assert 0.9 * MOST_CHARACTERS < sum(sizes) <= MOST_CHARACTERS
            assert len(result.content[0].text) < 2 * MOST_CHARACTERS  # type: ignore[union-attr]
            for hit in hits:
                if hit["id"] == "short":
                    assert (hit["text"], hit["cut"]) == ("quagga, in short", "")
                else:
                    assert re.fullmatch(r"the text: \d+ of \d+ characters; the fields notes", hit["cut"])
                    assert text[hit["place"]["start"] :].startswith(hit["text"])  # of the best passage
                    assert hit["metadata"] == {"plain": "p"}
                    assert len(hit["title"]) == 200
            parts, start = [], 0
            while start is not None:
                part = structured(await client.call_tool("get", {"id": "long7", "start": start}))
                assert part["characters"] == len(text)
                parts.append(part["text"])
                start = part["next_start"]
            assert [len(part) for part in parts] == [MOST_IN_PAGE] * 3 + [9_000]
            assert "".join(parts) == text

    asyncio.run(talk())


def asked(*messages: dict[str, Any]) -> str:
    return "".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in messages)


HELLO = {
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


def test_only_the_protocol_is_on_stdout_and_the_end_of_stdin_ends_it(bundle: Path) -> None:
    said = asked(HELLO, {"method": "notifications/initialized"}) + "no JSON\n"
    done = subprocess.run([*COMMAND, str(bundle)], input=said, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[0]["result"]["serverInfo"]["name"] == "two-towers"
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)
    silent = subprocess.run([*COMMAND, str(bundle)], input="", capture_output=True, text=True, check=False, timeout=60)
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_quietly(bundle: Path, number: signal.Signals) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, str(bundle)], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(asked(HELLO))
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        process.send_signal(number)
        assert process.wait(30) == 0  # its stdin is open
        assert process.stderr
        assert process.stderr.read() == ""
    with serving(bundle) as (server, _):
        server.send_signal(number)
        assert server.wait(30) == 0
        assert server.stderr
        assert server.stderr.read() == ""


def test_a_client_that_is_gone_ends_it_without_a_traceback(bundle: Path) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, str(bundle)], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stdin
        process.stdin.write(asked(HELLO))
        process.stdin.close()
        assert process.wait(30) == 0
        assert process.stderr
        assert process.stderr.read() == ""


def test_pages_of_other_origins_and_other_names_are_refused(bundle: Path) -> None:
    with serving(bundle) as (process, address):
        body = json.loads(asked({"id": 1, "method": "tools/list"}))
        headers = {"Accept": "application/json, text/event-stream"}

        def status(**more: str) -> int:
            return httpx.post(address, json=body, headers=headers | more).status_code

        own = httpx.URL(address)
        assert status() == 200
        assert status(Origin=f"http://127.0.0.1:{own.port}") == 200
        assert status(Origin="https://evil.example") == 403
        assert status(Origin="null") == 403
        assert status(Host="evil.example") == 421
        assert status(Host="evil.example", Origin="http://evil.example") == 421
        assert httpx.get(address, headers={"Accept": "text/event-stream"}).status_code == 405
        assert httpx.delete(address).status_code == 405
        assert httpx.post(address.removesuffix("/mcp"), json=body).status_code == 404
        assert httpx.post(address, content=b"x" * 2**22, headers=headers).status_code == 413
        process.terminate()
        assert process.stderr
        log = process.stderr.read()
    assert "Traceback" not in log
    assert all(json.loads(line)["ms"] >= 0 for line in log.splitlines())  # a line a request, and nothing else


def test_with_a_token_every_request_needs_it(bundle: Path) -> None:
    with serving(bundle, "--host", "0.0.0.0", token=TOKEN) as (_, address):
        body = json.loads(asked({"id": 1, "method": "tools/list"}))
        headers = {"Accept": "application/json, text/event-stream"}
        right = {"Authorization": f"Bearer {TOKEN}"}
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
            answer = httpx.post(address, json=body, headers=headers | wrong)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert httpx.post(address, json=body, headers=headers | right).status_code == 200
        elsewhere = right | {"Origin": "https://evil.example"}
        assert httpx.post(address, json=body, headers=headers | elsewhere).status_code == 403


def test_what_it_will_not_start_with(
    bundle: Path,
    own_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refusal(*words: object, token: str = "") -> str:
        monkeypatch.setenv(TOKEN_VARIABLE, token)
        assert main(["mcp", *map(str, words)]) == 2
        out, said = capsys.readouterr()
        assert out == ""
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert "; " in said
        return said

    assert "give a folder that `two-towers index` wrote" in refusal(tmp_path)
    with (own_bundle / "documents.utf8").open("r+b") as file:
        file.write(b"?")
    for flags in ([], ["--http", "--port", "0"]):
        assert "documents.utf8" in refusal(own_bundle, *flags)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in refusal(bundle, "--http", "--port", port)
    assert f"could read the documents; set {TOKEN_VARIABLE}" in refusal(bundle, "--http", "--host", "0.0.0.0")
    assert "fewer than 16 characters" in refusal(bundle, "--http", "--host", "0.0.0.0", token="short")
    assert "are for --http" in refusal(bundle, "--port", "9000")
