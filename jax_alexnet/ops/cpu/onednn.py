"""Convolutions and products by oneDNN, the library that PyTorch uses on CPUs, inside XLA's programs.

jaxlib contains oneDNN, with its kernels for AVX-512, bfloat16 and AMX, and XLA's CPU runtime runs the custom calls
`__onednn$convolution` and `__onednn$matmul`; only the compiler pass that would put such calls into a program isn't part
of the build (openxla/xla, xla/service/cpu: `onednn_convolution.cc` and `onednn_matmul.cc` read the calls,
`onednn_config.proto` describes them). So the calls are written here. They are no public interface: another version may
describe them differently, and oneDNN ends the process over a description that it can't read. So they are tried first,
in another process (`proof`). A program with such calls can't be written to JAX's persistent compilation cache, and is
compiled anew by each process.
"""

import json
import os
import platform
import warnings
from typing import Any, Literal

import jax
import jax.numpy as jnp
import jaxlib
from jax import Array

from jax_alexnet.ops.cpu import proof
from jax_alexnet.ops.cpu.switches import switched_off

Edges = tuple[tuple[int, int], tuple[int, int]]

# Who is asked on CPUs; the last two leave oneDNN out of everything, biases and fully connected layers included.
CpuForm = Literal["auto", "onednn", "winograd", "xla"]

# The environment variable that leaves oneDNN out of everything, with `off`, in every program.
SWITCH = "JAX_ALEXNET_ONEDNN"

# What oneDNN computes with; with less it has waited for ever. And what it computes bfloat16 with: processors without it
# would convert each number.
_FLAGS = {"avx2"}
_BFLOAT16_FLAGS = {"avx512bw", "avx512dq", "avx512vl", "avx512_bf16"}

# Values of oneDNN's own variable for the instructions that it may use, by which it is left without AVX2.
_BELOW_AVX2 = ("SSE41", "AVX")

# What JAX says where it can't keep a program with such calls (`jax._src.compiler`); the program runs all the same.
_NOT_KEPT = "Error writing persistent compilation cache entry for .*: MemoryError: std::bad_alloc"


def reason_against(dtype: jnp.dtype) -> str | None:
    """Why oneDNN can't be used for maps of this dtype in this process, or None if it can.

    Where nothing else is against it, it is tried, in a process of its own, unless the answer is kept from before.

    Raises:
        UserError: the environment variable `SWITCH` says neither on nor off.
    """
    if dtype not in (jnp.float32, jnp.bfloat16):
        return f"it has no convolutions in {dtype}"
    if switched_off(SWITCH):
        return f"{SWITCH}={os.environ[SWITCH]} leaves it out"
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"it is for Linux on x86_64, not {platform.system()} on {platform.machine()}"
    flags = set(proof.processor().get("flags", "").split())
    if missing := _FLAGS - flags:
        return f"it needs {', '.join(missing).upper()}, which the processor lacks"
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        if (limit := os.environ.get(name, "")).upper() in _BELOW_AVX2:
            return f"it needs AVX2, which {name}={limit} doesn't let it use"
    if dtype == jnp.bfloat16 and (missing := _BFLOAT16_FLAGS - flags):
        return f"for bfloat16 the processor lacks {', '.join(sorted(missing))}"
    if (platform_used := jax.default_backend()) != "cpu":
        return f"it computes on CPUs, and this process on devices of the kind {platform_used}"
    return proof.reason_against(jnp.dtype(dtype).name)


def usable(dtype: jnp.dtype, cpu: CpuForm) -> bool:
    """Whether oneDNN computes on CPUs what it can for maps of this dtype, where `cpu` is asked for."""
    return cpu in ("auto", "onednn") and reason_against(dtype) is None


def status(dtype: jnp.dtype, cpu: CpuForm = "auto", device: str = "cpu") -> str:
    """A line that says whether oneDNN computes convolutions, and if not, why.

    Args:
        dtype: of the activations.
        cpu: who is asked, as `--cpu-convolution` names it.
        device: the platform of the devices in use, such as `cpu` or `gpu`.
    """
    dtype = jnp.dtype(dtype)
    if device != "cpu":
        return f"oneDNN is not used: it computes on CPUs, and the devices are of the kind {device}"
    if cpu not in ("auto", "onednn"):
        return f"oneDNN is not used: --cpu-convolution {cpu} leaves it out"
    reason = reason_against(dtype)
    if reason is None:
        return f"oneDNN computes convolutions in {dtype} on this CPU (checked here with jaxlib {jaxlib.__version__})"
    slower = "" if dtype == jnp.float64 else "; XLA's own forms take its place, which are slower"
    return f"oneDNN is not used: {reason}{slower}"


def convolve(
    x: Array, kernel: Array, *, stride: int = 1, dilation: int = 1, edges: Edges, groups: int = 1, dtype: Any = None
) -> Array:
    """Cross-correlation on CPUs; sums are accumulated in float32.

    Args:
        x: maps (batch, height, width, channels), of a dtype that `reason_against` has nothing against.
        kernel: (rows, columns, channels / groups, features), of the same, and varying over the same axes of a mesh.
        stride: step in pixels.
        dilation: pixels from one weight to the next.
        edges: zeros above and below, and left and right, of each map.
        groups: consecutive channels and features that see only each other.
        dtype: of the result, that of `x` or float32.

    Returns:
        Maps (batch, height', width', features) in `dtype`, or in that of `x`.
    """
    places = [
        (n + sum(edge) - dilation * (window - 1) - 1) // stride + 1
        for n, edge, window in zip(x.shape[1:3], edges, kernel.shape[:2], strict=True)
    ]
    result = jax.typeof(x).update(shape=(len(x), *places, kernel.shape[3]), dtype=jnp.dtype(dtype or x.dtype))
    return _call("convolution", result, _description(stride, dilation, edges, groups), x, kernel)


def product(a: Array, b: Array, *, transpose_a: bool = False, transpose_b: bool = False) -> Array:
    """Matrix product on CPUs.

    Args:
        a: (rows, terms), of a dtype that `reason_against` has nothing against.
        b: (terms, columns), of the same, and varying over the same axes of a mesh.
        transpose_a: whether `a` lies as (terms, rows).
        transpose_b: whether `b` lies as (columns, terms).

    Returns:
        (rows, columns) in float32.
    """
    shape = a.shape[1 if transpose_a else 0], b.shape[0 if transpose_b else 1]
    result = jax.typeof(a).update(shape=shape, dtype=jnp.dtype(jnp.float32))
    config = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    return _call("matmul", result, {"onednn_matmul_config": config}, a, b)


def _call(name: str, result: Any, description: dict[str, Any], *operands: Array) -> Array:
    if jax.config.values.get("jax_compilation_cache_dir") is not None:
        warnings.filterwarnings("ignore", message=_NOT_KEPT, category=UserWarning)
    call = jax.ffi.ffi_call(
        f"__onednn${name}",
        result,
        custom_call_api_version=2,
        legacy_backend_config=json.dumps(description),
        vmap_method="sequential",
    )
    return call(*operands)


def _description(stride: int, dilation: int, edges: Edges, groups: int) -> dict[str, Any]:
    """The call's OneDnnConvolutionConfig: axes of NHWC maps and an HWIO kernel, and the window's steps."""
    maps = {"dims": 4, "data": {"batch_dim": 0, "feature_dim": 3, "spatial_dims": [1, 2]}}
    kernel = {"dims": 4, "filter": {"input_feature_dim": 2, "output_feature_dim": 3, "spatial_dims": [0, 1]}}
    window = {
        "pad_left": [low for low, _ in edges],
        "pad_right": [high for _, high in edges],
        "strides": [stride, stride],
        "window_dilations": [dilation, dilation],
    }
    described = {"dims": 4, "input": maps, "kernel": kernel, "output": maps, "window": window, "feature_groups": groups}
    return {"onednn_conv_config": described}
