"""bonsai's VAE of Stable Diffusion beside diffusers'."""

from __future__ import annotations

from typing import Any

from flax import nnx

from examples.ports.port import BONSAI, Output, Pair, Port, imported, normal, randomised


def build(theirs: Any) -> Pair:
    """Two levels, 8 and 16 channels."""
    diffusers = imported("diffusers")
    reference = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=4,
    )
    port = theirs.VAE(theirs.ModelConfig((8, 16), 4, 4), rngs=nnx.Rngs(0))
    return Pair(port, randomised(Output(reference, "sample")), (normal(1, 3, 16, 16),))


PORT = Port(
    "vae",
    BONSAI,
    "bonsai.models.vae.modeling",
    "diffusers, AutoencoderKL",
    "diffusers",
    "atol 5e-3 to 8e-3",
    build,
)
