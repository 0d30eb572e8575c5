"""What is known of each kind of layer: its classes exist, its weights come back, its layer is PyTorch's."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from parity.causes.layer.parameters import Case, explain
from parity.comparison import environments
from parity.kinds import parameter as parameters
from parity.kinds import registry, torch_leaves, weights
from parity.kinds.kind import Kind
from parity.kinds.layer import Layer, Recorded

ONE_FRAMEWORK = {"torch_leaves", "jax_leaves"}
SHAPES = {
    "conv": {"weight": (6, 2, 3, 5), "bias": (6,)},
    "dense": {"weight": (5, 24), "bias": (5,)},
    "local_conv": {"weight": (4, 3, 6, 2, 3, 5), "bias": (4, 3, 6)},
    "embedding": {"weight": (10, 4)},
    "batch_norm": {"weight": (4,), "bias": (4,), "running_mean": (4,), "running_var": (4,)},
    "layer_norm": {"weight": (4,), "bias": (4,)},
    "group_norm": {"weight": (4,), "bias": (4,)},
    "instance_norm": {"weight": (4,), "bias": (4,)},
    "rms_norm": {"weight": (4,)},
    "transposed_conv": {"weight": (2, 6, 3, 5), "bias": (6,)},
    "parameter": {"value": (1, 5, 4)},
    "lstm": {"weight_ih": (16, 3), "weight_hh": (16, 4), "bias": (16,)},
    "gru": {"weight_ih": (12, 3), "weight_hh": (12, 4), "bias": (12,), "bias_hn": (4,)},
    "simple_recurrence": {"weight_ih": (4, 3), "weight_hh": (4, 4), "bias": (4,)},
}
IN_FLAX = {
    "conv": ("Conv", {"kernel": (3, 5, 2, 6), "bias": (6,)}),
    "dense": ("Dense", {"kernel": (24, 5), "bias": (5,)}),
    "local_conv": ("Local", {"kernel": (4, 3, 3, 5, 2, 6), "bias": (4, 3, 6)}),
    "embedding": ("Embed", {"embedding": (10, 4)}),
    "batch_norm": ("BatchNorm", {"scale": (4,), "bias": (4,), "mean": (4,), "var": (4,)}),
    "layer_norm": ("LayerNorm", {"scale": (4,), "bias": (4,)}),
    "group_norm": ("GroupNorm", {"scale": (4,), "bias": (4,)}),
    "instance_norm": ("InstanceNorm", {"scale": (4,), "bias": (4,)}),
    "rms_norm": ("RMSNorm", {"scale": (4,)}),
    "transposed_conv": ("ConvTranspose", {"kernel": (3, 5, 2, 6), "bias": (6,)}),
    "lstm": ("LSTMCell", {"kernel_ih": (3, 16), "kernel_hh": (4, 16), "bias": (16,)}),
    "gru": ("GRUCell", {"kernel_ih": (3, 12), "kernel_hh": (4, 12), "bias": (12,), "bias_hn": (4,)}),
    "simple_recurrence": ("SimpleCell", {"kernel_ih": (3, 4), "kernel_hh": (4, 4), "bias": (4,)}),
}
WITH_WEIGHTS = [kind for kind in registry.KINDS if kind.weights]


def found_class(package: str, name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(f"{package}.{module}"), attribute)


def test_the_declared_classes_are_where_the_frameworks_have_them() -> None:
    """Under another name nothing would be recognised, and nobody would hear of it."""
    declared = [name for kind in registry.KINDS for name in kind.torch_classes]
    for name in [*declared, *(name for each in registry.REFUSED_IN_TORCH for name in each.classes)]:
        assert issubclass(found_class("torch.nn.modules", name), nn.Module), name
    for name in (name for each in registry.REFUSED_IN_FLAX for name in each.classes):
        assert isinstance(found_class("flax.linen", name), type), name


def test_every_kind_is_in_a_file_of_its_own_and_listed() -> None:
    folder = Path(registry.__file__).parent
    files = {file.stem for file in folder.glob("*.py") if "\nKIND = " in file.read_text(encoding="utf-8")}
    assert len(files) == len(registry.KINDS) == len({kind.name for kind in registry.KINDS})
    assert {f"parity.kinds.{name}" for name in files} == {
        name for name, module in sys.modules.items() if getattr(module, "KIND", None) in registry.KINDS
    }


def test_kinds_need_numpy_only(tmp_path: Path) -> None:
    """Each side may run where the other one's framework isn't."""
    folder = Path(registry.__file__).parent
    names = [file.stem for file in folder.glob("*.py") if file.stem not in {*ONE_FRAMEWORK, "__init__"}]
    hidden = "import sys; sys.modules |= dict.fromkeys(('torch', 'jax', 'jaxlib', 'flax'))\n"
    code = hidden + "\n".join(f"import parity.kinds.{name}" for name in names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("kind", WITH_WEIGHTS, ids=lambda kind: kind.name)
def test_weights_come_back_bit_for_bit(kind: Kind, rng: np.random.Generator) -> None:
    state = {name: rng.normal(size=shape) for name, shape in SHAPES[kind.name].items()}
    made = weights.weights_to_flax(kind.name, state)
    if kind is parameters.KIND:
        assert made == {"params": state}  # of no class of Flax's
        return
    class_name, shapes = IN_FLAX[kind.name]
    assert {name: array.shape for arrays in made.values() for name, array in arrays.items()} == shapes
    assert weights.flax_shapes(kind.name, SHAPES[kind.name]) == shapes
    assert registry.in_flax(class_name, shapes) is kind
    for name, array in state.items():
        back = weights.to_torch(kind.name, name, weights.to_flax(kind.name, name, array))
        np.testing.assert_array_equal(back, array)
        assert weights.torch_name(kind.name, weights.flax_name(kind.name, name)) == name


class Scaled(nn.ReLU):
    """A class of one's own with a parameter, of a kind that has none."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.Conv1d(2, 4, 3), "conv"),
        (nn.LazyLinear(3), "dense"),
        (nn.BatchNorm2d(3), "batch_norm"),
        (nn.LayerNorm(3, elementwise_affine=False), "layer_norm"),
        (nn.GroupNorm(2, 4), "group_norm"),
        (nn.InstanceNorm1d(4, affine=True), "instance_norm"),
        (nn.RMSNorm(4), "rms_norm"),
        (nn.ConvTranspose3d(2, 4, 3), "transposed_conv"),
        (nn.Embedding(3, 4), "embedding"),
        (nn.MaxPool2d(2), "plain"),
        (nn.ReLU(), "plain"),
        (nn.PReLU(), "other"),
        (Scaled(), "other"),
    ],
)
def test_pytorch_modules_are_recognised(module: nn.Module, kind: str) -> None:
    assert torch_leaves.kind_of(module) == kind
    assert torch_leaves.is_linear(module) == (kind in ("conv", "dense", "transposed_conv"))


def written_out(module: nn.Module, x: torch.Tensor, name: str | None = None) -> Layer | None:
    state = {key: value.numpy() for key, value in torch_leaves.state_of(module).items()}
    bases = [base.__name__ for base in type(module).__mro__]
    recorded = Recorded(name or registry.known_class(bases), torch_leaves.settings_of(module), x.numpy(), state)
    return registry.layer(recorded)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), groups=2),
        nn.Conv2d(4, 6, (4, 3), padding="same", bias=False),
        nn.Conv2d(4, 6, 3, stride=(2, 1), padding="valid"),
        nn.Linear(7, 5),
        nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
        nn.AvgPool2d((3, 2), 2, padding=1),
        nn.AdaptiveAvgPool2d((3, 5)),
        nn.LocalResponseNorm(4, alpha=0.3, beta=0.6, k=2.0),
        nn.LocalResponseNorm(3, alpha=0.3),
        nn.ReLU(),
        nn.Dropout(0.3).eval(),
        nn.BatchNorm2d(4, eps=0.1).eval(),
        nn.LayerNorm([8, 7], eps=0.1),
        nn.LayerNorm(7, bias=False),
        nn.RMSNorm(7, eps=0.1),
        nn.RMSNorm([8, 7]),
        nn.GroupNorm(2, 4, eps=0.1),
        nn.InstanceNorm2d(4, affine=True, eps=0.1),
        nn.ConvTranspose2d(4, 3, (3, 2), stride=(2, 3), padding=1, output_padding=(1, 0)),
    ],
    ids=str,
)
def test_layers_written_out_are_pytorchs(module: nn.Module) -> None:
    """Values and all gradients, against PyTorch's own in float64."""
    module = module.double()
    x = torch.randn(2, 4, 8, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (x[0, 0] if isinstance(module, nn.Linear) else x).requires_grad_()
    y = module(x)
    g = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y.backward(g)
    layer = written_out(module, x.detach())
    assert layer is not None
    np.testing.assert_allclose(layer.compute(), y.detach().numpy(), rtol=1e-12, atol=1e-12)
    gradient = layer.input_gradient(g.numpy())
    if not isinstance(module, nn.AdaptiveAvgPool2d):
        assert gradient is not None
        np.testing.assert_allclose(gradient, x.grad, rtol=1e-11, atol=1e-12)  # type: ignore[arg-type]
    for name, parameter in module.named_parameters():
        found = layer.weight_gradient(g.numpy(), name)
        assert found is not None
        np.testing.assert_allclose(found, parameter.grad, rtol=1e-11, atol=1e-12)  # type: ignore[arg-type]


def test_a_class_of_the_same_name_with_other_settings_is_not_written_out() -> None:
    x = np.ones((1, 2, 3, 3))
    assert registry.layer(Recorded("LocalResponseNorm", {"radius": 2, "alpha": 1.0}, x)) is None
    assert registry.layer(Recorded("MaxPool2d", {"window": 2}, x)) is None
    assert registry.layer(Recorded("AdaptiveAvgPool2d", {}, x)) is None
    assert registry.layer(Recorded("Linear", {}, x[0, 0], {"matrix": np.ones((3, 3))})) is None


def test_two_mistakes_of_a_mask_that_is_gone(rng: np.random.Generator) -> None:
    """Pairs of mistakes are tried; one may have taken away what the other one changes."""
    x = rng.normal(size=(2, 6))
    mask = rng.random(x.shape) < 0.5
    right = np.where(mask, x / 0.7, 0)
    assert explain(Case("Dropout", {"p": 0.3}, x, {}, {}, right, rng.normal(size=x.shape), mask=mask)) == []


def test_other_processes_find_this_package() -> None:
    assert (environments.ROOT / "parity" / "comparison" / "worker.py").is_file()
