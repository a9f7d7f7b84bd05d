"""What stands in deploy/: the image is built in stages and runs as nobody; compose and systemd give it no more."""

import configparser
import contextlib
import io
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dockerfile
import healthcheck
import pytest
import stages
import torch
import yaml

from freemvmt.cli import main
from freemvmt.server.settings import TOKEN_VARIABLE, ServeSettings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
STAGES = dockerfile.parse(DEPLOY / "Dockerfile")
FINAL = STAGES[-1]
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


class Unit(configparser.RawConfigParser):
    """A unit file: keys as written, and a key that comes again adds to its value."""

    def __init__(self, path: Path) -> None:
        super().__init__(strict=False, delimiters=("=",), comment_prefixes=("#",))
        self.optionxform = str  # type: ignore[assignment, method-assign]
        text = path.read_text(encoding="utf-8")
        self.filters = re.findall(r"^SystemCallFilter=(.*)$", text, re.MULTILINE)
        self.read_string(text)


UNIT = Unit(DEPLOY / "two-towers.service")
SERVICE = UNIT["Service"]


def of_stages(name: str) -> list[dockerfile.Instruction]:
    return [instruction for stage in STAGES for instruction in stage.all(name)]


def test_the_last_stage_takes_the_environment_from_an_earlier_one_and_installs_nothing() -> None:
    assert len(STAGES) >= 2
    copied = [flag for instruction in FINAL.all("COPY") for flag in instruction.flag("from")]
    assert copied == ["build"]
    assert not any(re.search(r"\b(pip|uv|apt-get)\b", run.text) for run in FINAL.all("RUN"))
    assert any(re.search(r"uv pip install.*--extra serve", run.text) for run in of_stages("RUN"))


def test_both_stages_stand_on_one_pinned_image() -> None:
    names = {stage.name for stage in STAGES}
    bases = [stage.base for stage in STAGES if stage.base not in names]
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", bases[0])
    label = next(dockerfile.pairs(label.text) for label in FINAL.all("LABEL"))
    assert label["org.opencontainers.image.base.name"] == bases[0]
    assert bases[0].split(":")[1].split("-")[0] >= PROJECT["project"]["requires-python"].removeprefix(">=")


def test_the_image_says_what_it_is() -> None:
    label = dockerfile.pairs(FINAL.all("LABEL")[0].text)
    version = next(arg.text.partition("=")[2] for arg in FINAL.all("ARG") if arg.text.startswith("VERSION="))
    assert label["org.opencontainers.image.title"] == PROJECT["project"]["name"]
    assert label["org.opencontainers.image.licenses"] == PROJECT["project"]["license"]
    assert version == PROJECT["project"]["version"]
    assert SERVICES["search"]["image"] == f"two-towers:{version}"


def test_the_pinned_torch_is_the_one_that_is_tested_here() -> None:
    pinned = next(arg.text.partition("=")[2] for arg in of_stages("ARG") if arg.text.startswith("TORCH_VERSION="))
    assert pinned == torch.__version__.partition("+")[0], "the date of exclude-newer moved: pin the torch that it gives"


def test_the_container_is_nobody_and_needs_no_shell() -> None:
    (user,) = FINAL.all("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user.text)
    assert any(f"--uid {user.text.split(':')[0]} " in run.text for run in FINAL.all("RUN"))
    order = [instruction.name for instruction in FINAL.instructions]
    assert "RUN" not in order[order.index("USER") :]
    assert "COPY" not in order[order.index("USER") :]
    for name in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):
        (instruction,) = FINAL.all(name)
        assert instruction.words, f"{name} is not in exec form"
        assert not {"sh", "bash", "curl", "wget"} & set(instruction.words)
    assert FINAL.all("STOPSIGNAL")[0].text == "SIGTERM"
    assert FINAL.all("EXPOSE")[0].text == "8000"


def test_nothing_of_the_image_is_written_to() -> None:
    environment = dockerfile.pairs(FINAL.all("ENV")[0].text)
    assert {environment[name] for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME")} == {"/tmp"}
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "1"


def test_the_dockerfile_fetches_nothing_by_address_and_holds_no_secret() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert not of_stages("ADD")
    assert "://" not in text
    assert ":latest" not in text
    names = [name for kind in ("ENV", "ARG") for instruction in of_stages(kind) for name in instruction.text.split()]
    assert not [name for name in names if re.search("TOKEN|SECRET|PASSWORD|KEY", name.partition("=")[0])]


def test_the_builder_is_sent_what_is_copied_and_nothing_else(tmp_path: Path) -> None:
    for name in (
        ".git/config",
        ".env",
        "models/m/model.safetensors",
        "freemvmt/__pycache__/a.pyc",
        "deploy/secret.env",
    ):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text("private")
    sources = [name for copy in of_stages("COPY") if not copy.flag("from") for name in copy.text.split()[:-1]]
    for name in sources:
        path = tmp_path / "root" / name
        if (ROOT / name).is_dir():
            (path / "search").mkdir(parents=True, exist_ok=True)
            (path / "search" / "exact.py").write_text("public")
        else:
            path.write_text("public")
    (tmp_path / "root" / ".dockerignore").write_bytes((ROOT / ".dockerignore").read_bytes())
    stages.copy_context(tmp_path / "root", tmp_path / "context")
    sent = [path for path in (tmp_path / "context").rglob("*") if path.is_file()]
    assert {path.read_text() for path in sent} == {"public"}
    assert len(sent) == len(sources)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_of_compose_can_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert all(volume["read_only"] for volume in service["volumes"] if isinstance(volume, dict))
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & set(service)
    assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def test_compose_runs_what_the_image_runs() -> None:
    search = SERVICES["search"]
    assert (DEPLOY / search["build"]["context"] / search["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    command = FINAL.all("CMD")[0].words or []
    assert search["command"][: len(command)] == command
    assert (
        search["command"][search["command"].index("--threads") + 1] == search["deploy"]["resources"]["limits"]["cpus"]
    )
    assert search["healthcheck"]["test"] == ["CMD", *(FINAL.all("HEALTHCHECK")[0].words or [])]
    assert {volume["target"] for volume in search["volumes"]} == {command[1]}
    (tmpfs,) = search["tmpfs"]
    assert set(tmpfs.partition(":")[2].split(",")) >= {"noexec", "nosuid", "nodev"}
    assert search["environment"] == [TOKEN_VARIABLE], "a token is handed through, never written down"


def test_prometheus_asks_the_search_service_at_its_port() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    assert job.get("metrics_path", "/metrics") == "/metrics"
    assert job["static_configs"][0]["targets"] == [f"search:{FINAL.all('EXPOSE')[0].text}"]
    mounted = {volume["target"]: volume["source"] for volume in SERVICES["prometheus"]["volumes"] if "target" in volume}
    path = next(flag for flag in SERVICES["prometheus"]["command"] if flag.startswith("--config.file="))
    assert (DEPLOY / mounted[path.partition("=")[2]]).samefile(DEPLOY / "prometheus.yml")


@pytest.mark.parametrize(
    ("key", "value"),
    {
        "DynamicUser": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "PrivateDevices": "yes",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
        "RestrictNamespaces": "yes",
        "SystemCallArchitectures": "native",
        "MemoryMax": "2G",
        "Restart": "on-failure",
        "TimeoutStopSec": "30",
        "EnvironmentFile": "-/etc/two-towers/environment",
    }.items(),
)
def test_the_unit_takes_away_what_a_server_does_not_need(key: str, value: str) -> None:
    assert SERVICE[key] == value


def test_the_unit_serves_one_bundle_that_it_cannot_write() -> None:
    assert UNIT.filters == ["@system-service", "~@privileged @resources"]
    program, verb, bundle, *rest = SERVICE["ExecStart"].split()
    assert (Path(program).name, verb) == ("two-towers", "serve")
    assert SERVICE["ReadOnlyPaths"] == bundle == UNIT["Unit"]["AssertPathIsDirectory"]
    assert "--read-only" in rest
    assert rest[rest.index("--host") + 1] == "127.0.0.1"


def test_every_flag_that_is_used_exists() -> None:
    with contextlib.redirect_stdout(io.StringIO()) as told, pytest.raises(SystemExit):
        main(["serve", "--help"])
    known = set(re.findall(r"--[a-z-]+", told.getvalue()))
    used = [FINAL.all("CMD")[0].words or [], SERVICES["search"]["command"], SERVICE["ExecStart"].split()]
    flags = {word for words in used for word in words if word.startswith("--")}
    assert {"--host", "--port", "--read-only"} <= flags <= known
    assert {f"--{field.name.replace('_', '-')}" for field in fields(ServeSettings)} >= flags


@contextlib.contextmanager
def answering(status: int) -> Iterator[str]:
    """A server on loopback that answers every request with ``status``; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/ready" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/ready"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
def test_the_health_check_says_what_the_server_says(
    status: int, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # the server is here: no proxy is asked
    with answering(status) as url:
        assert healthcheck.main([url]) == code
    assert capsys.readouterr().err == ("" if code == 0 else f"{url} answers {status}\n")


def test_the_health_check_of_a_server_that_is_down_fails_without_a_traceback() -> None:
    with answering(200) as url:
        pass
    done = subprocess.run(
        [sys.executable, "-I", DEPLOY / "healthcheck.py", url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{url} does not answer: ")
    assert len(done.stderr.splitlines()) == 1


def test_the_health_check_asks_the_port_that_is_exposed() -> None:
    assert f"http://127.0.0.1:{FINAL.all('EXPOSE')[0].text}/ready" == healthcheck.READY
    command = FINAL.all("CMD")[0].words or []
    assert command[command.index("--port") + 1] == FINAL.all("EXPOSE")[0].text
