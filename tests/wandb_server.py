"""A stand-in for W&B's server on loopback: enough of it for ``wandb.sweep`` and ``wandb.agent`` with offline runs."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class WandbServer:
    """Takes one sweep and hands out ``settings``, one run each, then tells the agent to exit.

    ``requests`` holds the name of each GraphQL operation, ``sweep`` the sweep that it was sent (YAML).
    """

    def __init__(self, settings: list[dict[str, Any]]) -> None:
        self.requests: list[str] = []
        self.sweep = ""
        self._commands: list[dict[str, Any]] = [
            {"type": "run", "run_id": f"run{number}", "args": {name: {"value": v} for name, v in chosen.items()}}
            for number, chosen in enumerate(settings)
        ]
        self._commands.append({"type": "exit"})
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = json.dumps(stand_in.answer(body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a GraphQL request."""
        query, variables = body["query"], body.get("variables") or {}
        operation = query.split("{")[0].split("(")[0].split()[-1]
        self.requests.append(operation)
        if operation == "Viewer":
            who = {"id": "1", "username": "somebody", "entity": "somebody", "flags": "{}", "teams": {"edges": []}}
            return {"data": {"viewer": who | {"name": "", "email": "", "admin": False, "apiKeys": {"edges": []}}}}
        if operation == "UpsertSweep":
            self.sweep = variables["config"]
            project = {"id": "p1", "name": variables.get("projectName"), "entity": {"id": "1", "name": "somebody"}}
            made = {"id": "s1", "name": "sweep1", "project": project}
            return {"data": {"upsertSweep": {"sweep": made, "configValidationWarnings": []}}}
        if operation == "CreateAgent":
            return {"data": {"createAgent": {"agent": {"id": "a1"}}}}
        if operation == "Heartbeat":
            # A run at a time: the next one when the agent says that none is under way.
            free = not any(json.loads(variables.get("runState") or "{}").values())
            commands = [self._commands.pop(0)] if free and self._commands else []
            return {"data": {"agentHeartbeat": {"agent": {"id": "a1"}, "commands": json.dumps(commands)}}}
        return {"errors": [{"message": f"the stand-in does not know {operation}: {query[:300]} {variables}"}]}

    def environment(self) -> dict[str, str]:
        """What points W&B to this server."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "a" * 40}

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
