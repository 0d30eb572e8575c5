"""What the environment says of the processes of a run: who started them, and what stands between them. No JAX here."""

import os
import re
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass

from alexnet_io.errors import UserError

# Without one of them JAX doesn't take a process for one that srun started.
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")


@dataclass(frozen=True)
class Launcher:
    """Who started several processes.

    Attributes:
        name: SLURM or Open MPI.
        processes: how many.
        variables: the environment's that say so.
        host: of the first process.
    """

    name: str
    processes: int
    variables: tuple[str, ...]
    host: str

    def __str__(self) -> str:
        said = ", ".join(f"{name}={os.environ.get(name, '')}" for name in self.variables)
        return f"{self.name} started {self.processes} ({said}); to train in this one alone: --num-processes 1"


def find_launcher(environment: Mapping[str, str]) -> Launcher | None:
    """Who started this process as one of several, so that JAX can ask for the others; None for a process on its own.

    A shell in a SLURM job isn't one of the job's tasks: its step has one, whatever the job was asked for.

    Raises:
        UserError: started by an MPI that doesn't say where the first process runs.
    """
    count = _number(environment, "OMPI_COMM_WORLD_SIZE")
    if count > 1:
        uri = environment.get("OMPI_MCA_orte_hnp_uri")
        if uri is None:
            raise _no_address("this Open MPI", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", count)
        found = re.search(r"tcp://(.+?)[,:]|tcp6://\[(.+?)[,\]]", uri)
        host = next(filter(None, found.groups())) if found else ""
        return Launcher("Open MPI", count, ("OMPI_COMM_WORLD_SIZE", "OMPI_MCA_orte_hnp_uri"), host)
    if all(name in environment for name in _SLURM):
        tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
        count = _number(environment, tasks)
        if count > 1:
            host = _first_node(environment["SLURM_STEP_NODELIST"])
            return Launcher("SLURM", count, (tasks, "SLURM_STEP_NODELIST", "SLURM_PROCID"), host)
        return None
    count = _number(environment, "PMI_SIZE")
    if count > 1:
        raise _no_address("this MPI (PMI)", "PMI_SIZE", "PMI_RANK", count)
    return None


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    return int(value) if value.isdecimal() else 1


def _first_node(nodes: str) -> str:
    """Of a list such as `node[001-004,7],other`."""
    found = re.match(r"([^,\[]*)(?:\[([^,\]-]*))?", nodes)
    return "".join(filter(None, found.groups())) if found else nodes


def _no_address(who: str, size: str, rank: str, count: int) -> UserError:
    return UserError(
        f"{who} started {count} processes ({size}={count}) and doesn't say where the first one runs: give "
        f'--coordinator HOST:PORT, --num-processes "${size}" and --process-id "${rank}", or --num-processes 1 to train '
        "in each alone"
    )


def is_local(host: str) -> bool:
    """Whether a host's name or address is this machine's own, which no other machine reaches."""
    return host == "localhost" or host.startswith("127.") or host.strip("[]") == "::1"


def proxies(environment: Mapping[str, str]) -> list[str]:
    """Names of the variables that are set and name a proxy."""
    return [name for each in _PROXIES for name in (each, each.upper()) if environment.get(name)]


def spare_proxies(environment: MutableMapping[str, str], host: str) -> None:
    """Where proxies are set, say in `no_proxy` that none is asked for `host`; what it says already stays.

    JAX's processes speak gRPC with each other, and that would ask a proxy for HTTP to carry it.
    """
    if not proxies(environment):
        return
    # Where the last one is set, gRPC doesn't look at the others.
    for name in ("no_proxy", "NO_PROXY", *(["no_grpc_proxy"] if "no_grpc_proxy" in environment else [])):
        listed = [word for word in environment.get(name, "").split(",") if word]
        environment[name] = ",".join(listed if host in listed else [*listed, host])


@contextmanager
def unproxied() -> Iterator[None]:
    """Nothing about proxies in this process's environment: what connects meanwhile asks none, and JAX warns of none."""
    kept = {name: os.environ.pop(name) for name in [*os.environ] if "_proxy" in name.lower()}
    try:
        yield
    finally:
        os.environ.update(kept)
