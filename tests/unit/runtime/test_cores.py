"""How many cores count, and that nobody's number of threads is changed."""

import os
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from freemvmt.runtime import cores as module
from freemvmt.runtime.cores import bound, cores, limit_to_container
from freemvmt.runtime.threads import in_threads
from freemvmt.search.index.dense import VectorIndex


def groups(folder: Path, files: dict[str, str], mine: str) -> tuple[Path, Path]:
    """A tree of control groups, and what names those of this process."""
    for name, text in files.items():
        path = folder / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "mine").write_text(mine)
    return folder / "groups", folder / "mine"


@pytest.mark.parametrize(
    ("files", "mine", "granted"),
    [
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5),
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        ({"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "max 100000\n"}, "0::/a/b\n", 4.0),  # what is above counts
        ({"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "300000 100000\n"}, "0::/a/b\n", 1.0),
        ({"cpu.max": "100000 100000\n"}, "0::/gone/from/here\n", 1.0),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "3:cpu:/\n0::/\n", 2.0),
        (
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"},
            "7:memory:/x\n4:cpu,cpuacct:/x\n",
            0.5,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "3:cpu:/\n", None),
        ({"cpu.max": "nonsense\n"}, "0::/\n", None),
        ({}, "", None),
    ],
)
def test_what_a_container_grants(tmp_path: Path, files: dict[str, str], mine: str, granted: float | None) -> None:
    assert module._granted(*groups(tmp_path, files, mine)) == granted


@pytest.mark.parametrize(("grant", "left"), [(0.2, 1), (1.5, 2), (64.0, 4), (None, 4)])
def test_the_lesser_counts_and_never_none(monkeypatch: pytest.MonkeyPatch, grant: float | None, left: int) -> None:
    monkeypatch.setattr(module, "bound", lambda: 4)
    monkeypatch.setattr(module, "_granted", lambda: grant)
    assert cores() == left
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    limit_to_container()
    assert os.environ["OMP_NUM_THREADS"] == "3"  # who has set it has the last word
    monkeypatch.delenv("OMP_NUM_THREADS")
    limit_to_container()
    assert os.environ.get("OMP_NUM_THREADS") == (str(left) if left < 4 else None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to a core")
def test_a_process_that_is_bound_to_a_core_has_one() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from freemvmt.runtime.cores import bound, cores; print(bound(), cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 1\n"
    assert bound() >= 1


@pytest.fixture
def three_threads() -> object:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    yield
    faiss.omp_set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("queries", [1, 32])
def test_a_search_leaves_the_number_of_threads_and_takes_no_more(monkeypatch: pytest.MonkeyPatch, queries: int) -> None:
    vectors = np.eye(64, dtype=np.float32)
    index = VectorIndex.build("exact", "fp32", 64, [vectors])
    during: list[int] = []
    plain = VectorIndex._ranking

    def seen(self: VectorIndex, *arguments: object) -> object:
        during.append(faiss.omp_get_max_threads())
        return plain(self, *arguments)

    monkeypatch.setattr(VectorIndex, "_ranking", seen)
    assert index.search(vectors[:queries], 1).documents[:, 0].tolist() == list(range(queries))
    assert faiss.omp_get_max_threads() == 3
    assert during == [1 if queries == 1 else min(3, cores())]

    def fail(*_: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(VectorIndex, "_ranking", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        index.search(vectors[:queries], 1)
    assert faiss.omp_get_max_threads() == 3


def test_work_in_threads_leaves_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        done: list[int] = []
        in_threads(done.append, range(5))
        assert sorted(done) == list(range(5))
        with pytest.raises(TypeError):
            in_threads(len, range(5))  # type: ignore[arg-type]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
