"""How memory is used, seen from outside; and the numbers of matrix products."""

import os
import re
import subprocess
import sys
import threading

import pytest
import torch

from freemvmt.runtime.devices import matrix_dtype
from freemvmt.runtime.threads import side_by_side

HEAPS = """
import ctypes, sys, threading
from freemvmt.runtime.devices import share_freed_memory
if sys.argv[1] == "shared":
    share_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
gate = threading.Barrier(8)

def take():
    gate.wait()
    libc.malloc(1000)
    gate.wait()

threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""


def test_threads_share_what_they_free() -> None:
    heaps = {}
    for how in ("shared", "apart"):
        done = subprocess.run([sys.executable, "-c", HEAPS, how], capture_output=True, text=True, check=True)
        heaps[how] = len(re.findall(r"<heap nr=", done.stdout))
    assert heaps["shared"] <= 2 < heaps["apart"]


def test_two_are_done_at_once_and_what_goes_wrong_in_either_comes_out() -> None:
    gate = threading.Barrier(2, timeout=20)  # neither gets past it alone
    assert side_by_side(lambda: (gate.wait(), "one")[1], lambda: (gate.wait(), "other")[1]) == ("one", "other")

    def fail() -> str:
        raise KeyError("here")

    for pair in ((fail, str), (str, fail)):
        with pytest.raises(KeyError, match="here"):
            side_by_side(*pair)


def test_a_forked_process_has_threads_of_its_own() -> None:
    code = (
        "import os\n"
        "from freemvmt.runtime.threads import side_by_side\n"
        "assert side_by_side(lambda: 1, lambda: 2) == (1, 2)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(0 if side_by_side(lambda: 3, lambda: 4) == (3, 4) else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, torch.float32),
        ({"amx_bf16": False, "avx512_bf16": True, "cpu_name": "AMD EPYC 9R14"}, torch.bfloat16),
        ({"avx512_bf16": False, "cpu_name": "AMD EPYC 7R13"}, torch.float32),
        ({"architecture": "aarch64"}, torch.float32),
    ],
)
def test_products_are_in_bf16_where_the_processor_is_faster_in_it(
    processor: dict[str, object], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    assert matrix_dtype("auto", torch.device("cpu")) == expected
    assert matrix_dtype("bf16", torch.device("cpu")) == torch.bfloat16
    assert matrix_dtype("fp32", torch.device("cpu")) == torch.float32


@pytest.mark.parametrize(("before", "expected"), [(None, "system"), ("mimalloc", "mimalloc")])
def test_a_command_lets_arrow_allocate_by_malloc_unless_the_user_chose(before: str | None, expected: str) -> None:
    code = (
        "from freemvmt.runtime.exit_codes import run\n"
        "def pool():\n"
        "    import pyarrow\n"
        "    print(pyarrow.default_memory_pool().backend_name)\n"
        "run(pool)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    environment |= {"ARROW_DEFAULT_MEMORY_POOL": before} if before else {}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == f"{expected}\n"
