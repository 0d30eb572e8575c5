"""Networks with layers taken out or replaced, to see what the layers do: `--ablate`."""

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from alexnet_io.command_line.ablations import ablations, refuse_nothing_to_change
from torch_ref.layers import ClippedAvgPool2d
from torch_ref.lrn import LocalResponseNorm, SpatialResponseNorm
from torch_ref.network import CHANNELS, Network


def ablate(network: Network, words: str | None, model: str) -> None:
    """Change a network that has no weights worth keeping yet; its layers keep their names.

    Args:
        network: fresh from its class.
        words: see `--ablate`.
        model: its name, for errors.

    Raises:
        UserError: words that there aren't, or a network without what they are about.
    """
    for word in ablations(words):
        change, lacking = _CHANGES[word]
        refuse_nothing_to_change(word, model, change(network), lacking)


def _tanh(network: Network) -> bool:
    return _replace(network, lambda layer: nn.Tanh() if isinstance(layer, nn.ReLU) else None)


def _without_norms(network: Network) -> bool:
    norms = LocalResponseNorm | SpatialResponseNorm
    return _replace(network, lambda layer: nn.Identity() if isinstance(layer, norms) else None)


def _without_overlap(network: Network) -> bool:
    """Paper, section 3.4: s = 2, z = 2, "which produces output of equivalent dimensions" and so isn't rounded up."""

    def other(layer: nn.Module) -> nn.Module | None:
        match layer:
            case nn.MaxPool2d(kernel_size=3, stride=2):
                return nn.MaxPool2d(2, 2)
            case ClippedAvgPool2d(kernel_size=3, stride=2):
                return nn.AvgPool2d(2, 2)
        return None

    return _replace(network, other)


def _one_column(network: Network) -> bool:
    """Paper, section 3.2, and ``layers-145-half.cfg``: one GPU's share of all kernels but the last convolution's."""
    layers = _convolutions(network)
    kernels = [layer.out_channels for layer in layers.values()]
    _reshape(network, layers, [*(count // 2 for count in kernels[:-1]), kernels[-1]], [1] * len(layers))
    _norm_within(network, 1)
    return True


def _two_columns(network: Network) -> bool:
    """Paper, figure 2: the third convolution alone sees the other column."""
    layers = _convolutions(network)
    if any(layer.groups == 2 for layer in layers.values()):
        return False
    groups = [1 if place in (0, 2) else 2 for place in range(len(layers))]
    _reshape(network, layers, [layer.out_channels for layer in layers.values()], groups)
    _norm_within(network, 2)
    return True


def _replace(network: Network, other: Callable[[nn.Module], nn.Module | None]) -> bool:
    """Put layers in others' places; whether there were any."""
    found = [(name, new) for name, layer in network.named_children() if (new := other(layer)) is not None]
    for name, new in found:
        setattr(network, name, new)
    return bool(found)


def _convolutions(network: Network) -> dict[str, nn.Conv2d]:
    return {name: layer for name, layer in network.named_children() if isinstance(layer, nn.Conv2d)}


def _reshape(network: Network, layers: Mapping[str, nn.Conv2d], kernels: Sequence[int], groups: Sequence[int]) -> None:
    """Convolutions of the same kinds with other numbers of kernels and groups, each fed by the one before."""
    inputs = CHANNELS
    for (name, old), count, parts in zip(layers.items(), kernels, groups, strict=True):
        (height, width), (down, along), (above, beside) = old.kernel_size, old.stride, map(int, old.padding)
        new = type(old)(inputs, count, (height, width), stride=(down, along), padding=(above, beside), groups=parts)
        setattr(network, name, new)
        inputs = count


def _norm_within(network: Network, columns: int) -> None:
    for layer in network.children():
        if isinstance(layer, LocalResponseNorm):
            layer.columns = columns


_CHANGES: dict[str, tuple[Callable[[Network], bool], str]] = {
    "tanh": (_tanh, "no ReLUs"),
    "no-lrn": (_without_norms, "no response normalisation"),
    "no-overlap": (_without_overlap, "no pools that overlap"),
    "one-column": (_one_column, "no convolutions"),
    "two-columns": (_two_columns, "two columns already"),
}
