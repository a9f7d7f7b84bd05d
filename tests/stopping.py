"""Trainings that are cut off."""

from freemvmt.learning.checkpoint import Checkpoints
from freemvmt.learning.parts import Parts, Progress


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """What a power cut would be."""


class StoppedAt(Checkpoints):
    """Writes after every step and stops for good after step ``last``."""

    last = 0

    def tick(self, parts: Parts, progress: Progress) -> None:
        self.write(parts, progress)
        if progress.step == self.last:
            raise Stopped
