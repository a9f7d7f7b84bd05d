"""How many trials a sweep trains at a time, where the user does not say."""

from freemvmt.config import TrainConfig
from freemvmt.runtime import memory
from freemvmt.runtime.cores import cores
from freemvmt.runtime.devices import pick_device

AT_A_TIME = 2
START = 0.5  # seconds that a worker takes beside what this process took to import its libraries and to read the data
_WORTH = 8  # two processes save a quarter of the time that is left, twice what their start then costs
_ROOM = 1.5  # other settings take more memory than those so far


def jobs_for(config: TrainConfig, left: int, trial_seconds: float | None, read_seconds: float) -> int:
    """Two, if the ``left`` trials take long enough and two more processes like this one fit; else one.

    ``trial_seconds`` is the mean of the trials so far, None before the first; ``read_seconds`` is what reading the data
    took, the import of PyTorch with it. A GPU trains one trial at a time: how much memory of it a trial takes is not
    known.
    """
    if trial_seconds is None or left < AT_A_TIME or left * trial_seconds < _WORTH * (START + read_seconds):
        return 1
    available, peak = memory.available(), memory.peak()
    fits = available is not None and peak is not None and AT_A_TIME * _ROOM * peak <= available
    return AT_A_TIME if fits and cores() >= AT_A_TIME and pick_device(config.device).type == "cpu" else 1
