"""Times PyTorch, plain or tuned; on several devices one process each, under DDP."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from parity.speed import processes
from parity.speed.workload import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Workload


def main(arguments: list[str]) -> None:
    """Build the workload, then serve; the first process leads the others."""
    workload = Workload(**json.loads(arguments[0]))
    processes.claim_output()
    leads = "RANK" not in os.environ
    if workload.devices > 1 and leads:
        _start_others(workload, arguments)
    share = max(workload.threads // workload.devices, 1)
    processes.pin(share, share * int(os.environ.get("RANK", "0")))
    import torch

    torch.set_num_threads(share)
    job = Job(workload, Path(arguments[1]))
    if not leads:
        job.follow()
        return
    logits = job.logits()
    began = time.perf_counter()
    job.lead("run", 1)
    facts = {
        "compile_seconds": time.perf_counter() - began,
        "logits": logits,
        "versions": {"torch": torch.__version__},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "flags": {
            "threads": torch.get_num_threads(), "mkldnn": torch.backends.mkldnn.is_available(),
            "matmul_precision": torch.get_float32_matmul_precision(),
        },
        "count": workload.devices,
    }  # fmt: skip
    processes.serve(facts, {"run": job.timed, "ceilings": job.ceilings, "peak": job.peak})


def _start_others(workload: Workload, arguments: list[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(workload.devices), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for rank in range(1, workload.devices):
        environment = os.environ | shared | {"RANK": str(rank)}
        subprocess.Popen([sys.executable, "-m", "parity.speed.torch_worker", *arguments], env=environment)
    os.environ.update(shared)
    os.environ["RANK"] = "0"


class Job:
    """The network with its optimizer and batch on this process's device."""

    def __init__(self, workload: Workload, weights: Path) -> None:
        import numpy as np
        import torch
        from safetensors.torch import load_file

        from parity.speed import torch_forms

        self.workload = workload
        rank = int(os.environ.get("RANK", "0"))
        self.gpu = torch.cuda.is_available()
        self.device = torch.device("cuda", rank) if self.gpu else torch.device("cpu")
        tf32 = workload.precision == "tf32"
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True
        state = load_file(weights)
        classes = next(reversed(list(state.values()))).shape[0]
        last = [name for name in state if name.endswith(".bias")][-1]
        classes = state[last].shape[0]
        module = torch_forms.network(workload.model, classes, workload.image_size, workload.style)
        module.load_state_dict(state)
        form = workload.form or torch_forms.TUNED_FORM
        module, layout = torch_forms.arranged(module.to(self.device), form)
        self.bare = module
        trained: Any = module
        if workload.devices > 1:
            torch.distributed.init_process_group("nccl" if self.gpu else "gloo")
            ids = [self.device.index] if self.gpu else None
            trained = torch.nn.parallel.DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True)
        self.network = torch_forms.compiled(trained, form, self.gpu)
        fused = workload.style == "tuned"
        self.optimizer = torch.optim.SGD(
            module.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, fused=fused or None
        )
        rng = np.random.default_rng(0)
        shape = workload.batch_size, workload.image_size, workload.image_size, 3
        images = torch.from_numpy(rng.integers(0, 256, shape, np.uint8)).permute(0, 3, 1, 2)
        labels = torch.from_numpy(rng.integers(0, classes, shape[0]))
        share = shape[0] // workload.devices
        mine = slice(rank * share, (rank + 1) * share)
        self.images = images[mine].contiguous(memory_format=layout).to(self.device)
        self.labels = labels[mine].to(self.device)
        self.layout = layout

    def _input(self, images: Any) -> Any:
        return images.float() / 127.5 - 1

    def _autocast(self) -> Any:
        import torch

        half = self.workload.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16) if half else contextlib.nullcontext()

    def logits(self) -> list[list[float]]:
        """Of the first images, in evaluation mode, with the shared weights; uncompiled."""
        import torch

        self.bare.eval()
        with torch.no_grad(), self._autocast():
            return self.bare(self._input(self.images[:4])).double().tolist()

    def run(self, steps: int) -> None:
        """Whole steps; returns when the device is done."""
        import torch
        import torch.nn.functional as F

        if self.workload.mode == "infer":
            self.bare.eval()
            with torch.inference_mode(), self._autocast():
                for _ in range(steps):
                    self.network(self._input(self.images))
        else:
            self.bare.train()
            for _ in range(steps):
                self.optimizer.zero_grad(set_to_none=True)
                with self._autocast():
                    loss = F.cross_entropy(self.network(self._input(self.images)).float(), self.labels)
                loss.backward()
                self.optimizer.step()
        if self.gpu:
            torch.cuda.synchronize()

    def lead(self, what: str, steps: int) -> None:
        """Run on all processes."""
        if self.workload.devices > 1:
            import torch

            torch.distributed.broadcast_object_list([what, steps], src=0)
        self.run(steps)

    def follow(self) -> None:
        """Do what the first process says, until it is gone."""
        import torch

        while True:
            question: list[Any] = [None, None]
            try:
                torch.distributed.broadcast_object_list(question, src=0)
            except RuntimeError:  # the leader has ended
                return
            self.run(question[1])

    def timed(self, steps: int) -> dict[str, float]:
        """Seconds of so many steps."""
        began = time.perf_counter()
        self.lead("run", steps)
        return {"seconds": time.perf_counter() - began}

    def ceilings(self) -> dict[str, float]:
        """A large matrix product in the precision, and a copy; the best of five."""
        import torch

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
        import torch

        return {"bytes": torch.cuda.max_memory_allocated() if self.gpu else processes.process_peak()}


def _best(function: Any, gpu: bool) -> float:
    import torch

    found = []
    for _ in range(6):
        began = time.perf_counter()
        function()
        if gpu:
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return min(found[1:])


if __name__ == "__main__":
    processes.told(main)
