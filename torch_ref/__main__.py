"""`python -m torch_ref`: the commands of this package."""

from alexnet_io.command_line import command_list
from alexnet_io.command_line.settings import run_command

COMMANDS = {
    "train": "train the reference, alone or under torchrun; a run's directory is left (needs PyTorch)",
    "evaluate": "how well a run of the reference, or a file of weights, does on a data set (needs PyTorch)",
    "export": "a trained network as one file: ONNX, .pt2, or weights (needs PyTorch)",
    "report": "all that is to be seen of a run of the reference, as one HTML page (needs PyTorch)",
}


def main() -> int:
    """List the commands or run one; returns the exit code."""
    return command_list.run("torch_ref", "The PyTorch reference of AlexNet and its relatives.", COMMANDS)


def console() -> None:
    """The installed command."""
    run_command(main)


if __name__ == "__main__":
    console()
