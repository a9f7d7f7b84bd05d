"""A change leaves the cores to searches, and only while it is written."""

import os
import threading

import pytest

from freemvmt.runtime.threads import behind_others

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux has this policy")


def policy() -> int:
    return os.sched_getscheduler(0)


def policy_of_a_new_thread() -> int:
    policies: list[int] = []
    thread = threading.Thread(target=lambda: policies.append(policy()))
    thread.start()
    thread.join()
    return policies[0]


def test_a_thread_stands_behind_others_in_the_block_and_so_do_those_that_it_starts() -> None:
    with behind_others():
        assert policy() == policy_of_a_new_thread() == os.SCHED_BATCH
    assert policy() == policy_of_a_new_thread() == os.SCHED_OTHER


def test_a_policy_that_the_user_chose_stays() -> None:
    def chosen() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        with behind_others():
            assert policy() == os.SCHED_IDLE
        policies.append(policy())

    policies: list[int] = []
    thread = threading.Thread(target=chosen)
    thread.start()
    thread.join()
    assert policies == [os.SCHED_IDLE]


def test_a_sandbox_that_forbids_it_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    with behind_others():
        assert policy() == os.SCHED_OTHER
