"""The stages of a Dockerfile replayed on overlays over this machine's root file system; for rehearse.py."""

import ctypes
import fnmatch
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dockerfile import Instruction, Stage, expand, pairs

ROOT = Path(__file__).resolve().parent.parent
# What a build sees of the machine's settings, as an engine lets through the ones for proxies.
THROUGH = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
REGISTRY = ("PIP_", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_FIND_LINKS", "SSL_CERT_")

NEWNS, NEWPID, NEWNET = 0x00020000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass
class Built:
    """A stage after its last instruction."""

    root: Path  # where it is mounted
    added: Path  # what its instructions wrote
    env: dict[str, str]
    workdir: str = "/"
    user: str = "0:0"
    settings: dict[str, Instruction] = field(default_factory=dict)  # HEALTHCHECK, ENTRYPOINT, CMD, …


class RehearsalError(Exception):
    """A step did not do what it should."""


def say(what: str, text: str = "") -> None:
    """One line of the report."""
    sys.stdout.write(f"{what:<13} {text}\n")
    sys.stdout.flush()


def call(name: str, *arguments: object) -> None:
    """A function of libc that answers 0, or ``OSError``."""
    encoded = [os.fsencode(value) if isinstance(value, (str, Path)) else value for value in arguments]
    if getattr(_LIBC, name)(*encoded):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


def mount(source: str | Path, target: Path, kind: str = "none", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    call("mount", source, target, kind, ctypes.c_ulong(flags), data)


def bind(source: Path, target: Path, read_only: bool = False) -> None:
    """Let ``target`` show ``source``."""
    mount(source, target, flags=BIND)
    if read_only:
        mount("none", target, flags=BIND | REMOUNT | RDONLY | NOSUID | NODEV)


class Builder:
    """Replays the stages of a Dockerfile under a folder for scratch."""

    def __init__(self, scratch: Path, given: dict[str, str]) -> None:
        self.scratch = scratch
        self.given = given
        self.built: dict[str, Built] = {}
        self.images: dict[str, str] = {}  # by the names of the stages that add nothing
        self.context = scratch / "context"
        copy_context(ROOT, self.context)

    def stage(self, stage: Stage) -> Built | None:
        """Replay one stage; one without an instruction is another name for its image."""
        image = self.images.get(stage.base, stage.base)
        if not stage.instructions:
            self.images[stage.name] = image
            return None
        built = self.built[stage.name] = self._begin(stage.name, image)
        arguments: dict[str, str] = {}
        for instruction in stage.instructions:
            say(f"  {instruction.name}", instruction.text[:140])
            self._replay(instruction, built, arguments)
        return built

    def _begin(self, name: str, image: str) -> Built:
        """This machine in the place of an image of Python: its interpreter ahead of all others, and for everyone."""
        mine = f"python:{sys.version_info.major}.{sys.version_info.minor}-"
        if not image.startswith(mine):
            raise RehearsalError(f"{name} is built on {image}, and this is {mine}…: run this with the same Python")
        upper, work, root = folders = [self.scratch / name / part for part in ("upper", "work", "root")]
        for folder in folders:
            folder.mkdir(parents=True)
            folder.chmod(0o755)
        mount("overlay", root, "overlay", data=f"lowerdir=/,upperdir={upper},workdir={work}")
        for system in ("proc", "dev", "sys"):
            mount(f"/{system}", root / system, flags=BIND | RECURSIVE)
        mount("tmpfs", root / "tmp", "tmpfs", data="mode=1777")
        with suppress(OSError):  # what is not copied must not be found
            bind(Path(tempfile.mkdtemp(dir=self.scratch)), root / ROOT.relative_to("/"))
        interpreter = Path(sys.executable).resolve()
        for folder in interpreter.parents:
            inside = root / folder.relative_to("/")
            inside.chmod(inside.stat().st_mode | 0o011)
        python = root / interpreter.with_name("python").relative_to("/")
        if not os.path.lexists(python):
            python.symlink_to(interpreter.name)
        path = f"{interpreter.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return Built(root, upper, {"PATH": path})

    def _replay(self, instruction: Instruction, built: Built, arguments: dict[str, str]) -> None:
        variables = arguments | built.env
        match instruction.name:
            case "ARG":
                name, _, default = instruction.text.partition("=")
                arguments[name] = self.given.get(name, default)
            case "ENV":
                built.env |= {name: expand(value, variables) for name, value in pairs(instruction.text).items()}
            case "WORKDIR":
                built.workdir = instruction.text
                (built.root / instruction.text.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "COPY":
                source = instruction.flag("from")
                self._copy(self.built[source[0]].root if source else self.context, instruction.text.split(), built)
            case "RUN":
                self._run(instruction, built, variables)
            case "USER":
                built.user = instruction.text
            case "LABEL" | "EXPOSE" | "STOPSIGNAL" | "HEALTHCHECK" | "ENTRYPOINT" | "CMD":
                built.settings[instruction.name] = instruction
            case _:
                raise RehearsalError(f"{instruction.name} cannot be rehearsed")

    def _copy(self, source: Path, words: list[str], built: Built) -> None:
        *names, target = words
        into = built.root / os.path.join(built.workdir, target).lstrip("/")  # noqa: PTH118  keeps the slash at the end
        for name in names:
            path = source / name.lstrip("/")
            if path.is_dir():
                shutil.copytree(path, into, symlinks=True, dirs_exist_ok=True)
            else:
                folder = target.endswith("/") or len(names) > 1
                (into if folder else into.parent).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, into / path.name if folder else into)

    def _run(self, instruction: Instruction, built: Built, variables: dict[str, str]) -> None:
        caches = [dict(part.partition("=")[::2] for part in flag.split(",")) for flag in instruction.flag("mount")]
        targets = []
        for cache in caches:
            if cache.get("type") != "cache":
                raise RehearsalError(f"only caches are mounted in a rehearsal, not {cache}")
            target = built.root / cache["target"].lstrip("/")
            target.mkdir(parents=True, exist_ok=True)
            here = Path(cache["target"])  # the cache of this machine, so that nothing is fetched twice
            here.mkdir(parents=True, exist_ok=True)
            bind(here, target)
            targets.append(target)
        through = {key: value for key, value in os.environ.items() if key in THROUGH or key.startswith(REGISTRY)}
        command = instruction.words or ["/bin/sh", "-c", instruction.text]
        done = subprocess.run(
            command,
            env={"HOME": "/root", **through, **variables},
            preexec_fn=inside(built),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            check=False,
        )
        for target in targets:
            call("umount2", target, 0)
        if done.returncode:
            raise RehearsalError(f"RUN ended with {done.returncode}: {instruction.text}")


def inside(built: Built) -> Callable[[], None]:
    """What a child does before its program starts: it goes into the stage."""

    def enter() -> None:
        os.chroot(built.root)
        os.chdir(built.workdir)

    return enter


def ignored(path: str, rules: list[str]) -> bool:
    """Whether .dockerignore leaves ``path`` out: the last rule that fits it or a folder above it decides."""
    out = False
    parts = path.split("/")
    above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    for rule in rules:
        pattern = rule.lstrip("!").strip("/")
        anywhere = pattern.removeprefix("**/")
        fits = any(fnmatch.fnmatchcase(name, pattern) for name in above)
        if anywhere != pattern:
            fits = any(fnmatch.fnmatchcase(part, anywhere) for part in parts)
        if fits:
            out = not rule.startswith("!")
    return out


def copy_context(root: Path, target: Path) -> None:
    """What the builder would be sent: the files that .dockerignore lets through."""
    lines = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in (".git", ".venv")]  # many files, all of them left out
        for name in files:
            path = Path(folder, name).relative_to(root)
            if not ignored(path.as_posix(), rules):
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / path, target / path)


def size(folder: Path) -> int:
    """Bytes on disk, each file once."""
    seen = {(stat.st_dev, stat.st_ino): stat.st_blocks * 512 for path in folder.rglob("*") for stat in [path.lstat()]}
    return sum(seen.values())
