"""A signal that comes at a given step, for tests of stopping and resuming inside one process."""

import signal


class StoppedOnce:
    """Put in place of `Signals`: SIGTERM comes in the first run, after its step number `step`; later runs see none."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self, *_: object) -> "StoppedOnce":
        return self

    def __enter__(self) -> "StoppedOnce":
        return self

    def __exit__(self, *_: object) -> None:
        self.left = 2**31

    @property
    def received(self) -> int:
        """Read once after each step."""
        self.left -= 1
        return int(signal.SIGTERM) if self.left <= 0 else 0
