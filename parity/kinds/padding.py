"""Padding: what stands beyond the edges of a map."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.kinds.kind import Kind, Operation
from parity.kinds.layer import Layer, Mistake, Recorded, Settings, setting

Sides = tuple[tuple[int, int], ...]  # before and after, of each of the last axes

# By NumPy's names; PyTorch's reflection doesn't repeat the edge, its replication does nothing else.
_MODES = {
    "constant": "zeros",
    "reflect": "a reflection without the edge",
    "symmetric": "a reflection with the edge",
    "edge": "the edge's values",
    "wrap": "the other side's values",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Padding(Layer):
    """The last axes, lengthened.

    Attributes:
        sides: how much is added before and after each of the last axes; less than nothing is cut off.
        mode: what is added, a key of `_MODES`.
        value: that is added, for "constant".
    """

    sides: Sides
    mode: str = "constant"
    value: float = 0.0

    @property
    def may_get_a_relu(self) -> bool:
        """It commutes with one, but for a constant below zero."""
        return False

    def forward(self) -> NDArray:
        """Cut first, then padded."""
        whole = ((0, 0),) * (self.x.ndim - len(self.sides)) + self.sides
        cut = tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(self.x.shape, whole, strict=True))
        added = [(max(a, 0), max(b, 0)) for a, b in whole]
        if self.mode == "constant":
            return np.pad(self.x[cut], added, constant_values=self.value)
        return np.pad(self.x[cut], added, mode=self.mode)  # type: ignore[call-overload]

    def input_gradient(self, g: NDArray) -> NDArray:
        """Each added value sends its gradient back to where it came from."""
        places = np.arange(self.x.size, dtype=np.float64).reshape(self.x.shape) + 1  # 0 is what comes from nowhere
        changed = Padding(x=places, sides=self.sides, mode=self.mode).forward().astype(np.int64)
        total = np.zeros(self.x.size + 1)
        np.add.at(total, changed.ravel(), g.ravel())
        return total[1:].reshape(self.x.shape)

    def own_mistakes(self) -> Iterator[Mistake]:
        """Other values, other sides."""
        for mode, words in _MODES.items():
            if mode != self.mode:
                text = f"beyond the edge stand {words}, not {_MODES[self.mode]}"
                yield setting("pad_mode", text, mode=mode, value=0.0)
        turned = tuple((b, a) for a, b in self.sides)
        if turned != self.sides:
            text = f"padding is {turned}, not {self.sides}: before and after are exchanged"
            yield setting("pad_sides", text, sides=turned)
        halves = tuple(((a + b) // 2, (a + b) - (a + b) // 2) for a, b in self.sides)
        for other in dict.fromkeys([halves, *itertools.permutations(self.sides), *self._moved()]):
            if other != self.sides:
                yield setting("pad_sides", f"padding is {other}, not {self.sides}", sides=other)
        if self.mode == "constant" and self.value:
            yield setting("pad_value", f"beyond the edge stands 0, not {self.value:g}", value=0.0)

    def _moved(self) -> Iterator[Sides]:
        for low, high in ((1, -1), (-1, 1), (1, 1), (-1, -1), (0, 1), (1, 0), (0, -1), (-1, 0)):
            moved = tuple((a + low, b + high) for a, b in self.sides)
            if min(itertools.chain(*moved)) >= 0:
                yield moved


_CLASSES = {"Constant": "constant", "Zero": "constant", "Reflection": "reflect", "Replication": "edge"}


def _layer(recorded: Recorded) -> Layer | None:
    get, name = recorded.settings.get, recorded.class_name
    given = get("padding")
    mode = next((mode for prefix, mode in _CLASSES.items() if name.startswith(prefix)), "wrap")
    if not isinstance(given, (list, tuple)) or len(given) % 2 or len(given) // 2 > recorded.x.ndim:
        return None
    # PyTorch begins with the last axis.
    sides = tuple((int(given[i]), int(given[i + 1])) for i in range(len(given) - 2, -1, -2))
    value = get("value") or 0.0
    return Padding(x=recorded.x, sides=sides, mode=mode, value=float(value) if mode == "constant" else 0.0)


def _settings(args: list[Any]) -> Settings | None:
    """The list of sides; a number is the constant."""
    sides = next((a for a in args if isinstance(a, list)), None)
    value = next((a for a in args if isinstance(a, (int, float)) and not isinstance(a, bool)), 0.0)
    return None if sides is None else {"padding": sides, "value": value}


_NUMBERS = (1, 2, 3)

KIND = Kind(
    name="padding",
    torch_classes=tuple(
        f"padding.{name}Pad{n}d"
        for name in ("Constant", "Zero", "Reflection", "Replication", "Circular")
        for n in _NUMBERS
    ),
    layer=_layer,
    operations={
        "constant_pad_nd": Operation("padding", "ConstantPad2d", _settings),
        **{f"reflection_pad{n}d": Operation("padding", f"ReflectionPad{n}d", _settings) for n in _NUMBERS},
        **{f"replication_pad{n}d": Operation("padding", f"ReplicationPad{n}d", _settings) for n in _NUMBERS},
    },
)
