"""The product of fully connected layers: on CPUs in bfloat16 by oneDNN, which is up to twice as fast as XLA's there."""

from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from jax_alexnet.ops.cpu import onednn
from jax_alexnet.ops.cpu.onednn import CpuForm
from jax_alexnet.ops.multilinear import Form, leave_open


def multiply(x: Array, kernel: Array, cpu: CpuForm = "auto") -> Array:
    """Each example's values times the kernel; sums are accumulated in float32.

    Args:
        x: (batch, inputs).
        kernel: (inputs, features), in the dtype of `x`.
        cpu: whether oneDNN is asked on CPUs; see `convolution.conv`.

    Returns:
        (batch, features) in the dtype of `x`.
    """
    forms = [Form(partial(form, cpu), partial(form, "xla")) for form in (_to_x, _to_kernel, _to_y)]
    return leave_open(forms, 2, x, kernel)


def multiply_by_units(x: Array, kernel: Array, cpu: CpuForm = "auto") -> Array:
    """The same with each unit's weights side by side, as inference on CPUs reads them up to four times as fast.

    Args:
        x: (batch, inputs).
        kernel: (features, inputs), in the dtype of `x`.
        cpu: see `multiply`.

    Returns:
        (batch, features) in the dtype of `x`.
    """
    forms = [Form(partial(form, cpu), partial(form, "xla")) for form in (_units_to_x, _units_to_kernel, _units_to_y)]
    return leave_open(forms, 2, x, kernel)


def _to_x(cpu: CpuForm, kernel: Array, gradient: Array) -> Array:
    return _product(cpu, gradient, kernel, transpose_b=True)


def _to_kernel(cpu: CpuForm, x: Array, gradient: Array) -> Array:
    return _product(cpu, x, gradient, transpose_a=True)


def _to_y(cpu: CpuForm, x: Array, kernel: Array) -> Array:
    return _product(cpu, x, kernel)


def _units_to_x(cpu: CpuForm, kernel: Array, gradient: Array) -> Array:
    return _product(cpu, gradient, kernel)


def _units_to_kernel(cpu: CpuForm, x: Array, gradient: Array) -> Array:
    return _product(cpu, gradient, x, transpose_a=True)


def _units_to_y(cpu: CpuForm, x: Array, kernel: Array) -> Array:
    if x.dtype == jnp.bfloat16:
        return _product(cpu, kernel, x, transpose_b=True).T  # oneDNN's threads share rows, of which a batch has few
    return _product(cpu, x, kernel, transpose_b=True)


def _product(cpu: CpuForm, a: Array, b: Array, *, transpose_a: bool = False, transpose_b: bool = False) -> Array:
    # In float32 XLA's products are as fast, and adding in its order makes smaller errors.
    if a.dtype == jnp.bfloat16 and onednn.usable(a.dtype, cpu):
        return onednn.product(a, b, transpose_a=transpose_a, transpose_b=transpose_b).astype(a.dtype)
    return lax.dot_general(a, b, (((0 if transpose_a else 1,), (1 if transpose_b else 0,)), ((), ())))
