"""Rehearses deploy/Dockerfile where no container engine runs: every step, then one search, as root on Linux.

    sudo python deploy/rehearse.py BUNDLE [--build-arg NAME=VALUE] [--query TEXT]

The instructions are read from the Dockerfile, so the two cannot drift apart. This machine plays the base image: each
stage is an overlay over its root file system, and a chroot into it. What a step writes lands in the overlay, so nothing
here changes but the caches of pip and uv, and the size of the last overlay is what the image adds to its base. The
server then runs as the user of the Dockerfile, as process 1, without a capability, without a shell, without a network
but its own loopback, on a root file system that cannot be written to, as compose.yaml would have it.
"""

import argparse
import errno
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import stages
from dockerfile import parse
from stages import Builder, Built, RehearsalError, bind, call, inside, mount, say, size

HERE = Path(__file__).resolve().parent
TMPFS = "size=64m,mode=1777"  # as in compose.yaml, beside noexec, nosuid and nodev
START, STOP = 120.0, 30.0  # seconds that the server has to be healthy, and to be gone


def loopback_only() -> None:
    """Leave this machine's network for one with nothing but a loopback of its own."""
    call("unshare", stages.NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        up = struct.pack("16sh14x", b"lo", 1)  # IFF_UP
        fcntl.ioctl(control, 0x8914, up)  # SIOCSIFFLAGS


class Container:
    """The last stage, run the way that compose.yaml runs it."""

    def __init__(self, built: Built, bundle: Path, log: Path) -> None:
        self.built = built
        self.log = log.open("w+")
        root = built.root
        (root / "bundle").mkdir(exist_ok=True)
        for shell in Path("/etc/shells").read_text(encoding="utf-8").split():
            with suppress(OSError):  # not every one is there, and some are comments
                bind(Path("/dev/null"), (root / shell.lstrip("/")))
        call("umount2", root / "tmp", 0)
        mount("none", root, flags=stages.REMOUNT | stages.RDONLY)
        mount("tmpfs", root / "tmp", "tmpfs", stages.NOSUID | stages.NODEV | stages.NOEXEC, TMPFS)
        bind(bundle, root / "bundle", read_only=True)
        loopback_only()
        call("unshare", stages.NEWPID)

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """A program in the container, as its user, without any capability."""
        user, _, group = self.built.user.partition(":")
        drop = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
        return subprocess.Popen(
            ["setpriv", f"--reuid={user}", f"--regid={group}", *drop, "--", *command],
            env=self.built.env,
            preexec_fn=inside(self.built),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )

    def output(self) -> str:
        """The last of what was written."""
        self.log.seek(0)
        return self.log.read()[-4000:]


def ask(path: str, body: object = None) -> tuple[int, bytes]:
    """GET, or POST JSON to the server: status and answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:8000{path}", data, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def serve(container: Container, query: str) -> None:
    """Start the server, wait until it is healthy, search, try to write, stop it."""
    settings = container.built.settings
    command = [*(settings["ENTRYPOINT"].words or []), *(settings["CMD"].words or [])]
    check = settings["HEALTHCHECK"].words or []
    say("run", " ".join(command))
    began = time.monotonic()
    server = container.start(command)
    try:
        while not passes(container, check):
            if server.poll() is not None:
                raise RehearsalError(f"the server ended with {server.returncode}:\n{container.output()}")
            if time.monotonic() - began > START:
                raise RehearsalError(f"not healthy after {START:.0f} s:\n{container.output()}")
            time.sleep(0.1)
        say("healthy", f"after {time.monotonic() - began:.1f} s, by {' '.join(check)}")
        check_answers(container, query)
        status = Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8")
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        for name, expected in (("Uid", container.built.user.split(":")[0]), ("NoNewPrivs", "1"), ("NSpid", "1")):
            if facts[name].split()[-1] != expected:
                raise RehearsalError(f"{name} of the server is {facts[name]}, not {expected}")
        if int(facts["CapEff"], 16) or int(facts["CapBnd"], 16):
            raise RehearsalError(f"the server has capabilities: {facts['CapEff']}, {facts['CapBnd']}")
        tmp = container.built.root / "tmp"
        written = [path.relative_to(tmp) for path in tmp.rglob("*") if path.is_file()]
        say("process 1", f"user {facts['Uid'].split()[0]}, no capabilities, at most {facts['VmHWM'].strip()} of memory")
        say("in /tmp", ", ".join(map(str, written)) or "nothing was written")
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        if code := server.wait(STOP):
            raise RehearsalError(f"SIGTERM ended the server with {code}:\n{container.output()}")
        say("stopped", f"by SIGTERM with status 0 after {time.monotonic() - began:.1f} s")
    finally:
        server.kill()


def passes(container: Container, check: list[str]) -> bool:
    """Whether the health check says yes; when process 1 is gone, no other can start."""
    with suppress(OSError):
        return container.start(check).wait() == 0
    return False


def check_answers(container: Container, query: str) -> None:
    """A search has hits, the page is there, and neither client nor server can write anywhere but in /tmp."""
    status, answer = ask("/search", {"query": query, "k": 3})
    found = json.loads(answer)
    if status != 200 or not found["hits"]:
        raise RehearsalError(f"the search was answered with {status}, {found}")
    say("search", f"{query!r}: {', '.join(hit['id'] for hit in found['hits'])} in {found['took_ms']} ms")
    status, page = ask("/")
    if status != 200 or b"<!doctype html>" not in page:
        raise RehearsalError(f"the page was answered with {status}")
    status, answer = ask("/documents", {"documents": [{"id": "new", "text": "new"}]})
    if status < 400:
        raise RehearsalError(f"a document was added to a read-only bundle: {answer!r}")
    for place in ("new", "opt/two-towers/new", "bundle/new"):
        try:
            (container.built.root / place).touch()
        except OSError as error:
            if error.errno == errno.EROFS:
                continue
        raise RehearsalError(f"/{place} could be written")
    say("read-only", f"/, /opt/two-towers and /bundle; adding a document is answered with {status}")


def rehearse(scratch: Path, bundle: Path, given: dict[str, str], query: str) -> None:
    """All of it."""
    call("unshare", stages.NEWNS)
    mount("none", Path("/"), flags=stages.RECURSIVE | stages.PRIVATE)
    builder = Builder(scratch, given)
    built = None
    for stage in parse(HERE / "Dockerfile"):
        began = time.monotonic()
        say("stage", f"{stage.name} from {stage.base}")
        built = builder.stage(stage)
        say("built", f"{stage.name} in {time.monotonic() - began:.0f} s")
    if not built:
        raise RehearsalError("the last stage adds nothing")
    added = size(built.added)
    packages = next(built.root.glob("opt/two-towers/lib/python*/site-packages"))
    parts = sorted(((size(path), path.name) for path in packages.iterdir() if path.is_dir()), reverse=True)[:6]
    shown = ", ".join(f"{name} {count / 1e6:,.0f}" for count, name in parts)
    say("size", f"{added / 1e6:,.0f} MB over the base image; of these, in MB: {shown}")
    serve(Container(built, bundle, scratch / "log"), query)


def main(argv: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, help="what is served: a folder that `two-towers index` wrote")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="as of docker build")
    parser.add_argument("--query", default="singular values of a matrix", help="what is searched for")
    parser.add_argument("--scratch", type=Path, help="where the overlays are kept while it runs (several GB)")
    options = parser.parse_args(argv)
    if sys.platform != "linux" or os.geteuid() != 0:
        parser.error("this needs Linux, and root, to mount and to change the root of a process")
    if not options.bundle.is_dir():
        parser.error(f"{options.bundle} is no folder; write one with two-towers index")
    given = dict(pair.partition("=")[::2] for pair in options.build_arg)
    with tempfile.TemporaryDirectory(prefix="two-towers-", dir=options.scratch) as scratch:
        Path(scratch).chmod(0o755)
        # All mounts are made by a child in a world of its own and are gone with it: nothing that is removed at the end
        # can be a folder of this machine.
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        code = 1
        try:
            rehearse(Path(scratch), options.bundle.resolve(), given, options.query)
            code = 0
        except (RehearsalError, OSError) as error:
            say("failed", str(error))
        finally:
            os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
