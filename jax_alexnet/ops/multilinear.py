"""Operations linear in each of several arrays, by forms of our own, with derivatives of every order and both modes.

A convolution y of maps x with kernels w is linear in both. So is its product with an array g of the shape of y,

    T(x, w, g) = <y(x, w), g>,

in all three, and leaving one of its three places open gives the convolution, the gradient for the maps, or that for the
kernels. No derivative is anything else: a tangent of x takes the place of x, and a gradient of a gradient closes one
place and opens another. So an operation is written down as one form for each place, and everything else follows here:
`jax.grad`, `jax.jvp`, `jax.linearize`, `jax.hessian`, `jax.vmap`, and any of them of any of them. `jax.custom_vjp`
would know nothing of forward mode, and nothing of what lies behind the first gradient.

Behind it is a primitive of JAX's ("How JAX primitives work" in its documentation), `multilinear`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export, lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from jax_alexnet.ops import varying


class Form(NamedTuple):
    """What makes the array in one place out of what is given and the arrays in the other places, in this order.

    Attributes:
        cpu: on CPUs.
        default: elsewhere, and in exported programs, which another machine or version of jaxlib may run: XLA's own
            operations only, of which batches may have any symbolic size.
    """

    cpu: Callable[..., Array]
    default: Callable[..., Array]


def everywhere(function: Callable[..., Array]) -> Form:
    """One and the same form on all platforms."""
    return Form(function, function)


def leave_open(forms: Sequence[Form], place: int, *arrays: Array, given: Sequence[Array] = ()) -> Array:
    """The array in the open place.

    Args:
        forms: by place; hashable, so functions of modules with static settings (`functools.partial`).
        place: the one that is open.
        arrays: in the other places, in order.
        given: further arguments of all forms, in which they needn't be linear. Integers have no derivative.
    """
    operands = varying.alike(*given, *arrays)
    return _bind(tuple(forms), place, len(given), operands)


def _bind(forms: tuple[Form, ...], place: int, given: int, operands: Sequence[Any]) -> Any:
    chosen = forms[place]
    branches = (jax.make_jaxpr(chosen.default)(*operands),)
    if chosen.cpu is not chosen.default and not _any_symbolic(operands):
        branches = (jax.make_jaxpr(chosen.cpu)(*operands), *branches)
    return _multilinear.bind(*operands, branches=branches, forms=forms, place=place, given=given)


def _any_symbolic(operands: Sequence[Any]) -> bool:
    return any(export.is_symbolic_dim(side) for operand in operands for side in operand.shape)


# The forms of the open place as programs are a parameter called `branches`, as those of `jax.lax.cond` are: whoever
# walks through a traced program finds what would run, on CPUs first and elsewhere last.
_multilinear = core.Primitive("multilinear")


def _on_this_platform(*operands: Any, branches: tuple[Any, ...], **_: Any) -> Any:
    """Outside of `jax.jit`."""
    first, last = (_function(branch) for branch in (branches[0], branches[-1]))
    return lax.platform_dependent(*operands, cpu=first, default=last)


def _function(branch: Any) -> Callable[..., Any]:
    return lambda *operands: core.jaxpr_as_fun(branch)(*operands)[0]


def _shape(*_: Any, branches: tuple[Any, ...], **__: Any) -> Any:
    return branches[-1].out_avals[0]


def _lowered(cpu: bool, ctx: Any, *operands: Any, branches: tuple[Any, ...], **_: Any) -> Any:
    here = cpu and not ctx.module_context.lowering_parameters.for_export
    return mlir.lower_fun(core.jaxpr_as_fun(branches[0 if here else -1]), multiple_results=True)(ctx, *operands)


def _tangent(primals: Sequence[Any], tangents: Sequence[Any], **settings: Any) -> tuple[Any, Any]:
    value, parts = _multilinear.bind(*primals, **settings), []
    for i, tangent in enumerate(tangents):
        if type(tangent) is ad.Zero:
            continue
        if i >= settings["given"]:
            parts.append(_multilinear.bind(*_with(primals, i, tangent), **settings))
        else:
            form = settings["forms"][settings["place"]].default
            moved = lambda x, form=form, i=i: form(*_with(primals, i, x))  # noqa: E731
            parts.append(jax.jvp(moved, (primals[i],), (tangent,))[1])
    return value, sum(parts[1:], start=parts[0]) if parts else ad.Zero(jax.typeof(value).to_tangent_aval())


def _with(arrays: Sequence[Any], place: int, array: Any) -> list[Any]:
    return [*arrays[:place], array, *arrays[place + 1 :]]


def _transposed(
    cotangent: Any, *operands: Any, forms: tuple[Form, ...], place: int, given: int, branches: Any
) -> list[Any]:
    (wanted,) = (i for i, operand in enumerate(operands) if ad.is_undefined_primal(operand))
    found: list[Any] = [None] * len(operands)
    if type(cotangent) is ad.Zero:
        found[wanted] = ad.Zero(operands[wanted].aval)
        return found
    filled = [i for i in range(len(forms)) if i != place]  # the place of each operand behind the given ones
    arrays = dict(zip(filled, operands[given:], strict=True)) | {place: cotangent}
    opened = filled[wanted - given]
    others = [arrays[i] for i in range(len(forms)) if i != opened]
    found[wanted] = _bind(forms, opened, given, [*operands[:given], *others])
    return found


def _batched(
    operands: Sequence[Any],
    axes: Sequence[int | None],
    *,
    forms: tuple[Form, ...],
    place: int,
    given: int,
    branches: Any,
) -> tuple[Any, int]:
    operands = [x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(operands, axes, strict=True)]
    there = [axis is not None for axis in axes]
    by_place = [*there[given : given + place], True, *there[given + place :]]
    mapped = []
    for i, form in enumerate(forms):
        own = tuple(0 if each else None for each in (*there[:given], *by_place[:i], *by_place[i + 1 :]))
        mapped.append(Form(*(partial(_one_by_one, function, own, by_place[i]) for function in form)))
    return _bind(tuple(mapped), place, given, operands), 0


def _one_by_one(function: Callable[..., Array], axes: tuple[int | None, ...], kept: bool, *operands: Array) -> Array:
    """`function` of each element along the batch axes; their sum where the array in the open place is common to all."""
    results = jax.vmap(function, axes)(*operands)
    if kept:
        return results
    return jnp.sum(results, axis=0, dtype=np.promote_types(results.dtype, np.float32)).astype(results.dtype)


_multilinear.def_impl(_on_this_platform)
_multilinear.def_abstract_eval(_shape)
mlir.register_lowering(_multilinear, partial(_lowered, True), platform="cpu")
mlir.register_lowering(_multilinear, partial(_lowered, False))
ad.primitive_jvps[_multilinear] = _tangent
ad.primitive_transposes[_multilinear] = _transposed
batching.primitive_batchers[_multilinear] = _batched
