"""A stand-in for W&B's server on loopback: as much of it as sweeps, their agent and online runs of W&B 0.31 ask for."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

ENTITY = {"id": "e1", "name": "somebody"}


class WandbServer:
    """Takes one sweep and hands out ``settings``, one run each, then tells the agent to exit.

    ``operations`` are the GraphQL operations so far, ``sweep`` is the sweep that was sent (YAML). Of online runs, by
    run id: ``configs`` and ``history``, as the server got them.
    """

    def __init__(self, settings: list[dict[str, Any]] | None = None) -> None:
        self.operations: list[str] = []
        self.sweep = ""
        self.configs: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self._jobs: list[dict[str, Any]] = [
            {"type": "run", "run_id": f"run{number}", "args": {name: {"value": v} for name, v in chosen.items()}}
            for number, chosen in enumerate(settings or [])
        ]
        self._jobs.append({"type": "exit"})
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def environment(self) -> dict[str, str]:
        """What points W&B to this server."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "a" * 40}

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The answer to a GraphQL request."""
        operation = query.split("{")[0].split("(")[0].split()[-1]
        self.operations.append(operation)
        answer = getattr(self, f"_{operation}", None)
        if answer is None:
            return {"errors": [{"message": f"the stand-in has no {operation}"}]}
        return {"data": answer(variables)}

    def file_stream(self, run: str, body: dict[str, Any]) -> None:
        """Take what an online run sends of its history."""
        lines = body.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
        self.history.setdefault(run, []).extend(map(json.loads, lines))

    def _Viewer(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        empty = {"edges": []}
        who = {"id": "1", "username": "somebody", "entity": "somebody", "flags": "{}", "teams": empty, "apiKeys": empty}
        return {"viewer": who | {"name": "", "email": "", "admin": False}}

    def _UpsertSweep(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        self.sweep = variables["config"]
        project = {"id": "p1", "name": variables["projectName"], "entity": ENTITY}
        sweep = {"id": "s1", "name": "sweep1", "project": project}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def _CreateAgent(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"createAgent": {"agent": {"id": "a1"}}}

    def _Heartbeat(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        # A run at a time: the next one when the agent says that none is under way.
        free = not any(json.loads(variables.get("runState") or "{}").values())
        jobs = [self._jobs.pop(0)] if free and self._jobs else []
        return {"agentHeartbeat": {"agent": {"id": "a1"}, "commands": json.dumps(jobs)}}

    def _UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name = variables["name"]
        sent = json.loads(variables.get("config") or "{}")
        self.configs.setdefault(name, {}).update({key: item["value"] for key, item in sent.items()})
        project = {"id": "p1", "name": variables["project"], "entity": ENTITY}
        run = {"id": f"b-{name}", "name": name, "displayName": name, "description": None, "historyLineCount": None}
        run |= {"config": variables.get("config"), "sweepName": variables.get("sweep"), "project": project}
        return {"upsertBucket": {"bucket": run, "inserted": True}}

    def _CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """W&B's service resets the connections that it has kept when it ends: that is no error here."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self._body()
            if self.path == "/graphql":
                body = json.loads(data)
                self._answer(200, server.graphql(body["query"], body.get("variables") or {}))
            elif self.path.endswith("/file_stream"):
                server.file_stream(self.path.split("/")[-2], json.loads(data))
                self._answer(200, {})
            else:
                self._answer(404, {})

        def do_PUT(self) -> None:
            self._body()
            self._answer(200, {})

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers["Content-Length"]))

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler
