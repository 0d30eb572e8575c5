"""The one exception that command lines turn into a message instead of a traceback."""


class UserError(ValueError):
    """A mistake the user can mend: the message names the value, the valid choices and the next step."""


class FailedRun(UserError):
    """What went wrong on the way, after work had begun and something may have been written: exit code 1, not 2."""
