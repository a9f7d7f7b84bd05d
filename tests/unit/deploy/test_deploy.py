"""What stands in deploy/: the image is built in stages and runs as nobody; compose and systemd give it no more."""

import configparser
import contextlib
import io
import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import healthcheck
import pytest
import torch
import yaml

from freemvmt.cli import main
from freemvmt.server.settings import TOKEN_VARIABLE, ServeSettings

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Instruction:
    """One instruction of the Dockerfile, in its stage; ``text`` is what stands behind its name."""

    stage: int
    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The exec form."""
        words: list[str] = json.loads(self.text[self.text.index("[") :])
        return words


def instructions_of(text: str) -> list[Instruction]:
    """All of them, in order: comments gone, continued lines joined. hadolint checks the form itself."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found, stage = [], -1
    for line in re.sub(r"\\\n\s*", "", lines).splitlines():
        name, _, rest = line.strip().partition(" ")
        stage += name == "FROM"
        if name:
            found.append(Instruction(stage, name, rest.strip()))
    return found


def pairs(text: str) -> dict[str, str]:
    """``A=b C="d e"`` of an ENV or a LABEL."""
    return {name: value.strip('"') for name, value in re.findall(r'([\w.]+)=("[^"]*"|\S+)', text)}


INSTRUCTIONS = instructions_of((DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
FINAL = [one for one in INSTRUCTIONS if one.stage == INSTRUCTIONS[-1].stage]


def named(name: str, instructions: list[Instruction] = FINAL) -> list[Instruction]:
    return [one for one in instructions if one.name == name]


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


def test_the_last_stage_takes_the_environment_from_an_earlier_one_and_installs_nothing() -> None:
    copied = [one.text for one in named("COPY")]
    assert copied == ["--from=build /opt/two-towers /opt/two-towers"]
    assert not any(re.search(r"\b(pip|uv|apt-get)\b", run.text) for run in named("RUN"))
    assert any(re.search(r"uv pip install.*--extra serve", run.text) for run in named("RUN", INSTRUCTIONS))


def test_both_stages_stand_on_one_pinned_image() -> None:
    bases = [one.text for one in named("FROM", INSTRUCTIONS)]
    assert bases[1:] == ["base AS build", "base"]
    image = bases[0].removesuffix(" AS base")
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", image)
    assert pairs(named("LABEL")[0].text)["org.opencontainers.image.base.name"] == image
    assert image.split(":")[1].split("-")[0] >= PROJECT["project"]["requires-python"].removeprefix(">=")


def test_the_image_says_what_it_is() -> None:
    label = pairs(named("LABEL")[0].text)
    version = pairs(named("ARG")[0].text)["VERSION"]
    assert label["org.opencontainers.image.title"] == PROJECT["project"]["name"]
    assert label["org.opencontainers.image.licenses"] == PROJECT["project"]["license"]
    assert version == PROJECT["project"]["version"]
    assert SERVICES["search"]["image"] == f"two-towers:{version}"


def test_the_pinned_torch_is_the_one_that_is_tested_here() -> None:
    pinned = {name: value for one in named("ARG", INSTRUCTIONS) for name, value in pairs(one.text).items()}
    here = torch.__version__.partition("+")[0]
    assert pinned["TORCH_VERSION"] == here, "the date of exclude-newer moved: pin the torch that it gives"


def test_the_container_is_nobody_and_needs_no_shell() -> None:
    (user,) = named("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user.text)
    assert any(f"--uid {user.text.split(':')[0]} " in run.text for run in named("RUN"))
    after = {one.name for one in FINAL[FINAL.index(user) :]}
    assert not after & {"RUN", "COPY"}
    for name in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):
        (instruction,) = named(name)
        assert not {"sh", "bash", "curl", "wget"} & set(instruction.words)
    assert named("STOPSIGNAL")[0].text == "SIGTERM"
    assert named("EXPOSE")[0].text == "8000"


def test_nothing_of_the_image_is_written_to() -> None:
    environment = pairs(named("ENV")[0].text)
    assert {environment[name] for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME")} == {"/tmp"}
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "1"


def test_the_dockerfile_fetches_nothing_by_address_and_holds_no_secret() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert not named("ADD", INSTRUCTIONS)
    assert "://" not in text
    assert ":latest" not in text
    names = [name for kind in ("ENV", "ARG") for one in named(kind, INSTRUCTIONS) for name in one.text.split()]
    assert not [name for name in names if re.search("TOKEN|SECRET|PASSWORD|KEY", name.partition("=")[0])]


def test_the_builder_is_sent_what_is_copied_and_nothing_else() -> None:
    copies = [one.text for one in named("COPY", INSTRUCTIONS) if not one.text.startswith("--from")]
    sources = {name for copy in copies for name in copy.split()[:-1]}
    rules = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == sources
    assert rules[-2:] == ["**/__pycache__", "**/*.py[cod]"]


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
    command = named("CMD")[0].words
    assert search["command"][: len(command)] == command
    assert (
        search["command"][search["command"].index("--threads") + 1] == search["deploy"]["resources"]["limits"]["cpus"]
    )
    assert search["healthcheck"]["test"] == ["CMD", *named("HEALTHCHECK")[0].words]
    assert {volume["target"] for volume in search["volumes"]} == {command[1]}
    (tmpfs,) = search["tmpfs"]
    assert set(tmpfs.partition(":")[2].split(",")) >= {"noexec", "nosuid", "nodev"}
    assert search["environment"] == [TOKEN_VARIABLE], "a token is handed through, never written down"


def test_prometheus_asks_the_search_service_at_its_port() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    assert job.get("metrics_path", "/metrics") == "/metrics"
    assert job["static_configs"][0]["targets"] == [f"search:{named('EXPOSE')[0].text}"]
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
    used = [named("CMD")[0].words, SERVICES["search"]["command"], SERVICE["ExecStart"].split()]
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
    assert f"http://127.0.0.1:{named('EXPOSE')[0].text}/ready" == healthcheck.READY
    command = named("CMD")[0].words
    assert command[command.index("--port") + 1] == named("EXPOSE")[0].text
