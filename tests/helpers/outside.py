"""What some tests need that is not everywhere: a Milvus server, Ray, strace. Said loudly where it is not.

A pytest plugin. `scripts/milvus` names a server in TWO_TOWERS_MILVUS (host:port); `scripts/alone` says by
TWO_TOWERS_ALONE that Ray, which listens on every interface, may be started. With TWO_TOWERS_REQUIRE_MILVUS,
TWO_TOWERS_REQUIRE_RAY and TWO_TOWERS_REQUIRE_STRACE set, their absence is a failure instead of a skip.
"""

import os
from importlib.util import find_spec

import power_record
import pytest

NOT_RUN = "did not run, for want of"
MILVUS = "`scripts/milvus uv run --offline pytest tests/e2e/stores/test_stores.py`"
INTEGRATIONS = "`scripts/integrations`"
NO_INTEGRATIONS = f"the test {NOT_RUN} other libraries: run it by {INTEGRATIONS}"
STRACE = "`pytest -k power` where strace is installed and may trace"
RAY = "`scripts/alone uv run --offline --extra ray pytest tests/e2e/distributed/test_ray.py`"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end of a run what was not there: a skip alone is easily overlooked."""
    skipped = [str(report.longrepr) for report in terminalreporter.getreports("skipped")]
    for what in (MILVUS, RAY, STRACE, INTEGRATIONS):
        if count := sum(NOT_RUN in reason and what in reason for reason in skipped):
            terminalreporter.section(f"tests that DID NOT RUN: {count}", sep="!", red=True, bold=True)
            terminalreporter.line(f"run them by {what}", red=True)


def _missing(name: str, what: str, command: str) -> None:
    reason = f"the test {NOT_RUN} {what}: run it by {command}"
    if os.environ.get(f"TWO_TOWERS_REQUIRE_{name}"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def milvus_server() -> str:
    """host:port."""
    named = os.environ.get("TWO_TOWERS_MILVUS", "")
    if not named:
        _missing("MILVUS", "a Milvus server", MILVUS)
    return named


@pytest.fixture(scope="session")
def ray_may_start() -> None:
    """Ray is there, and nobody but this machine reaches what it opens."""
    if find_spec("ray") is None or not os.environ.get("TWO_TOWERS_ALONE"):
        _missing("RAY", "Ray in a network of its own", RAY)


@pytest.fixture(scope="session")
def strace() -> None:
    """Processes can be recorded."""
    if power_record.strace() is None:
        _missing("STRACE", "strace", STRACE)
