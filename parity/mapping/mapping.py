"""`parity.Mapping`: which tensor of a PyTorch model becomes which leaf of a JAX model's state, and how; both ways."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping as Arrays
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.errors import CannotConvert
from parity.mapping import files, trees
from parity.mapping.tensors import Source, Tensor

FORMAT, VERSION = "parity-mapping", 1

_KEYS = {
    "format": str, "version": int, "library": str, "jax_model": str, "torch_model": str, "comparison": dict,
    "layers": dict, "tensors": list, "tied": dict, "unused": list, "idle": list,
}  # fmt: skip
_LIBRARIES = (trees.LINEN, trees.NNX, trees.FUNCTION)


@dataclass(frozen=True)
class Mapping:
    """How the weights of one PyTorch model become those of one JAX model.

    Attributes:
        library: `flax.linen`, `flax.nnx` or `function`.
        jax_model: name of the class or function; likewise torch_model.
        torch_model: see `jax_model`.
        layers: path of each of JAX's layers to that of the PyTorch layer that it is.
        tensors: every leaf of JAX's state.
        tied: names of the state dict that are the same tensor as another one, to that one's name.
        unused: names of the state dict that JAX's model has no use for.
        idle: leaves of JAX's state that the model computes nothing with and that come from nothing: they stay as they
            are.
        comparison: what became of the comparison that found it: `verdict` and `dtype`.
    """

    library: str
    jax_model: str
    torch_model: str
    layers: dict[str, str]
    tensors: tuple[Tensor, ...]
    tied: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    comparison: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes: dict[str, tuple[int, ...]] = {}
        for path, count in Counter(tensor.jax for tensor in self.tensors).items():
            if count > 1:
                raise CannotConvert(f"{path} has {count} entries: one tensor a leaf; add others up with `sum`")
        for source in self._sources():
            if shapes.setdefault(source.torch, source.torch_shape) != source.torch_shape:
                both = f"{shapes[source.torch]} and {source.torch_shape}"
                raise CannotConvert(f"{source.torch} has two shapes, {both}: the state dict's is the right one")
        for torch, count in Counter(self.layers.values()).items():
            if count > 1:
                paths = ", ".join(ours for ours, theirs in self.layers.items() if theirs == torch)
                raise CannotConvert(f"`layers` gives {torch} to {paths}: one of JAX's layers each")

    def to_jax(self, state: Arrays[str, Any] | str | Path) -> dict[str, NDArray]:
        """JAX's state by path, for Linen with the collection first, from PyTorch's.

        Args:
            state: a state dict, of tensors or of arrays; or a .safetensors, .npz or PyTorch file of one.

        Returns:
            Arrays of their own, in PyTorch's dtypes where the mapping says no other.

        Raises:
            CannotConvert: tensors are missing, left over or of another shape; all of them are named.
        """
        given = files.read(state) if isinstance(state, (str, Path)) else files.as_arrays(state)
        checked = self.complete(given)
        return {tensor.jax: tensor.converted(checked) for tensor in self.tensors}

    def to_tree(self, state: Arrays[str, Any] | str | Path, like: Any = None) -> Any:
        """What the JAX model takes: Linen's `variables`, a state for `nnx.update(model, ...)`, a function's tree.

        Args:
            state: see `to_jax`.
            like: the nnx module or its state, Linen's variables, or the function's tree, that gives the form; its
                leaves must have the mapping's paths and shapes. Without it dictionaries of NumPy's arrays are made.
        """
        arrays = self.to_jax(state)
        return trees.nested(arrays, self.library) if like is None else trees.filled(like, arrays)

    def to_torch(self, tree: Any) -> dict[str, NDArray]:
        """PyTorch's state dict, as arrays by name, from JAX's state: as `to_jax` and `to_tree` give it, or trained.

        Of tensors that are added up on the way to JAX the first one gets the sum, and the others zeros. What JAX has no
        use for isn't in it.

        Raises:
            CannotConvert: leaves are missing, left over or of another shape, parts of a tensor come from no leaf or
                from two, or leaves differ that are one tensor in PyTorch.
        """
        arrays = trees.flat(tree)
        self._check_leaves(arrays)
        found: dict[str, NDArray] = {}
        written: dict[str, NDArray] = {}
        for tensor in self.tensors:
            for place, source in enumerate(tensor.sources):
                array = arrays[tensor.jax]
                whole = found.setdefault(source.torch, np.zeros(source.torch_shape, array.dtype))
                done = written.setdefault(source.torch, np.zeros(source.torch_shape, bool))
                before = np.count_nonzero(done)
                source.put(array if place == 0 or source.padded else np.zeros_like(array), whole)
                source.put(np.ones(array.shape, bool), done)
                if np.count_nonzero(done) != before + source.size:
                    raise CannotConvert(
                        f"{tensor.jax} would overwrite a part of {source.torch} that another leaf gives"
                    )
        parts = [name for name, done in written.items() if not done.all()]
        if parts:
            raise CannotConvert(f"no leaf gives the rest of {', '.join(parts)}")
        for name, other in self.tied.items():
            if not np.array_equal(found.setdefault(name, found[other]), found[other], equal_nan=True):
                raise CannotConvert(f"{name} and {other} are one tensor in PyTorch, but differ in the JAX model")
        return found

    def save(self, path: str | Path) -> None:
        """Write the mapping as JSON, one line a tensor."""
        Path(path).write_text(self.text(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Mapping:
        """Read what `save` wrote, or a person has corrected.

        Raises:
            CannotConvert: it isn't such a file, is of another version, or contradicts itself.
        """
        try:
            return cls.from_json(files.read_json(path))
        except CannotConvert as error:
            raise CannotConvert(str(error) if str(path) in str(error) else f"{path}: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        named = {key: getattr(self, key) for key in _KEYS if key not in ("format", "version", "idle")}
        plain = {"tensors": [tensor.to_json() for tensor in self.tensors], "unused": list(self.unused)}
        plain |= {"idle": list(self.idle)} if self.idle else {}
        return {"format": FORMAT, "version": VERSION, **named, **plain}

    def text(self) -> str:
        """The file's content."""
        lines = []
        for key, value in self.to_json().items():
            items = [json.dumps(item) for item in value] if isinstance(value, list) else []
            if isinstance(value, dict) and key != "comparison":
                items = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
            opening, closing = ("[", "]") if isinstance(value, list) else ("{", "}")
            inside = ",\n".join(f"  {item}" for item in items)
            lines.append(f" {json.dumps(key)}: " + (f"{opening}\n{inside}\n {closing}" if items else json.dumps(value)))
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, content: Any) -> Mapping:
        """The inverse of `to_json`; raises CannotConvert as `load` does."""
        if not is_mapping(content):
            raise CannotConvert(f"no mapping: an object with the format {FORMAT!r} is expected")
        if content.get("version") != VERSION:
            raise CannotConvert(
                f"version {content.get('version')!r} of the format isn't known, this program reads {VERSION}: "
                "write the mapping again, by a comparison"
            )
        content = {"idle": [], **content}  # files from before there were any lack it
        wrong = {*content} ^ {*_KEYS}
        wrong |= {key for key, kind in _KEYS.items() if key in content and not isinstance(content[key], kind)}
        if wrong:
            raise CannotConvert(f"{', '.join(sorted(wrong))}: missing, unknown or of the wrong kind")
        texts = [*content["unused"], *content["idle"], *content["layers"].values(), *content["tied"].values()]
        if not all(isinstance(each, str) for each in texts):
            raise CannotConvert("names in layers, tied, unused and idle must be text")
        if content["library"] not in _LIBRARIES:
            raise CannotConvert(f"library {content['library']!r} is none of {', '.join(_LIBRARIES)}")
        given = {key: content[key] for key in _KEYS if key not in ("format", "version")}
        tensors = tuple(Tensor.from_json(each) for each in content["tensors"])
        return cls(**given | {"tensors": tensors, **{key: tuple(content[key]) for key in ("unused", "idle")}})

    def _sources(self) -> list[Source]:
        return [source for tensor in self.tensors for source in tensor.sources]

    def concluded(self, **comparison: str) -> Mapping:
        """The same, with what became of a comparison that it was given to."""
        return dataclasses.replace(self, comparison=comparison)

    def check(self, library: str, shapes: dict[str, tuple[int, ...]], others: Arrays[str, Any] | None = None) -> None:
        """Refuse a JAX model of another library, or with other leaves.

        Args:
            library: the model's.
            shapes: of its leaves, by path.
            others: likewise of those that a mapping needn't have.

        Raises:
            CannotConvert: with every path, and both shapes.
        """
        if library != self.library:
            raise CannotConvert(f"the mapping is for a model of {self.library} ({self.jax_model}), not of {library}")
        ours = {tensor.jax: tensor.jax_shape for tensor in self.tensors}
        wrong = trees.misplaced(ours, {**shapes, **(others or {})})
        wrong += [
            f"{path} {shape} of the JAX model isn't in it"
            for path, shape in shapes.items()
            if path not in ours and path not in self.idle
        ]
        if wrong:
            what = f"the mapping is that of another model, {self.jax_model}"
            raise CannotConvert(trees.listed(what, wrong, "compare without it, and write a new one"))

    def complete(self, given: dict[str, NDArray]) -> dict[str, NDArray]:
        """A state dict with all that is needed; a tied tensor stands for its twin where a file holds one of them.

        Raises:
            CannotConvert: see `to_jax`.
        """
        state = dict(given)
        for name, other in self.tied.items():
            if name in state and other in state and not np.array_equal(state[name], state[other], equal_nan=True):
                raise CannotConvert(
                    f"{name} and {other} are one tensor in {self.torch_model}, but differ in what is given"
                )
            if name in state:
                state.setdefault(other, state[name])
        state |= {name: state[other] for name, other in self.tied.items() if name not in state and other in state}
        needed = {source.torch: source.torch_shape for source in self._sources()}
        wrong = [f"{name} {shape} is missing" for name, shape in needed.items() if name not in state]
        wrong += [
            f"{name} is {state[name].shape}, the mapping's is {shape}"
            for name, shape in needed.items()
            if name in state and state[name].shape != shape
        ]
        known = {*needed, *self.tied, *self.unused}
        wrong += [f"{name} {array.shape} is left over" for name, array in given.items() if name not in known]
        if wrong:
            what = f"the weights aren't those of the {self.torch_model} that this mapping was made for"
            raise CannotConvert(trees.listed(what, wrong, "what may be left out belongs into `unused`"))
        return state

    def _check_leaves(self, arrays: dict[str, NDArray]) -> None:
        shapes = {tensor.jax: tensor.jax_shape for tensor in self.tensors}
        wrong = [f"{path} {shape} is missing" for path, shape in shapes.items() if path not in arrays]
        wrong += [
            f"{path} is {arrays[path].shape}, the mapping's is {shape}"
            for path, shape in shapes.items()
            if path in arrays and arrays[path].shape != shape
        ]
        wrong += [
            f"{path} {array.shape} is left over"
            for path, array in arrays.items()
            if path not in shapes and path not in self.idle
        ]
        if wrong:
            what = f"the state isn't that of the {self.jax_model} that this mapping was made for"
            raise CannotConvert(trees.listed(what, wrong, "give the state of that model"))


def is_mapping(content: Any) -> bool:
    """Whether what a JSON file holds says that it is one, of whatever version."""
    return isinstance(content, dict) and content.get("format") == FORMAT
