"""What pairing layers needs to know of one of them: the same for both frameworks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parity.kinds.kind import Shape


@dataclass(frozen=True)
class Leaf:
    """A module without children.

    Attributes:
        path: in its model.
        class_name: of the module.
        kind: name of its kind, `other` with parameters of no known one, `plain` without parameters.
        shapes: of its parameters and statistics, by the framework's own names.
        idle: whether the model makes no use of it for these inputs, so that it needs no partner.
        calls: how often the model calls it, where that was counted.
        causal: whether it is a convolution of JAX's that pads before more than behind, or leaves padding to others.
        stored: name of the kind whose weights lie as this leaf's do, where its settings put them into another order
            than `kind` says; its `shapes` are those of `kind`.
        taken: which of its features the code behind it takes out of the result, each as the numbers of a
            `parity.comparison.interleaved.Pattern`; of JAX's layers that are products with a kernel alone.
        looked_up: of a table of embeddings how many rows each call takes.
    """

    path: str
    class_name: str
    kind: str
    shapes: Mapping[str, Shape]
    idle: bool = False
    calls: int = 1
    causal: bool = False
    stored: str = ""
    taken: tuple[tuple[int, int, int], ...] = ()
    looked_up: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As another process can read it."""
        named = {"path": self.path, "class": self.class_name, "kind": self.kind}
        counted = {"idle": self.idle, "calls": self.calls, "causal": self.causal, "stored": self.stored}
        counted["taken"] = [list(each) for each in self.taken]
        counted["looked_up"] = list(self.looked_up)
        return {**named, "shapes": dict(self.shapes), **counted}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Leaf:
        """The inverse of `to_json`."""
        shapes = {name: tuple(shape) for name, shape in content["shapes"].items()}
        named = content["path"], content["class"], content["kind"]
        facts = {name: content[name] for name in ("idle", "calls", "causal", "stored")}
        facts["looked_up"] = tuple(content["looked_up"])
        return cls(*named, shapes, **facts, taken=tuple(tuple(each) for each in content["taken"]))
