"""The processes of one run and the device of each: one process alone, or those that torchrun started."""

import contextlib
import datetime
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from alexnet_io.errors import FailedRun, UserError
from torch_ref import launch

T = TypeVar("T")
# How gloo names a peer that is gone; NCCL's errors have a class of their own.
_GONE = ("gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused")


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: which one this is, from 0; process 0 writes the run's files and speaks.
        count: how many there are.
        device: where this one computes.
        patient: a gloo group in which one process may keep the others waiting; None for a process alone.
    """

    rank: int
    count: int
    device: torch.device
    patient: Any = field(default=None, repr=False)

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    @property
    def device_name(self) -> str:
        """What this one computes on, for people."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    def say(self, text: str) -> None:
        """Print a line, once for all processes."""
        if self.first:
            print(text, flush=True)

    def add_up(self, values: Tensor) -> Tensor:
        """Sums of a float64 tensor (n,) over all processes, which take its place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def mean_gradients_equal(self, network: nn.Module) -> nn.Module:
        """The network as it is trained: under several processes, their gradients are averaged (DDP)."""
        if self.count == 1:
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids)

    def gather(self, value: Any) -> list[Any]:
        """What every process has, in the order of their ranks."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=self.patient)
        return values

    def from_first(self, value: Any) -> Any:
        """What process 0 has."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.patient)
        return values[0]

    def first_then_others(self, work: Callable[[], T]) -> T:
        """What `work` gives, done by process 0 first, which may leave files for the others.

        Raises:
            UserError: in all processes, with the same words, if `work` raised one in any.
        """
        done: list[T] = []
        for turn in (True, False):
            wrong = None
            if turn == self.first:
                try:
                    done.append(work())
                except UserError as error:
                    wrong = str(error)
            wrong = next(filter(None, self.gather(wrong)), None)
            if wrong:
                raise UserError(wrong)
        return done[0]

    def fail(self, text: str) -> NoReturn:
        """End the run over something that all processes found alike; the first one says it."""
        if not self.first:
            launch.end_after_the_first(launch.FAILED)
        raise FailedRun(text)


@contextlib.contextmanager
def processes(wanted: str, batch_size: int) -> Iterator[Processes]:
    """Join the other processes, if torchrun started several, and leave them at the end.

    Args:
        wanted: what `--devices` says.
        batch_size: over all processes.

    Raises:
        UserError: another process of the run ended while this one needed it.
    """
    count, rank = launch.count(), launch.rank()
    with launch.said_once():
        device = choose_device(wanted)
        if batch_size % count:
            lower, upper = batch_size // count * count, -(-batch_size // count) * count
            near = f"{lower} or {upper}" if lower else str(upper)
            raise UserError(
                f"--batch-size {batch_size} can't be shared evenly by {count} processes: use {near}, or another "
                "--nproc-per-node"
            )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if count == 1:
        yield Processes(rank, count, device)
        return
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        # The first process may prepare a data set for hours.
        patient = dist.new_group(backend="gloo", timeout=datetime.timedelta(days=7))
        yield Processes(rank, count, device, patient)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(words in str(error) for words in _GONE):
            raise
        raise UserError(
            f"process {rank} of {count} can't reach another one of its run, which failed or was killed: what that "
            "one or torchrun says names the reason; go on from the last checkpoint with --resume"
        ) from None
    # Not after an error: a process that lost another would wait for it here.
    dist.destroy_process_group()


def set_precision(precision: str) -> torch.dtype:
    """Set the rounding of float32 products on GPUs, and return the dtype of the weights."""
    rounding = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = rounding
    torch.backends.cudnn.conv.fp32_precision = rounding  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.cudnn.benchmark = False  # picks kernels by their speed, which changes from run to run
    torch.backends.cudnn.deterministic = True
    return torch.float64 if precision == "float64" else torch.float32


def choose_device(wanted: str) -> torch.device:
    """This process's device among those that `--devices` names for the processes of this machine.

    Raises:
        UserError: not of that form, not there, or not as many as there are processes.
    """
    count = launch.local_count()
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    ids = _ids(wanted, there, count)
    if len(ids) == count:
        return torch.device("cuda", ids[launch.local_rank()]) if there else torch.device("cpu")
    if launch.count() > 1:
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


def _ids(wanted: str, there: int, count: int) -> list[int]:
    """The ids that `--devices` names; a CPU serves any number of processes."""
    what = f"this machine has {there} CUDA device(s)" if there else "this machine has no CUDA device, only its CPU"
    if wanted == "all":
        if there and count > there:
            raise UserError(f"torchrun started {count} processes, but {what}: use --nproc-per-node {there}")
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
