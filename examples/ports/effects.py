"""`python -m examples.ports.effects [NAME ...]`: how much the differences that were found change a model of full size.

Each changes the original as the port differs from it, and nothing else: no port is needed. Weights are drawn at random,
as the library draws them (norms and statistics anew), since none can be downloaded everywhere; inputs are N(0, 1).
Printed are the largest difference of the logits or hidden states, their standard deviation, and how many of the first
places changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet_io.command_line.settings import one_of, run_command
from examples.ports.port import imported

Run = Callable[[], Tensor]


def vit() -> tuple[Run, Run]:
    """GELU by tanh, in ViT-B/16."""
    transformers = imported("transformers")
    models = [
        transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000, hidden_act=act)).eval()
        for act in ("gelu", "gelu_pytorch_tanh")
    ]
    models[1].load_state_dict(models[0].state_dict())
    return _of(models, images(8))


def convnext() -> tuple[Run, Run]:
    """Epsilon 1e-12 for 1e-6, in ConvNeXt-T."""
    transformers = imported("transformers")
    config = transformers.ConvNextConfig(num_labels=1000, layer_scale_init_value=0.1)
    models = [transformers.ConvNextForImageClassification(config).eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for module in models[1].modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-12
    return _of(models, images(8))


def densenet121() -> tuple[Run, Run]:
    """No ReLU behind the first norm, in DenseNet-121."""
    torchvision = imported("torchvision")
    models: list[Any] = [drawn(torchvision.models.densenet121()).eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    models[1].features.relu0 = nn.Identity()
    return _of(models, images(8))


def vgg19() -> tuple[Run, Run]:
    """The head's first convolution padded, and neither of its ReLUs, in VGG-19."""
    timm = imported("timm")
    models = [timm.create_model("vgg19", pretrained=False).eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    models[1].pre_logits.fc1.padding = 3
    models[1].pre_logits.act1 = models[1].pre_logits.act2 = nn.Identity()
    return _of(models, images(4))


def efficientnet_b5() -> tuple[Run, Run]:
    """Epsilon 1e-5 for 1e-3 in the last norm, in EfficientNet B5."""
    timm = imported("timm")
    models: list[Any] = [drawn(timm.create_model("tf_efficientnet_b5", pretrained=False)).eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    models[1].bn2.eps = 1e-5
    return _of(models, images(4))


def dinov3() -> tuple[Run, Run]:
    """Queries, keys and rotations rounded to bfloat16, in DINOv3 ViT-S/16."""
    transformers = imported("transformers")
    module = imported("transformers.models.dinov3_vit.modeling_dinov3_vit")
    model, x = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig()).eval(), images(8)
    original = module.apply_rotary_pos_emb

    def rounded(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
        q, k = original(*(t.bfloat16() for t in (q, k, cos, sin)), **more)
        return q.float(), k.float()

    def run() -> Tensor:
        return model(x).last_hidden_state

    def wrong() -> Tensor:
        with mock.patch.object(module, "apply_rotary_pos_emb", rounded):
            return run()

    return run, wrong


def whisper() -> tuple[Run, Run]:
    """GELU by tanh behind the encoder's convolutions, in Whisper tiny."""
    transformers = imported("transformers")
    model = transformers.WhisperModel(transformers.WhisperConfig()).eval()
    sounds = torch.randn((2, 80, 3000), generator=torch.Generator().manual_seed(0))
    gelu = F.gelu

    def run() -> Tensor:
        return model.encoder(sounds).last_hidden_state

    def wrong() -> Tensor:
        # Its layers hold the function itself; only the convolutions' code looks it up.
        with mock.patch.object(F, "gelu", lambda x: gelu(x, approximate="tanh")):
            return run()

    return run, wrong


EFFECTS = {each.__name__: each for each in (vit, convnext, densenet121, vgg19, efficientnet_b5, dinov3, whisper)}


def images(count: int) -> Tensor:
    """(count, 3, 224, 224)."""
    return torch.randn((count, 3, 224, 224), generator=torch.Generator().manual_seed(0))


def drawn(model: nn.Module) -> nn.Module:
    """With norms and statistics of a network that was trained for a while: none of them 0 or 1 throughout."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                state = module.state_dict()
                for name in ("bias", "running_mean"):
                    state[name].copy_(0.2 * torch.randn(state[name].shape, generator=generator))
                for name in ("weight", "running_var"):
                    state[name].copy_(0.5 + torch.rand(state[name].shape, generator=generator))
    return model


def _of(models: list[Any], x: Tensor) -> tuple[Run, Run]:
    def run(model: Any) -> Tensor:
        result = model(x)
        return getattr(result, "logits", result)

    return lambda: run(models[0]), lambda: run(models[1])


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each."""
    names = sys.argv[1:] if arguments is None else arguments
    for name in names:
        one_of("NAME", name, tuple(EFFECTS))
    print("| model | what is changed | largest difference | standard deviation | first places changed |")
    print("| --- | --- | --- | --- | --- |")
    for name in names or EFFECTS:
        torch.manual_seed(0)
        with torch.no_grad():
            right, wrong = (run() for run in EFFECTS[name]())
        changed = (right.argmax(-1) != wrong.argmax(-1)).sum().item()
        cells = [
            name,
            (EFFECTS[name].__doc__ or "").strip("."),
            f"{(right - wrong).abs().max():.2g}",
            f"{right.std():.2g}",
            f"{changed} of {right[..., 0].numel()}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
