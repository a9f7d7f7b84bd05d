"""The protocol's requests, each answered by a thread: ``Tools`` does the work, the SDK speaks with the client."""

import contextlib
import logging
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError

from freemvmt.search.retriever import Retriever
from freemvmt.server.api.thread_pool import ThreadPool, one_core
from freemvmt.server.http.errors import as_refusal, one_line
from freemvmt.server.mcp.tools import TEMPLATE, Tools
from freemvmt.server.settings import ServeSettings

_log = logging.getLogger("freemvmt.server")


def make_server(retriever: Retriever, settings: ServeSettings) -> Server[Any]:
    """A server over ``retriever``, for any transport. Searches run in the threads that ``settings`` allow."""
    tools = Tools(retriever)
    pool = ThreadPool(settings.search_threads, settings.queue, settings.timeout, one_core)

    @contextlib.asynccontextmanager
    async def lifespan(_: Server[Any]) -> AsyncIterator[None]:
        yield
        pool.close()

    async def list_tools(_: Any, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=await pool.run(tools.listed))

    async def call_tool(_: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        if params.name not in tools.names:
            message = f"there is no tool {params.name[:60]!r}; the tools are {', '.join(tools.names)}"
            raise MCPError(types.INVALID_PARAMS, message)
        try:
            return await pool.run(tools.call, params.name, params.arguments or {})
        except Exception as error:  # noqa: BLE001 - a model reads the message; the log gets the details
            message = _message_of(error)
            return types.CallToolResult(content=[types.TextContent(type="text", text=message)], is_error=True)

    async def list_resources(_: Any, __: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=await pool.run(tools.resources))

    async def list_templates(_: Any, __: types.PaginatedRequestParams | None) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(resource_templates=[TEMPLATE])

    async def read_resource(_: Any, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        try:
            text = await pool.run(tools.read, params.uri)
        except Exception as error:  # noqa: BLE001 - as above
            raise MCPError(types.INVALID_PARAMS, _message_of(error), {"uri": params.uri}) from None
        contents = types.TextResourceContents(uri=params.uri, mime_type="text/plain", text=text)
        return types.ReadResourceResult(contents=[contents])

    return Server(
        "two-towers",
        version=version("two-towers"),
        instructions=tools.instructions,
        lifespan=lifespan,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
    )


def _message_of(error: Exception) -> str:
    """One line for the client: what is wrong, and what to do instead."""
    if (refusal := as_refusal(error)) is not None:
        return one_line(str(refusal))
    _log.error("a call failed", exc_info=error)
    return "this should not happen; the server's log says more"
