"""The one exception that command lines turn into a message instead of a traceback."""

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """A mistake the user can mend: the message names the value, the valid choices and the next step."""


class FailedRun(UserError):
    """What went wrong on the way, after work had begun and something may have been written: exit code 1, not 2."""


@contextlib.contextmanager
def on_the_way() -> Iterator[None]:
    """Around what happens once work has begun: a UserError from there on is a FailedRun."""
    try:
        yield
    except FailedRun:
        raise
    except UserError as error:
        raise FailedRun(str(error)) from error
