"""`python -m jax_alexnet.gpu_program`: the training step as XLA compiles it for GPUs that needn't be there.

The step is the one that training runs (`steps.make_train_step`), lowered for described GPUs. What its program moves,
sends and keeps is read from the program; times are modelled from that and never measured. Without a GPU nothing is
tuned: the algorithms that cuDNN and Triton choose on a real one may differ, the arrays between them don't.

Imports JAX when the settings are known to be right.
"""

from alexnet_io.command_line import output_file
from alexnet_io.command_line.settings import parse, run_command
from jax_alexnet.compiled import gpu_compiler, gpu_text
from jax_alexnet.compiled.gpu_settings import GpuSettings

PROGRAM = "python -m jax_alexnet.gpu_program"


def main() -> int:
    """Compile, print and return the exit code."""
    settings = parse(GpuSettings, PROGRAM)
    gpu_compiler.find()
    from jax_alexnet.compiled.gpu_step import compile_step  # --help and a missing compiler don't wait for JAX

    with output_file.others_on_standard_error(settings.json):
        program = compile_step(settings)
        print(gpu_text.report(program))
        if settings.json:
            output_file.write_json("--json", settings.json, gpu_text.as_json(program), indent=1)
    return 0


if __name__ == "__main__":
    run_command(main)
