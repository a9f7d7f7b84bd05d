"""Trainings that are cut off."""

from freemvmt.learning.checkpoint import Checkpoints
from freemvmt.learning.parts import Parts, Progress


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """What a power cut would be."""


class StoppedAt(Checkpoints):
    """Writes after step ``last`` and the one before it, which is as much as is kept, and stops for good."""

    last = 0

    def tick(self, parts: Parts, progress: Progress) -> None:
        if progress.step >= self.last - 1:
            self.write(parts, progress)
        if progress.step == self.last:
            raise Stopped
