"""Where weights, optimizer state and batches lie on a mesh of devices, and how gradients are reduced exactly once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_alexnet.layer_specs import Variant
from jax_alexnet.ops.varying import alike

Tree = Any
# (layer, "kernel" or "bias", shape of the whole array) -> which mesh axis divides which of its dimensions.
Place = Callable[[str, str, tuple[int, ...]], P]

# Devices along this axis work on the same images, each on its column of them; along all others the images differ.
COLUMN = "column"


def everywhere(layer: str, kind: str, shape: tuple[int, ...]) -> P:
    """The whole array on every device."""
    return P()


def make_mesh(devices: Sequence[Any], **axes: int) -> Mesh:
    """A mesh with these axes, those of one device left out; the last axis runs through neighbours.

    So `make_mesh(eight, data=4, column=2)` puts devices 0 and 1 on the columns of the first quarter of the batch.
    """
    # A reduction over an axis of one device would be compiled, as a copy of every gradient.
    kept = {name: size for name, size in axes.items() if size > 1} or {"data": 1}
    # Explicit axes, JAX's default for new meshes, would make every array carry its sharding in its type.
    return Mesh(np.array(devices).reshape(*kept.values()), tuple(kept), axis_types=(AxisType.Auto,) * len(kept))


def batch_axes(mesh: Mesh) -> tuple[str, ...]:
    """The axes along which devices have different images."""
    return tuple(name for name in mesh.axis_names if name != COLUMN)


def batch_spec(mesh: Mesh) -> P:
    """How arrays with one row an image lie on the mesh."""
    return P(axes) if (axes := batch_axes(mesh)) else P()


def mesh_share(mesh: Mesh, process: int | None = None) -> tuple[int, int]:
    """(i, n): `process`, by default this one, needs part i of the n into which processes divide a global batch.

    Processes whose devices work on the same images, one column each, have the same share.
    """
    process = jax.process_index() if process is None else process
    axes = [d for d, name in enumerate(mesh.axis_names) if name in batch_axes(mesh)]
    sizes = [mesh.devices.shape[d] for d in axes]
    parts: dict[int, set[int]] = {}
    for place, device in np.ndenumerate(mesh.devices):
        part = int(np.ravel_multi_index([place[d] for d in axes], sizes)) if axes else 0
        parts.setdefault(device.process_index, set()).add(part)
    mine = sorted(parts[process])
    if mine != list(range(mine[0], mine[0] + len(mine))):
        raise ValueError(f"process {process} has parts {mine} of the batch: its devices must be neighbours in the mesh")
    return mine[0] // len(mine), int(np.prod(sizes, dtype=int)) // len(mine)


@dataclass(frozen=True)
class Layout:
    """One scheme on a number of devices.

    Attributes:
        scheme: its name, as in `--parallel`.
        mesh: the devices, along named axes.
        table: the layers that one device walks.
        weights: where each weight lies.
        moments: where the optimizer's arrays for each weight lie; a device updates what it has the moments of.
    """

    scheme: str
    mesh: Mesh
    table: Variant
    weights: Place = everywhere
    moments: Place | None = None

    @property
    def batch_parts(self) -> int:
        """Into how many parts the global batch is divided."""
        return int(np.prod([self.mesh.shape[name] for name in batch_axes(self.mesh)], dtype=int))

    # --- where arrays lie ----------------------------------------------------------------------------------

    def specs(self, state: Tree) -> Tree:
        """A PartitionSpec for every leaf of a training state (of weights alone, too)."""

        def one(path: tuple[Any, ...], leaf: Any) -> P:
            keys = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
            if len(keys) < 2:
                return P()  # a counter
            in_optimizer = any(getattr(entry, "name", None) == "opt_state" for entry in path)
            place = self.moments if in_optimizer and self.moments else self.weights
            return place(keys[-2], keys[-1], leaf.shape)

        return jax.tree_util.tree_map_with_path(one, state)

    def place(self, state: Tree) -> Tree:
        """`state`, whole arrays on the host or on a device, laid out on the mesh."""

        def one(leaf: Any, spec: P) -> Array:
            sharding = NamedSharding(self.mesh, spec)
            if sharding.is_fully_addressable:
                return jax.device_put(leaf, sharding)
            whole = np.asarray(leaf)  # every process has it, and hands out what its devices keep
            return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

        return jax.tree.map(one, state, self.specs(state))

    def gathered(self, state: Tree) -> Tree:
        """`state` with every array readable in this process; all processes must call it together."""
        if all(leaf.is_fully_addressable or leaf.is_fully_replicated for leaf in jax.tree.leaves(state)):
            return state
        return jax.jit(lambda tree: tree, out_shardings=NamedSharding(self.mesh, P()))(state)

    # --- inside the step -----------------------------------------------------------------------------------

    def grad(
        self, function: Callable[[Tree, Tree, Array | int], tuple[Array, Tree]], params: Tree, batch: Tree, parts: int
    ) -> tuple[Tree, Tree]:
        """`jax.grad(function, has_aux=True)`, with gradients and second result added over all parts and devices.

        Args:
            function: the weights, images and the number of the part that these are, from 0, to the share that they have
                in the loss, and to sums over them.
            params: the weights as this device has them.
            batch: this device's images, and what else has a row for each.
            parts: into how many consecutive ones the rows are divided; each has its turn alone.

        Returns:
            Gradients of the whole batch, of those parts of the weights that this device updates; sums over the batch.
        """
        one, varying = jax.grad(function, has_aux=True), self._mark_varying(params)
        if parts == 1:
            return self._reduced(*one(varying, batch, 0))
        rows = jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), batch)

        def add(total: Tree, turn: tuple[Tree, Array]) -> tuple[Tree, None]:
            return jax.tree.map(jnp.add, total, one(varying, *turn)), None

        gradients, sums = jax.eval_shape(one, varying, jax.tree.map(lambda leaf: leaf[0], rows), 0)
        # What a loop carries must vary over the mesh as what it adds: gradients as weights do, and sums as images.
        like_images = jax.tree.leaves(batch)[0]
        zeros = (
            jax.tree.map(lambda leaf, like: alike(jnp.zeros(leaf.shape, leaf.dtype), like)[0], gradients, varying),
            jax.tree.map(lambda leaf: alike(jnp.zeros(leaf.shape, leaf.dtype), like_images)[0], sums),
        )
        total, _ = jax.lax.scan(add, zeros, (rows, jnp.arange(parts, dtype=jnp.int32)))
        return self._reduced(*total)

    def update(
        self, optimizer: optax.GradientTransformationExtraArgs, grads: Tree, opt_state: Tree, params: Tree, **rest: Any
    ) -> tuple[Tree, Tree]:
        """An optimizer's step from the gradients of `grad`: the weights as this device keeps them, and its state."""
        own = self._own_part(params)
        updates, opt_state = optimizer.update(grads, opt_state, own, **rest)
        return self._joined(optax.apply_updates(own, updates), params), opt_state

    def _mark_varying(self, params: Tree) -> Tree:
        """The weights marked as differing between devices that have different images.

        It keeps autodiff from reducing by itself, layer by layer and in the compute dtype: each device gets the
        gradient of its own images, and `_reduced` adds them up.
        """
        return jax.tree.map(
            lambda leaf, spec: jax.lax.pcast(leaf, axes, to="varying") if (axes := self._differing(spec)) else leaf,
            params,
            self.specs(params),
        )

    def _reduced(self, grads: Tree, sums: Tree) -> tuple[Tree, Tree]:
        """Gradients of the whole batch, and `sums` over all its parts: each array is reduced exactly once.

        Where the moments are divided, a device receives only the part of the gradient that it has the moments of.
        """
        leaves, structure = jax.tree.flatten(grads)
        specs = structure.flatten_up_to(self.specs(grads))
        parts = self._divided(grads)
        everything: list[tuple[tuple[str, ...], Any]] = []
        for leaf, spec, part in zip(leaves, specs, parts, strict=True):
            axes = self._differing(spec)
            if part is not None:
                axis, dimension = part
                leaf = jax.lax.psum_scatter(leaf, axis, scatter_dimension=dimension, tiled=True)
                axes = tuple(name for name in axes if name != axis)
            everything.append((axes, leaf))
        flat_sums, sums_structure = jax.tree.flatten(sums)
        everything += [(batch_axes(self.mesh), leaf) for leaf in flat_sums]
        added = _sum_by_axes(everything)
        return structure.unflatten(added[: len(leaves)]), sums_structure.unflatten(added[len(leaves) :])

    def _own_part(self, params: Tree) -> Tree:
        """Of each weight, the part that this device updates."""

        def one(leaf: Array, part: tuple[str, int] | None) -> Array:
            if part is None:
                return leaf
            axis, dimension = part
            size = leaf.shape[dimension] // self.mesh.shape[axis]
            return jax.lax.dynamic_slice_in_dim(leaf, jax.lax.axis_index(axis) * size, size, dimension)

        leaves, structure = jax.tree.flatten(params)
        return structure.unflatten(map(one, leaves, self._divided(params)))

    def _joined(self, parts: Tree, params: Tree) -> Tree:
        """The weights that a device keeps, from the parts that the devices have updated."""
        leaves, structure = jax.tree.flatten(parts)
        divided = self._divided(params)
        return structure.unflatten(
            leaf if part is None else gather(leaf, part[0], part[1], whole=True)
            for leaf, part in zip(leaves, divided, strict=True)
        )

    def _differing(self, spec: P) -> tuple[str, ...]:
        """Axes along which devices have the same part of a weight and different images."""
        dividing = {name for entry in spec if entry for name in ((entry,) if isinstance(entry, str) else entry)}
        return tuple(name for name in batch_axes(self.mesh) if name not in dividing)

    def _divided(self, params: Tree) -> list[tuple[str, int] | None]:
        """For each weight, the axis and dimension that divide its moments but not itself."""
        if self.moments is None:
            return [None] * len(jax.tree.leaves(params))
        moments = self.moments

        def one(path: tuple[Any, ...], leaf: Any) -> tuple[str, int] | None:
            spec = moments(path[-2].key, path[-1].key, leaf.shape)
            return next(((str(axis), d) for d, axis in enumerate(spec) if axis), None)

        return [one(path, leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]]


def gather(x: Array, axis: str, dimension: int, *, whole: bool = False) -> Array:
    """Everything that the devices along `axis` hold of `x`, joined along `dimension`.

    Backward, each device gets the sum of what all make of its part. With `whole`, what follows is the same on every
    device, gradients too, so that each just keeps the gradient of its part: nothing is sent back.
    """
    return jax.lax.all_gather(x, axis, axis=dimension, tiled=True, to="invarying" if whole else "varying")


def _sum_by_axes(leaves: list[tuple[tuple[str, ...], Any]]) -> list[Any]:
    """Each leaf summed over its axes; leaves with the same axes in one call, which XLA can send as one message."""
    added = [leaf for _, leaf in leaves]
    for axes in dict.fromkeys(axes for axes, _ in leaves if axes):
        places = [i for i, (own, _) in enumerate(leaves) if own == axes]
        for place, value in zip(places, jax.lax.psum([added[i] for i in places], axes), strict=True):
            added[place] = value
    return added
