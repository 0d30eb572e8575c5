"""A state's arrays: named by their place in the tree, copied to the host, written and read by orbax.

orbax is imported where arrays are: it takes seconds, and evaluation of an export does without.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from alexnet_io.command_line.printing import printable
from alexnet_io.files import atomic_file
from jax_alexnet.files import manifest as manifests
from jax_alexnet.files.manifest import DamagedCheckpoint, Manifest

STATE = "state"


def to_host(state: Any, *, copy: bool = False) -> dict[str, np.ndarray]:
    """The leaves of a pytree as numpy arrays by name, such as "params/conv1/kernel".

    Args:
        state: a pytree of arrays and numbers; typed PRNG keys become their data.
        copy: whether the arrays must stay as they are when `state` changes or is donated.

    Raises:
        ValueError: a leaf is spread over several processes, or two leaves have one name.
    """
    leaves = {
        name: jax.random.key_data(leaf) if _is_key(leaf) else leaf for name, leaf in named_leaves(state)[0].items()
    }
    for name, leaf in leaves.items():
        if isinstance(leaf, jax.Array):
            if not (leaf.is_fully_addressable or leaf.is_fully_replicated):
                raise ValueError(f"{name} is spread over processes: gather it before saving")
            leaf.copy_to_host_async()
    arrays = {}
    for name, leaf in leaves.items():
        array = np.asarray(leaf)
        # On a CPU asarray hands out the device's own memory, which donation would overwrite.
        ours = isinstance(leaf, jax.Array) and array.flags.owndata
        arrays[name] = np.array(array) if copy and not ours else array
    return arrays


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays as an orbax checkpoint at `path`, forced to the disk.

    Raises:
        OSError: the disk is full or not writable, however orbax reports it.
    """
    try:
        _orbax().save(path, _nested(arrays))
    except OSError:
        raise
    except Exception as error:  # tensorstore reports a full disk as a ValueError
        code = re.search(r"os_error_code='(\d+)'", str(error))
        if code:
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
        raise OSError(_first_line(error)) from error
    for folder, _, files in os.walk(path):
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                os.fsync(file.fileno())
        atomic_file.sync_directory(Path(folder))


def read_arrays(path: Path, manifest: Manifest, names: list[str]) -> dict[str, np.ndarray]:
    """Reads the arrays called `names` of the checkpoint at `path` and compares them with their digests.

    Raises:
        DamagedCheckpoint: they aren't what the manifest says.
        UserError: a file can't be read for lack of permission.
    """
    import orbax.checkpoint as ocp

    manifests.check_files(path, manifest)
    wanted = _nested({name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names})
    like = _nested({name: np.empty((0,)) for name in names})
    try:
        arguments = ocp.args.PyTreeRestore(item=like, restore_args=wanted, partial_restore=True)
        nested = _orbax().restore(path / STATE, args=arguments)
        arrays = {name: np.asarray(_at(nested, name)) for name in names}
    except MemoryError:
        raise
    except Exception as error:
        raise DamagedCheckpoint(f"{printable(path)} can't be read ({_first_line(error)})") from error
    for name, leaf in manifests.describe(arrays).items():
        if leaf != manifest.leaves[name]:
            raise DamagedCheckpoint(f"{printable(path)}: {name} isn't what was saved (its digest differs)")
    return arrays


def _orbax() -> Any:
    """An orbax checkpointer for this process alone.

    One raw file per array is the fastest of orbax's settings: 700 MB of float32 took 0.4 s to write on two
    cores, against 1.8 s with OCDBT, whose merging writes everything twice, and 4.4 s with its default of OCDBT
    and compression, which made the files 8% smaller.
    """
    import orbax.checkpoint as ocp

    logging.getLogger("absl").addFilter(_worth_saying)
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
    )
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_compression=False, multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _worth_saying(record: logging.LogRecord) -> bool:
    """Not that OCDBT is off, which was our wish, nor errors that reach the user as ours."""
    message = str(record.msg)
    return "Skipping merge of OCDBT" not in message and "_SignalingThread.run() raised" not in message


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def named_leaves(tree: Any) -> tuple[dict[str, Any], Any]:
    """The leaves by path, in order, and the tree's structure."""
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}
    if len(leaves) != len(paths):
        raise ValueError("two leaves of the state have the same path")
    return leaves, structure


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *above, last = name.split("/")
        node = root
        for part in above:
            node = node.setdefault(part, {})
        node[last] = leaf
    return root


def _at(nested: Any, name: str) -> Any:
    for part in name.split("/"):
        nested = nested[part]
    return nested


def like(leaf: Any, array: np.ndarray) -> Any:
    """`array`, made a typed PRNG key if the template's `leaf` is one."""
    if not _is_key(leaf):
        return array
    return jax.random.wrap_key_data(jax.numpy.asarray(array), impl=jax.random.key_impl(leaf))


def _is_key(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def structure_differences(manifest: Manifest, leaves: Mapping[str, Any], partial: bool) -> list[str]:
    """How the template's leaves differ from those in the manifest, one line each, shapes first."""
    other, absent = [], []
    for name, leaf in leaves.items():
        saved = manifest.leaves.get(name)
        if saved is None:
            absent.append(f"{name} is not in the checkpoint")
            continue
        if _is_key(leaf):
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        shape, dtype = np.shape(leaf), np.dtype(getattr(leaf, "dtype", None) or np.asarray(leaf).dtype).name
        if (shape, dtype) != (saved.shape, saved.dtype):
            other.append(f"{name}: saved {saved.dtype}{list(saved.shape)}, asked for {dtype}{list(shape)}")
    extra = [] if partial else [f"{name} is only in the checkpoint" for name in sorted(manifest.leaves.keys() - leaves)]
    return other + absent + extra
