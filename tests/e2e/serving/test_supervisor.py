"""Several processes behind one address: the real command, killed child by child."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from freemvmt.server.settings import METRICS_VARIABLE, TOKEN_VARIABLE


@contextmanager
def family(bundle: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """(parent, address) of `two-towers serve --workers 2`."""
    command = [sys.executable, "-W", "error", "-m", "freemvmt", "serve", str(bundle), "--port", "0", "--workers", "2"]
    environment = os.environ | {TOKEN_VARIABLE: "secret"}
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, *flags], stdout=pipe, stderr=pipe, text=True, env=environment) as parent:
        try:
            assert parent.stdout
            said = [parent.stdout.readline() for _ in range(3)]
            found = re.fullmatch(r"page +(http://127\.0\.0\.1:\d+)/\n", said[1])
            assert found, said
            yield parent, found[1]
        finally:
            for child in children(parent):
                os.kill(child, signal.SIGKILL)
            parent.kill()


def children(parent: subprocess.Popen[str]) -> list[int]:
    try:
        pids = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        return sorted(int(pid) for pid in pids if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes())
    except FileNotFoundError:  # it has ended
        return []


def until(true: object) -> None:
    """Wait until ``true()``; half a minute at most."""
    assert callable(true)
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_worker_takes_with_it_what_it_was_answering_and_nothing_else(bundle: Path) -> None:
    clients = 4
    with family(bundle, "--read-only", "--no-access-log") as (parent, address):
        until(lambda: len(children(parent)) == 2)
        failed: list[str] = []
        answered = [0] * clients
        over = threading.Event()

        def ask(number: int) -> None:
            while not over.is_set():
                try:
                    httpx.post(f"{address}/search", json={"query": "tower"}, timeout=30).raise_for_status()
                    answered[number] += 1
                except httpx.HTTPError as error:
                    failed.append(repr(error))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()

        def all_are_answered() -> None:
            before = list(answered)
            until(lambda: all(now > then for now, then in zip(answered, before, strict=True)))

        for _ in range(2):
            all_are_answered()
            first = children(parent)
            os.kill(first[0], signal.SIGKILL)
            until(lambda first=first: len(found := children(parent)) == 2 and found != first)
        all_are_answered()
        over.set()
        for thread in threads:
            thread.join()
        assert len(failed) <= 2 * clients, failed  # of each kill no more than were under way
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(30) == 0
        assert children(parent) == []
        assert parent.stderr
        assert parent.stderr.read() == ""


def test_the_token_reaches_the_workers_by_no_command_line(bundle: Path) -> None:
    with family(bundle, "--protect-reads") as (parent, address):
        assert httpx.get(f"{address}/info").status_code == 401
        assert httpx.get(f"{address}/info", headers={"Authorization": "Bearer secret"}).is_success
        shown = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (parent.pid, *children(parent))]
        assert not [words for words in shown if b"secret" in words]
        parent.send_signal(signal.SIGINT)
        assert parent.wait(30) == 0


def test_measures_are_those_of_all_workers_and_outlive_each(bundle: Path) -> None:
    with family(bundle, "--read-only", "--no-access-log") as (parent, address):

        def counted() -> float:
            text = httpx.get(f"{address}/metrics").text  # a connection each: any of the workers may answer
            return {
                sample.labels["status"]: sample.value
                for metric in text_string_to_metric_families(text)
                for sample in metric.samples
                if sample.name == "two_towers_requests_total" and sample.labels["route"] == "/documents/{id}"
            }.get("200", 0.0)

        until(lambda: len(children(parent)) == 2)
        for number in range(1, 21):
            assert httpx.get(f"{address}/documents/d1").is_success
            assert counted() == number
        environment = Path(f"/proc/{children(parent)[0]}/environ").read_bytes().split(b"\0")
        folder = Path(
            os.fsdecode(next(line for line in environment if METRICS_VARIABLE.encode() in line)).split("=")[1]
        )
        killed = []
        for _ in range(2):
            first = children(parent)
            killed.append(first[0])
            os.kill(first[0], signal.SIGKILL)
            until(lambda first=first: len(found := children(parent)) == 2 and found != first)
        assert list(folder.glob(f"gauge_live*_{killed[0]}.db"))
        assert httpx.get(f"{address}/documents/d1", timeout=60).is_success  # both may still be starting
        for _ in range(10):
            assert counted() == 21
        assert not [file for process in killed for file in folder.glob(f"gauge_live*_{process}.db")]
        text = httpx.get(f"{address}/metrics").text
        assert "two_towers_in_flight 1.0\n" in text
        assert "two_towers_documents 60.0\n" in text
        assert "# HELP two_towers_documents Documents that can be found." in text
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(30) == 0


def test_what_no_worker_can_start_with_ends_the_family(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "freemvmt", "serve", str(tmp_path / "none"), "--port", "0", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 2  # of each worker that was quick enough
    assert all(line.startswith("error: there is no ") for line in lines)
