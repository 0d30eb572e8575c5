"""A step of PyTorch to be timed, plain or tuned; on several devices one process each, under DDP."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from parity.speed import checks, processes, torch_forms
from parity.speed.workload import LEARNING_RATE, MOMENTUM, TUNED_FORM, WEIGHT_DECAY, Workload
from torch_ref import alexnet


class Job:
    """The network with its optimizer and batch on this process's device."""

    def __init__(self, workload: Workload, weights: Path) -> None:
        self.workload = workload
        self.rank = int(os.environ.get("RANK", "0"))
        self.gpu = torch.cuda.is_available()
        self.device = torch.device("cuda", self.rank) if self.gpu else torch.device("cpu")
        if self.gpu:
            torch.cuda.set_device(self.device)
        tf32 = workload.precision == "tf32"
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True
        state = checks.read_weights(weights)
        self.weights = {name: torch.from_numpy(value) for name, value in state.items()}
        self.classes = len(self.weights[[name for name in self.weights if name.endswith(".bias")][-1]])
        self.form = workload.form or TUNED_FORM
        if workload.devices > 1:
            torch.distributed.init_process_group("nccl" if self.gpu else "gloo")
        self.bare, self.network = self._networks(dropout=True)
        self.optimizer = self._optimizer(self.bare)
        rng = np.random.default_rng(0)
        shape = workload.batch_size, workload.image_size, workload.image_size, 3
        self.whole = rng.integers(0, 256, shape, np.uint8), rng.integers(0, self.classes, shape[0])
        share = shape[0] // workload.devices
        self.images, self.labels = self._batch(slice(self.rank * share, (self.rank + 1) * share))

    def _networks(self, dropout: bool) -> tuple[Any, Any]:
        """The style's network with the shared weights, bare and in the form that runs."""
        w = self.workload
        bare = torch_forms.network(w.model, self.classes, w.image_size, self.form, dropout)
        bare.load_state_dict(self.weights)
        bare, self.layout = torch_forms.arranged(bare.to(self.device, self._weights_dtype), self.form)
        trained: Any = bare
        if w.devices > 1:
            ids = [self.device.index] if self.gpu else None
            trained = torch.nn.parallel.DistributedDataParallel(bare, device_ids=ids, gradient_as_bucket_view=True)
        return bare, torch_forms.compiled(trained, self.form, self.gpu)

    def _optimizer(self, module: Any) -> Any:
        fused = self.workload.style == "tuned"
        return torch.optim.SGD(
            module.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, fused=fused or None
        )

    def _batch(self, part: slice) -> tuple[Any, Any]:
        images, labels = (torch.from_numpy(array[part]) for array in self.whole)
        images = images.permute(0, 3, 1, 2).contiguous(memory_format=self.layout)
        return images.to(self.device), labels.to(self.device)

    @property
    def _weights_dtype(self) -> Any:
        """In tuned inference that of the activations, so that no step casts them."""
        w = self.workload
        return torch.bfloat16 if (w.mode, w.style, w.precision) == ("infer", "tuned", "bfloat16") else torch.float32

    def _autocast(self) -> Any:
        half = self.workload.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16) if half else contextlib.nullcontext()

    def warm_compiler(self) -> None:
        """Compile next to nothing: what a new installation does once, C++ headers above all, is no network's cost."""
        torch_forms.compiled(lambda x: x + 1, self.form, self.gpu)(torch.ones(8, device=self.device))

    def run(self, steps: int) -> None:
        """Whole steps; returns when the device is done."""
        for _ in range(steps):
            self._step(self.bare, self.network, self.optimizer, self.images, self.labels)
        if self.gpu:
            torch.cuda.synchronize()

    def _step(self, bare: Any, network: Any, optimizer: Any, images: Any, labels: Any) -> Any:
        """One step; returns the logits."""
        if self.workload.mode == "infer":
            bare.eval()
            dtype = next(bare.parameters()).dtype
            with torch.inference_mode(), self._autocast():
                return network((images.float() / 127.5 - 1).to(dtype))
        bare.train()
        optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            logits = network(images.float() / 127.5 - 1)
            loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        return logits.detach()

    def lead(self, what: str, *arguments: Any) -> Any:
        """Do something on all processes; returns what this one gives."""
        if self.workload.devices > 1:
            torch.distributed.broadcast_object_list([what, arguments], src=0)
        return getattr(self, what)(*arguments)

    def follow(self) -> None:
        """Do what the first process says, until it is gone."""
        while True:
            question: list[Any] = [None, None]
            try:
                torch.distributed.broadcast_object_list(question, src=0)
            except RuntimeError:  # the leader has ended
                return
            getattr(self, question[0])(*question[1])

    def check(self, file: str, reference: str | None = None) -> dict[str, Any]:
        """Write `logits` of the first images and, in training, the velocities after one step from the weights.

        Args:
            file: of what the form that is timed gives.
            reference: file of what `torch_ref`'s own network gives, uncompiled, if it is wanted.
        """
        self.lead("outcome", file)
        if reference is not None:
            self._reference(reference)
        return {"file": file, "reference": reference}

    def outcome(self, file: str) -> None:
        """Write what the form that is timed gives, in training without dropout."""
        bare, network = (self.bare, self.network) if self.workload.mode == "infer" else self._networks(dropout=False)
        optimizer = self._optimizer(bare)
        logits = self._step(bare, network, optimizer, self.images, self.labels)
        if self.rank == 0:
            self._write(file, bare, optimizer, logits)

    def _reference(self, file: str) -> None:
        w = self.workload
        dropout = 0.0 if w.model in alexnet.HAVE_DROPOUT else None
        bare = alexnet.build(w.model, self.classes, w.image_size, dropout=dropout)
        bare.load_state_dict(self.weights)
        bare.to(self.device)
        images, labels = self._batch(slice(None))
        optimizer = self._optimizer(bare)
        self._write(file, bare, optimizer, self._step(bare, bare, optimizer, images, labels))

    def _write(self, file: str, bare: Any, optimizer: Any, logits: Any) -> None:
        found = {checks.LOGITS: logits[: checks.IMAGES].float().cpu().numpy()}
        if self.workload.mode == "train":
            for name, parameter in bare.named_parameters():
                found[name] = optimizer.state[parameter]["momentum_buffer"].cpu().numpy()
        np.savez(file, **found)

    def timed(self, steps: int) -> dict[str, float]:
        """Seconds of so many steps."""
        began = time.perf_counter()
        self.lead("run", steps)
        return {"seconds": time.perf_counter() - began}

    def ceilings(self) -> dict[str, float]:
        """A large matrix product in the precision, and a copy; the best of five."""
        # Alone for a moment: on all cores, as the other side's devices are together.
        processes.pin(self.workload.threads)
        torch.set_num_threads(self.workload.threads)
        side = 8192 if self.gpu else 2048
        dtype = torch.bfloat16 if self.workload.precision == "bfloat16" else torch.float32
        a = torch.ones((side, side), dtype=dtype, device=self.device)
        long = torch.ones(1 << (28 if self.gpu else 25), device=self.device)
        seconds = [_best(lambda: a @ a, self.gpu), _best(lambda: long + 1, self.gpu)]
        share = max(self.workload.threads // self.workload.devices, 1)
        processes.pin(share, share * int(os.environ.get("RANK", "0")))
        torch.set_num_threads(share)
        size = long.numel() * long.element_size()
        return {"flops": 2.0 * side**3 / seconds[0], "bytes_per_second": 2.0 * size / seconds[1]}

    def peak(self) -> dict[str, int]:
        """Of this process's device, or of the process."""
        return {"bytes": torch.cuda.max_memory_allocated() if self.gpu else processes.process_peak()}


def _best(function: Any, gpu: bool) -> float:
    found = []
    for _ in range(6):
        began = time.perf_counter()
        function()
        if gpu:
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return min(found[1:])
