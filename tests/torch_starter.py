"""Two processes of the reference as torchrun would start them, without itself: PyTorch is imported once for all."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# For each line of JSON it makes two processes, which begin with what it has imported and end as any other does; then
# it says how the first one ended. Once that has failed the second is ended, as torchrun would.
STARTER = """
import json, os, runpy, signal, sys
import torch, torch.distributed
import torch._dynamo  # PyTorch's optimizers import it at their first step
import torch_ref.engine, torch_ref.run_setup, torch_ref.train, torch_ref.train_command
import tests.test_torch_train_processes

print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    children = []
    for rank, files in enumerate(order["files"]):
        if child := os.fork():
            children.append(child)
            continue
        for descriptor, file in enumerate((os.devnull, *files)):
            os.dup2(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), descriptor)
        os.environ.update(order["place"], RANK=str(rank), LOCAL_RANK=str(rank))
        sys.argv = order["words"]
        if sys.argv[0] == "-m":
            del sys.argv[0]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit()
    first, second = children
    code = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    if code:
        os.kill(second, signal.SIGTERM)
    os.waitpid(second, 0)
    print(code, flush=True)
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def started(environment: dict[str, str], directory: Path) -> Iterator[Run]:
    """What runs a script, or `-m` a module, with its words in two processes: what both said, the first's exit code."""
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=directory,
        env=environment, start_new_session=True,
    )  # fmt: skip
    assert starter.stdin is not None and starter.stdout is not None
    orders, answers = starter.stdin, starter.stdout

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as folder:
            files = [[f"{folder}/{name}{rank}" for name in ("out", "err")] for rank in range(2)]
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
            order = {"words": [str(word) for word in words], "files": files, "place": place}
            timer = threading.Timer(120, os.killpg, (starter.pid, signal.SIGKILL))
            timer.start()
            print(json.dumps(order), file=orders, flush=True)
            code = answers.readline()
            timer.cancel()
            assert code, "the processes had not ended after two minutes"
            texts = ["".join(Path(file).read_text() for file in each) for each in zip(*files, strict=True)]
        return subprocess.CompletedProcess([str(word) for word in words], int(code), *texts)

    try:
        assert answers.readline() == "ready\n"
        yield run
    finally:
        orders.close()
        try:
            starter.wait(20)
        finally:
            starter.kill()
            answers.close()
