"""Environment variables that turn something off in every program."""

import os

from alexnet_io.errors import UserError


def switched_off(name: str) -> bool:
    """Whether the variable says off; without a value it says on.

    Raises:
        UserError: it says neither on nor off.
    """
    match os.environ.get(name, "").lower():
        case "" | "on" | "1":
            return False
        case "off" | "0":
            return True
    raise UserError(f"{name}={os.environ[name]} is neither on nor off: set it to one of them, or leave it out")
