"""`python -m jax_alexnet`: the commands of this package."""

from alexnet_io.command_line import command_list
from alexnet_io.command_line.settings import run_command

COMMANDS = {
    "train": "train a network; a run's directory is left",
    "evaluate": "how well a run or an export does on a data set",
    "report": "all that is to be seen of a run, as one HTML page",
    "curves": "losses and accuracies of several runs, of either program, in one picture",
    "predict": "the likeliest classes of pictures",
    "features": "what a layer puts out for pictures, as a NumPy file",
    "export": "a trained network as one file: ONNX, StableHLO, weights, or a folder for a model hub",
    "weights": "the trained weights that come with the project, and where they are from",
    "pack": "a run's weights with their card, as they come with the project",
    "reproduce": "the paper's experiments repeated, the published figures beside ours",
    "summary": "a network's layers, parameters and multiply-accumulates",
    "cache": "the decoded images that earlier runs left, listed or removed",
    "launch": "train in several processes on this machine",
    "plan": "what a step costs on GPUs that needn't be there (needs XLA's GPU compiler: make gpu-compiler)",
    "gpu_program": "the step compiled for such GPUs, by layer (needs the same)",
}


def main() -> int:
    """List the commands or run one; returns the exit code."""
    return command_list.run("jax_alexnet", "AlexNet and its relatives in JAX.", COMMANDS)


def console() -> None:
    """The installed command."""
    run_command(main)


if __name__ == "__main__":
    console()
