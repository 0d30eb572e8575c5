"""The list of the kinds of layers that the harness knows, and the questions that are asked of it.

A new kind is a file of its own beside this one, and a line here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from parity.kinds import (
    activation,
    batch_norm,
    convolution,
    dense,
    dropout,
    embedding,
    group_norm,
    gru,
    instance_norm,
    layer_norm,
    local_convolution,
    local_response_norm,
    lstm,
    padding,
    parameter,
    pooling,
    resampling,
    rms_norm,
    simple_recurrence,
    softmax,
    transposed_convolution,
)
from parity.kinds.kind import Kind, Operation, Shapes, Weight
from parity.kinds.layer import Layer, Recorded
from parity.kinds.normalization import STATISTICS

KINDS: tuple[Kind, ...] = (
    dense.KIND,  # before convolutions: with several axes, its kernels have as many as theirs in Flax
    transposed_convolution.KIND,  # before convolutions, whose kernels have the same shapes in Flax
    convolution.KIND,
    local_convolution.KIND,
    embedding.KIND,
    parameter.KIND,
    batch_norm.KIND,
    layer_norm.KIND,
    rms_norm.KIND,
    instance_norm.KIND,
    group_norm.KIND,
    pooling.KIND,
    local_response_norm.KIND,
    activation.KIND,
    softmax.KIND,
    padding.KIND,
    resampling.KIND,
    dropout.KIND,
    lstm.KIND,
    gru.KIND,
    simple_recurrence.KIND,
)

# Layers with parameters of no kind above are compared as wholes, with a bound that their own roundings give.
OTHER = Kind("other", weights=STATISTICS)
# Layers without parameters: their class is looked at only to name a cause.
PLAIN = Kind("plain", weights=STATISTICS)
# Whose weights lie otherwise in Flax than those of the kind that a layer is of; see `Leaf.stored`.
STORED_OTHERWISE = (transposed_convolution.OF_TRANSPOSED_KERNEL,)
RENAMED = "renamed:"


@dataclass(frozen=True)
class Refused:
    """Classes that can't be compared.

    Attributes:
        classes: with their modules, under `torch.nn.modules` or `flax.linen`.
        why: and what to do instead.
    """

    classes: tuple[str, ...]
    why: str


REFUSED_IN_FLAX: tuple[Refused, ...] = (
    Refused(("linear.ConvLocal",), "use a module of your own with a kernel of (H', W', h, w, in, out)"),
    Refused(("recurrent.MGUCell",), "PyTorch has no such layer: write the cell out with Dense layers"),
    Refused(("recurrent.ConvLSTMCell",), "write the cell out with Dense and Conv layers"),
)

REFUSED_IN_TORCH: tuple[Refused, ...] = (
    Refused(
        ("activation.MultiheadAttention",),
        "with hooks, add_bias_kv or add_zero_attn, or as a class of its own, its packed weights can't be taken apart; "
        "write its projections out as Linear layers",
    ),
    Refused(
        ("rnn.RNN", "rnn.LSTM", "rnn.GRU", "rnn.RNNCell", "rnn.LSTMCell", "rnn.GRUCell"),
        "with hooks, proj_size or other weights, or as a class of its own, its packed weights can't be taken apart; "
        "write the cell out with Linear layers, and the loop over time",
    ),
    Refused(("linear.Bilinear",), "Flax has no such layer"),
)


def classes_of(module: object, under: str) -> list[str]:
    """A module's class and its bases that lie under a package, `module.Class` relative to it."""
    named = [f"{base.__module__}.{base.__qualname__}" for base in type(module).__mro__]
    return [name.removeprefix(f"{under}.") for name in named if name.startswith(f"{under}.")]


def refusal(classes: Iterable[str], refused: Iterable[Refused]) -> tuple[str, str] | None:
    """The class that can't be compared, without its module, and why; None if none of them is refused."""
    known = set(classes)
    for each in refused:
        for name in each.classes:
            if name in known:
                return name.rpartition(".")[2], each.why
    return None


def renamed(names: Mapping[str, str]) -> str:
    """Name of a kind of no known class whose weights lie alike on both sides under these names, PyTorch's first."""
    return RENAMED + ",".join(f"{torch}={flax}" for torch, flax in sorted(names.items()))


def named(name: str) -> Kind:
    """The kind of a name that a report, or a record, says."""
    if name.startswith(RENAMED):
        pairs = (each.partition("=") for each in name.removeprefix(RENAMED).split(","))
        return Kind(name, weights=tuple(Weight(torch, flax) for torch, _, flax in pairs))
    return next((kind for kind in (*KINDS, *STORED_OTHERWISE, OTHER, PLAIN) if kind.name == name), OTHER)


def of_flax_alone(name: str) -> bool:
    """Whether a kind is one that no PyTorch layer is of: it says how a Flax leaf's weights are named, or lie."""
    return name.startswith(RENAMED) or any(name == kind.name for kind in STORED_OTHERWISE)


def by_class(classes: Iterable[str]) -> Kind | None:
    """The kind of a PyTorch module by its class and bases (see `classes_of`); None if none is known."""
    known = set(classes)
    return next((kind for kind in KINDS if not known.isdisjoint(kind.torch_classes)), None)


def by_shapes(shapes: Shapes) -> Kind:
    """The kind of a PyTorch module of no known class, as far as the shapes of its parameters tell kinds apart."""
    return next((kind for kind in KINDS if kind.in_torch(shapes)), OTHER if shapes else PLAIN)


def in_flax(class_name: str, shapes: Shapes, bases: Sequence[str] = ()) -> Kind:
    """The kind of a Flax leaf, by the name of its class, or of one of its bases, and the shapes of its variables."""
    known = (kind for kind in KINDS if any(kind.in_flax(name, shapes) for name in (class_name, *bases)))
    return next(known, OTHER if shapes else PLAIN)


def known_class(bases: list[str]) -> str:
    """The first of a class and its bases, by name, of which a kind is known; the class itself if none is."""
    return next((name for name in bases if any(name in kind.class_names for kind in KINDS)), bases[0])


def layer(recorded: Recorded) -> Layer | None:
    """A recorded PyTorch layer in NumPy; None if it isn't written out."""
    kind = next((kind for kind in KINDS if recorded.class_name in kind.class_names), None)
    return None if kind is None else kind.layer(recorded)


def knows(class_name: str) -> bool:
    """Whether a PyTorch class of this name is of any kind."""
    return any(class_name in kind.class_names for kind in KINDS)


def operation(name: str) -> Operation | None:
    """What an ATen operation computes, if it is what a kind of layer does."""
    return next((kind.operations[name] for kind in KINDS if name in kind.operations), None)
