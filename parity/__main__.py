"""`python -m parity COMMAND`: prove the networks of JAX and PyTorch equal, or name what differs.

Exit codes: 0 equal, 1 mismatch, 2 could not run, 3 equal as far as it was exercised.
"""

import sys
from typing import NoReturn

from parity.settings import COMMANDS


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else 2
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        from alexnet_io.settings import nearest

        print(f"error: there is no command {command!r}{nearest(command, list(COMMANDS))}", file=sys.stderr)
        print("Try: python -m parity --help", file=sys.stderr)
        return 2
    from parity import commands

    return commands.run(command, rest)


def _usage() -> str:
    lines = ["usage: python -m parity COMMAND [--help] [settings]", "", (__doc__ or "").split("\n\n", 1)[0], ""]
    width = max(map(len, COMMANDS))
    lines += [f"  {name.ljust(width)}  {what}" for name, what in COMMANDS.items()]
    lines += ["", (__doc__ or "").rsplit("\n\n", 1)[-1].strip()]
    return "\n".join(lines)


def _exit() -> NoReturn:
    from alexnet_io.errors import UserError

    try:
        code = main()
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    _exit()
