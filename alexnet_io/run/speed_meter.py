"""Images per second since a run's last row."""

from __future__ import annotations

import time


class SpeedMeter:
    """Counts images from its first reading on: the first step of all, which may compile, only starts the clock."""

    def __init__(self) -> None:
        self.speed: float | None = None  # images per second, as last read
        self._since: float | None = None
        self._images = 0.0

    def restart(self) -> None:
        """Count from now on, if anything has been counted."""
        if self._since is not None:
            self._since, self._images = time.perf_counter(), 0.0

    def count(self, images: float) -> None:
        """Count images that are done, and read the speed."""
        now = time.perf_counter()
        if self._since is None:
            self._since = now
            return
        self._images += images
        self.speed = self._images / max(now - self._since, 1e-9)
