"""Each parallel scheme's program compiled, costed, and carried on to more GPUs."""

import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from alexnet_io.errors import UserError
from jax_alexnet.compiled import gpu_compiler
from jax_alexnet.compiled.collectives import Links
from jax_alexnet.compiled.gpu_reading import GpuProgram
from jax_alexnet.compiled.gpu_settings import GpuSettings
from jax_alexnet.compiled.gpu_step import compile_lowered, lower
from jax_alexnet.parallel import fitting_schemes
from jax_alexnet.plan.costs import Cost, basis, cost_of, crossover, extrapolated, group_of
from jax_alexnet.plan.settings import MOST_DEVICES, PlanSettings
from jax_alexnet.variants import VARIANTS


class Programs:
    """Programs compiled so far, each once, several at a time where there are cores; says what it is at."""

    def __init__(self, model: str, gpu: str, precision: str):
        self.model, self.gpu, self.precision = model, gpu, precision
        self._read: dict[GpuSettings, Future[GpuProgram]] = {}
        self._workers = ThreadPoolExecutor(min(4, os.cpu_count() or 1))

    def __enter__(self) -> "Programs":
        return self

    def __exit__(self, *_: object) -> None:
        """Don't begin what is still waiting: after Ctrl-C nobody wants it."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    def begin(self, scheme: str, devices: int, images: int, group: int | None = None) -> Future[GpuProgram]:
        """Start compiling one scheme's program, unless that has been done; the result may be a UserError."""
        if devices == 1:
            scheme, group = "data", None  # alone, there is nothing to share
        settings = GpuSettings(
            model=self.model,
            gpu=self.gpu,
            devices=devices,
            batch_size=images,
            precision=self.precision,
            parallel=scheme,
            group_size=group,
        )
        if settings not in self._read:
            self._read[settings] = self._begin(settings)
        return self._read[settings]

    def get(self, scheme: str, devices: int, images: int, group: int | None = None) -> GpuProgram:
        """The program of one scheme, each GPU with `images` images.

        Raises:
            UserError: the scheme doesn't fit the network or the number of devices.
        """
        return self.begin(scheme, devices, images, group).result()

    def _begin(self, settings: GpuSettings) -> Future[GpuProgram]:
        try:
            lowered = lower(settings)  # in one thread: it sets JAX up
        except UserError as error:
            gpu_compiler.find()  # raises where it is the compiler that is missing
            failed: Future[GpuProgram] = Future()
            failed.set_exception(error)
            return failed
        said = f"compiling {settings.parallel} for {settings.devices} {settings.gpu}, {settings.batch_size} images each"
        print(said, file=sys.stderr, flush=True)
        return self._workers.submit(compile_lowered, lowered, settings)


@dataclass
class Plan:
    """What has been found.

    Attributes:
        links: how fast the GPUs send.
        slowdown: a step measured on one GPU over the modelled one; 1 where none was given.
        costs: of each scheme on the GPUs asked for.
        misfits: why a scheme can't be used there.
        crossover: global batch up to which `hybrid` sends less than `data` there.
        scaling: costs by number of GPUs and scheme; what could neither be compiled nor extrapolated is missing.
    """

    links: Links
    slowdown: float = 1.0
    costs: list[Cost] = field(default_factory=list)
    misfits: dict[str, str] = field(default_factory=dict)
    crossover: float | None = None
    scaling: dict[int, dict[str, Cost]] = field(default_factory=dict)


def links_of(settings: PlanSettings) -> Links:
    """How fast the GPUs send, in bytes a second."""
    gigabytes = settings.bandwidth or gpu_compiler.GPUS[settings.gpu].link / 1e9
    return Links(gigabytes * 1e9, (settings.network_bandwidth or gigabytes) * 1e9, settings.devices_per_machine)


def on_devices(settings: PlanSettings, programs: Programs) -> Plan:
    """The schemes on the GPUs asked for.

    Raises:
        UserError: the GPU compiler isn't installed, or JAX runs without it.
    """
    n, images = settings.devices, settings.images(settings.devices)
    plan = Plan(links_of(settings))
    names = _names(settings) if n > 1 else ["data"]
    for name in names:
        _begin(settings, programs, name, n)
    if settings.step_ms:
        plan.slowdown = settings.step_ms / 1e3 / programs.get("data", 1, images).seconds
    for name in names:
        try:
            plan.costs.append(_cost(settings, programs, plan, name, n))
        except UserError as error:
            plan.misfits[name] = str(error)
    found = {cost.scheme: cost for cost in plan.costs}
    if "hybrid" in found:
        group = group_of("hybrid", n, settings.devices_per_machine, settings.group_size)
        larger = cost_of(programs.get("hybrid", n, 2 * images, group), plan.links)
        plan.crossover = crossover(found["data"], found["hybrid"], larger)
    return plan


def add_scaling(settings: PlanSettings, programs: Programs, plan: Plan) -> None:
    """Every scheme from one GPU to the most, compiled where the settings say so and extrapolated elsewhere.

    With a fixed global batch only what is compiled counts: another number of images a GPU is another program.
    """
    powers = {2**k for k in range(MOST_DEVICES.bit_length())}
    compiled = sorted({1, settings.devices, *settings.compile})
    counts = sorted(powers | set(compiled))
    for n in compiled:
        for name in _names(settings):
            if settings.images(n):
                _begin(settings, programs, name, n)
    for n in counts:
        plan.scaling[n] = {}
        for name in _names(settings):
            try:
                cost = _on(settings, programs, plan, name, n, compiled)
            except UserError:
                continue  # it doesn't fit this number of GPUs
            if cost:
                plan.scaling[n][name] = cost
    plan.scaling = {n: row for n, row in plan.scaling.items() if row}


def _on(
    settings: PlanSettings, programs: Programs, plan: Plan, name: str, devices: int, compiled: list[int]
) -> Cost | None:
    if devices in compiled:
        return _cost(settings, programs, plan, name, devices) if settings.images(devices) else None
    start = basis(name, devices, compiled, settings.devices_per_machine, settings.group_size)
    if start is None or settings.global_batch is not None:
        return None
    return extrapolated(_cost(settings, programs, plan, name, start), plan.links, devices)


def _names(settings: PlanSettings) -> list[str]:
    return fitting_schemes(VARIANTS[settings.model])


def _begin(settings: PlanSettings, programs: Programs, name: str, devices: int) -> Future[GpuProgram]:
    group = group_of(name, devices, settings.devices_per_machine, settings.group_size)
    return programs.begin(name, devices, settings.images(devices), group)


def _cost(settings: PlanSettings, programs: Programs, plan: Plan, name: str, devices: int) -> Cost:
    return cost_of(_begin(settings, programs, name, devices).result(), plan.links, plan.slowdown)
