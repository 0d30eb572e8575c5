"""What is closed where a `with` ends, however it ends."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from types import TracebackType


class Closing(contextlib.AbstractContextManager):
    """Something that `close` ends; entering it gives itself."""

    @abstractmethod
    def close(self) -> None:
        """End it; more than once does no harm."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
