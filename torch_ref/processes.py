"""The processes of one run and the device of each: one process alone, or those that torchrun started."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from alexnet_io.errors import UserError


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: which one this is, from 0; process 0 writes the run's files and speaks.
        count: how many there are.
        device: where this one computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print a line, once for all processes."""
        if self.first:
            print(text, flush=True)

    def add_up(self, values: list[float]) -> list[float]:
        """Sums over all processes, in float64."""
        if self.count == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def mean_gradients_equal(self, network: torch.nn.Module) -> torch.nn.Module:
        """The network as it is trained: under several processes, their gradients are averaged (DDP)."""
        if self.count == 1:
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        return torch.nn.parallel.DistributedDataParallel(network, device_ids=ids)

    def gather(self, value: Any) -> list[Any]:
        """What every process has, in the order of their ranks."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Any) -> Any:
        """What process 0 has."""
        return self.gather(value)[0]

    @contextmanager
    def first_one_first(self) -> Iterator[None]:
        """Process 0 goes through the block before the others, for which it may leave files."""
        if self.count > 1 and not self.first:
            dist.barrier()
        yield
        if self.count > 1 and self.first:
            dist.barrier()


@contextmanager
def said_once() -> Iterator[None]:
    """Around what all processes find wrong alike: the first one says it, the others end without a word."""
    try:
        yield
    except UserError:
        if os.environ.get("RANK", "0") == "0":
            raise
        sys.exit(1)


@contextmanager
def processes(wanted: str, batch_size: int) -> Iterator[Processes]:
    """Join the other processes, if torchrun started several, and leave them at the end.

    Args:
        wanted: what `--devices` says.
        batch_size: over all processes.

    Raises:
        UserError: devices that aren't there or need torchrun; a batch that can't be shared evenly.
    """
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    with said_once():
        device = _device(wanted, count, int(os.environ.get("LOCAL_RANK", "0")))
        if batch_size % count:
            raise UserError(
                f"--batch-size {batch_size} can't be shared evenly by {count} processes: use a multiple of {count}, "
                f"such as {-(-batch_size // count) * count}"
            )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if count > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(rank, count, device)
    finally:
        if count > 1:
            dist.destroy_process_group()


def set_precision(precision: str) -> torch.dtype:
    """Set the rounding of float32 products on GPUs, and return the dtype of the weights."""
    rounding = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = rounding
    torch.backends.cudnn.conv.fp32_precision = rounding  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.cudnn.benchmark = False  # picks kernels by their speed, which changes from run to run
    torch.backends.cudnn.deterministic = True
    return torch.float64 if precision == "float64" else torch.float32


def _device(wanted: str, count: int, local_rank: int) -> torch.device:
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    ids = _ids(wanted, there, count)
    if len(ids) != count:
        if count > 1:
            raise UserError(
                f"--devices {wanted} names {len(ids)} devices, but torchrun started {count} processes: "
                f"leave --devices out, or use --nproc-per-node {len(ids)}"
            )
        visible = f"CUDA_VISIBLE_DEVICES={','.join(map(str, ids))} " if there and ids != list(range(len(ids))) else ""
        words = shlex.join(_without_devices(sys.argv[1:]))
        raise UserError(
            f"--devices {wanted} is {len(ids)} devices, and one process trains on one: for several, run "
            f"{visible}torchrun --nproc-per-node {len(ids)} -m torch_ref.train {words}".rstrip()
        )
    return torch.device("cuda", local_rank if count > 1 else ids[0]) if there else torch.device("cpu")


def _ids(wanted: str, there: int, count: int) -> list[int]:
    """The ids that `--devices` names; a CPU serves any number of processes."""
    what = f"this machine has {there} CUDA device(s)" if there else "this machine has no CUDA device, only its CPU"
    if wanted == "all":
        return list(range(count if count > 1 else max(there, 1)))
    words = [word.strip() for word in wanted.split(",") if word.strip()]
    if not words or not all(word.isdecimal() for word in words) or (("," not in wanted) and int(words[0]) < 1):
        raise UserError(f"--devices {wanted!r} is not all, a count or ids such as 0,2; {what}")
    ids = [int(word) for word in words] if "," in wanted else list(range(int(words[0])))
    if len(set(ids)) < len(ids):
        raise UserError(f"--devices {wanted} names a device twice; {what}")
    if (there and max(ids) >= there) or (not there and "," in wanted and ids != [0]):
        raise UserError(f"--devices {wanted}: there is no device {max(ids)}; {what}")
    return ids


def _without_devices(words: list[str]) -> list[str]:
    kept, skip = [], False
    for word in words:
        if not skip and not word.startswith("--devices"):
            kept.append(word)
        skip = not skip and word == "--devices"
    return kept
