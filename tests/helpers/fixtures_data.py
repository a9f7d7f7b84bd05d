import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the package logs, also after a console of an earlier test has taken its logger for itself."""
    logger = logging.getLogger("freemvmt")
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [caplog.handler], False
    logger.setLevel(logging.INFO)
    yield caplog
    logger.handlers, level, logger.propagate = before
    logger.setLevel(level)
