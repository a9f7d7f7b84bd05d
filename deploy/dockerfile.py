"""A Dockerfile read into stages and instructions, as far as deploy/Dockerfile needs it: no heredocs."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction: ``RUN --mount=… command``."""

    name: str
    text: str  # what stands behind the name and the flags
    flags: tuple[str, ...] = ()

    @property
    def words(self) -> list[str] | None:
        """The exec form, a JSON list of strings; None for the shell form."""
        text = self.text.removeprefix("CMD ") if self.name == "HEALTHCHECK" else self.text
        try:
            words = json.loads(text)
        except ValueError:
            return None
        return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None

    def flag(self, name: str) -> list[str]:
        """The values of ``--name=…``, in order."""
        return [flag.partition("=")[2] for flag in self.flags if flag.startswith(f"--{name}=")]


@dataclass
class Stage:
    """What stands between one FROM and the next."""

    name: str
    base: str  # an image, or the name of an earlier stage
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """The instructions of that name, in order."""
        return [instruction for instruction in self.instructions if instruction.name == name]


def parse(path: Path) -> list[Stage]:
    """The stages of a Dockerfile. Raises ``ValueError`` for what is not understood."""
    stages: list[Stage] = []
    for name, rest in _instructions(path.read_text(encoding="utf-8")):
        flags, text = _split_flags(rest)
        if "<<" in text and name in ("RUN", "COPY"):
            raise ValueError(f"{path}: heredocs are not understood: {text}")
        if name == "FROM":
            words = text.split()
            stages.append(Stage(words[2] if len(words) == 3 else str(len(stages)), words[0]))
        elif not stages:
            raise ValueError(f"{path}: {name} stands before the first FROM")
        else:
            stages[-1].instructions.append(Instruction(name, text, flags))
    return stages


def pairs(text: str) -> dict[str, str]:
    """``A=b C="d e"`` of an ENV or a LABEL as a dict."""
    found = re.findall(r'([\w.]+)=("[^"]*"|\S+)', text)
    return {name: value.strip('"') for name, value in found}


def expand(text: str, variables: dict[str, str]) -> str:
    """``text`` with ``$NAME`` and ``${NAME}`` replaced; one that is not set becomes nothing."""
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda found: variables.get(found[1] or found[2], ""), text)


def _instructions(text: str) -> list[tuple[str, str]]:
    """Names and arguments, comments gone, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [(name.upper(), rest.strip()) for name, _, rest in found]


def _split_flags(text: str) -> tuple[tuple[str, ...], str]:
    flags = []
    while found := re.match(r"(--[a-z-]+=\S+)\s*", text):
        flags.append(found[1])
        text = text[found.end() :]
    return tuple(flags), text
