"""XLA's GPU compiler on machines without a GPU: where it lies, and the GPUs that it compiles for.

The compiler is JAX's CUDA plugin without NVIDIA's libraries. It lies in a folder of its own, not among the packages
that Python imports: JAX loads every plugin that it finds there, and complains about one that has no GPU. JAX itself is
imported where something is compiled: which GPUs there are to choose from is known without.
"""

import importlib.metadata
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_io.errors import UserError

# `make gpu-compiler` installs into it.
FOLDER = Path(sys.prefix) / "gpu-compiler"


@dataclass(frozen=True)
class Gpu:
    """What the compiler and the model of time know of a GPU; from NVIDIA's data sheets and tuning guides.

    Attributes:
        name: as its driver would say it.
        capability: CUDA compute capability.
        processors: streaming multiprocessors.
        clock: boost clock in GHz.
        memory: bytes on the card.
        bandwidth: of its memory in bytes a second.
        cache: second-level cache in bytes.
        shared_memory: bytes a multiprocessor, and of them for one block.
        threads: a multiprocessor.
        lanes: float32 units a multiprocessor.
        link: bytes a second that it can send to its neighbours in the box, NVLink, one direction.
        arithmetic: dense operations a second by precision, tensor cores included where the precision has them.
    """

    name: str
    capability: tuple[int, int]
    processors: int
    clock: float
    memory: int
    bandwidth: float
    cache: int
    shared_memory: tuple[int, int]
    threads: int
    lanes: int
    link: float
    arithmetic: dict[str, float]


GPUS = {
    "h100": Gpu(
        "NVIDIA H100 80GB HBM3", (9, 0), 132, 1.98, 84_929_347_584, 3.35e12, 52_428_800, (233_472, 232_448), 2048, 128,
        450e9, {"bfloat16": 989e12, "tf32": 494e12, "float32": 67e12, "float64": 67e12},
    ),
    "a100": Gpu(
        "NVIDIA A100-SXM4-80GB", (8, 0), 108, 1.41, 85_094_825_984, 2.04e12, 41_943_040, (167_936, 166_912), 2048, 64,
        300e9, {"bfloat16": 312e12, "tf32": 156e12, "float32": 19.5e12, "float64": 19.5e12},
    ),
    # No bfloat16 tensor cores and no TF32: both are computed in float32.
    "v100": Gpu(
        "Tesla V100-SXM2-32GB", (7, 0), 80, 1.53, 34_089_730_048, 0.9e12, 6_291_456, (98_304, 98_304), 2048, 64,
        150e9, {"bfloat16": 15.7e12, "tf32": 15.7e12, "float32": 15.7e12, "float64": 7.8e12},
    ),
    # For comparison with what was published of it in 2017; no tensor cores at all.
    "p100": Gpu(
        "Tesla P100-SXM2-16GB", (6, 0), 56, 1.48, 17_071_734_784, 0.732e12, 4_194_304, (65_536, 49_152), 2048, 64,
        80e9, {"bfloat16": 10.6e12, "tf32": 10.6e12, "float32": 10.6e12, "float64": 5.3e12},
    ),
}  # fmt: skip


def described_devices(gpu: str, count: int) -> list[Any]:
    """`count` GPUs of a kind in one box, to compile for; nothing can run on them.

    The first call must come before anything else of JAX's has touched a device in this process.

    Raises:
        UserError: the compiler isn't installed, or JAX has started without it.
    """
    start()
    from jax.experimental import topologies

    with _unheard():
        topology = topologies.get_topology_desc(
            platform="cuda", topology_name=gpu, target_config=_target(GPUS[gpu]), topology=f"1x1x{count}"
        )
    return list(topology.devices)


@contextmanager
def _unheard() -> Iterator[None]:
    """Drops what C++ writes to stderr: the plugin says there that it found no driver, whatever its log level."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def start() -> None:
    """Make the compiler known to JAX, and let JAX compute on the CPU.

    Raises:
        UserError: as `described_devices`.
    """
    library = find()
    names = os.environ.get("PJRT_NAMES_AND_LIBRARY_PATHS", "")
    if f"cuda:{library}" in names.split(","):
        return
    from jax._src import xla_bridge  # no public name says whether a backend has been started

    if xla_bridge.backends_are_initialized():
        raise UserError("JAX is running already without the GPU compiler: describe GPUs in a process of their own")
    os.environ["PJRT_NAMES_AND_LIBRARY_PATHS"] = ",".join(filter(None, (names, f"cuda:{library}")))
    import jax

    jax.config.update("jax_platforms", "cpu")


def compile_options() -> dict[str, Any]:
    """What `lowered.compile` needs to find NVIDIA's assembler."""
    return {"xla_gpu_cuda_data_dir": str(_root() / "nvidia" / "cuda_nvcc")}


def find() -> Path:
    """The compiler's library.

    Raises:
        UserError: it isn't installed, or is of another version than JAX.
    """
    library = _root() / "jax_plugins" / "xla_cuda12" / "xla_cuda_plugin.so"
    version = importlib.metadata.version("jax")
    how = (
        f"Install it with `make gpu-compiler`, or: {sys.executable} -m pip install --no-deps --target {FOLDER} "
        f"jax-cuda12-pjrt=={version} nvidia-cuda-nvcc-cu12"
    )
    if not library.exists():
        raise UserError(f"XLA's GPU compiler is not installed: there is no {library}. {how}")
    found = [path.name.split("-")[1].removesuffix(".dist") for path in _root().glob("jax_cuda12_pjrt-*.dist-info")]
    if version not in found:
        raise UserError(f"XLA's GPU compiler is version {', '.join(found)}, but JAX is {version}. {how}")
    return library


def _root() -> Path:
    return Path(os.environ.get("ALEXNET_GPU_COMPILER", FOLDER))


def _target(gpu: Gpu) -> str:
    """The description in the text format that XLA reads."""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024  threads_per_warp: 32  threads_per_core_limit: {gpu.threads}
  shared_memory_per_block: 49152  shared_memory_per_core: {gpu.shared_memory[0]}
  shared_memory_per_block_optin: {gpu.shared_memory[1]}
  core_count: {gpu.processors}  fpus_per_core: {gpu.lanes}
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: {round(gpu.bandwidth)}  l2_cache_size: {gpu.cache}
  clock_rate_ghz: {gpu.clock}  device_memory_size: {gpu.memory}
  cuda_compute_capability {{ major: {gpu.capability[0]} minor: {gpu.capability[1]} }}
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
device_description_str: "{gpu.name}"
"""
