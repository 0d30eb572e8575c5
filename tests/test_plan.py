"""Times and bytes of messages, extrapolation and published scaling; the compiled programs are stand-ins here."""

import sys
from concurrent.futures import Future
from dataclasses import replace

import facts
import numpy as np
import pytest
from commands import run as run_here
from PIL import Image

from alexnet_io.errors import UserError
from jax_alexnet.compiled import gpu_compiler, hlo
from jax_alexnet.compiled.collectives import Collective, Links, message_of, on_more_devices
from jax_alexnet.compiled.gpu_reading import GpuProgram, Launch
from jax_alexnet.plan import plot, published, schemes, text
from jax_alexnet.plan.costs import basis, cost_of, crossover, extrapolated, group_of
from jax_alexnet.plan.settings import PlanSettings

WEIGHTS = 4 * facts.NETWORKS["two_column"].parameters


def message(kind: str, whole: int, group: int, stride: int = 1) -> Collective:
    return Collective(kind, "f32", whole // group if kind == "all-gather" else whole, 1, group, stride)


def program(scheme: str, devices: int, images: int, work: float, messages: list[Collective], memory=0) -> GpuProgram:
    launch = Launch("all", "fusion", "", "", "", 0, 0, work)
    settings = {"parallel": scheme, "devices": devices, "batch_size": images}
    return GpuProgram(settings, [launch], messages, [], [], [], memory, 0)


class Stated(schemes.Programs):
    """Programs that are stated, not compiled: 1 ms of work, in `hybrid` and `zero` less."""

    def __init__(self, memory: dict[str, int] | None = None):
        self.asked: list[tuple[str, int, int, int | None]] = []
        self.memory = memory or {}

    def begin(self, scheme, devices, images, group=None):
        self.asked.append((scheme, devices, images, group))
        answer: Future[GpuProgram] = Future()
        if scheme == "columns" and devices % 2 and devices > 1:
            answer.set_exception(UserError("an even number"))
            return answer
        total = devices * images
        messages = {
            "data": [message("all-reduce", WEIGHTS, devices)],
            "columns": [message("all-gather", 1000 * images, 2), message("all-reduce", WEIGHTS // 2, devices // 2, 2)],
            "hybrid": [message("all-gather", 50_000 * total, group or devices), message("all-reduce", 10**7, devices)],
            "zero": [message("reduce-scatter", WEIGHTS, devices), message("all-gather", WEIGHTS, devices)],
        }[scheme]
        work = {"hybrid": 8e-4, "zero": 9e-4}.get(scheme, 1e-3) if devices > 1 else 1e-3
        messages = messages if devices > 1 else []
        answer.set_result(program(scheme, devices, images, work, messages, self.memory.get(scheme, 0)))
        return answer


# --- bytes of a ring ------------------------------------------------------------------------------------------


def ring(kind: str, group: int) -> tuple[list[np.ndarray], float]:
    """A ring of devices played through, for arrays of 8-byte numbers: what they end with, and bytes sent by each."""
    held = [np.arange(group) * 10.0**i for i in range(group)]
    gathered = [np.full(group, np.nan) for _ in range(group)]
    sent = np.zeros(group)
    if kind in ("all-reduce", "reduce-scatter"):
        for step in range(group - 1):
            moving = [(i, (i - step) % group, held[i][(i - step) % group]) for i in range(group)]
            for i, chunk, value in moving:
                held[(i + 1) % group][chunk] += value
                sent[i] += 8
        for i in range(group):
            gathered[i][(i + 1) % group] = held[i][(i + 1) % group]
    else:
        for i in range(group):
            gathered[i][(i + 1) % group] = 7.0 * i
    if kind in ("all-reduce", "all-gather"):
        for step in range(group - 1):
            moving = [(i, (i + 1 - step) % group, gathered[i][(i + 1 - step) % group]) for i in range(group)]
            for i, chunk, value in moving:
                gathered[(i + 1) % group][chunk] = value
                sent[i] += 8
    return gathered, float(sent.max())


@pytest.mark.parametrize("group", [2, 3, 8])
@pytest.mark.parametrize("kind", ["all-reduce", "all-gather", "reduce-scatter"])
def test_a_ring_played_through_sends_what_the_model_says(kind, group):
    ended, sent = ring(kind, group)
    sums = np.arange(group) * sum(10.0**i for i in range(group))
    for i, row in enumerate(ended):
        expected = sums if kind == "all-reduce" else np.roll(7.0 * np.arange(group), 1)
        if kind == "reduce-scatter":
            expected = np.where(np.arange(group) == (i + 1) % group, sums, np.nan)
        np.testing.assert_array_equal(row, expected)
    assert message(kind, 8 * group, group).sent == pytest.approx(sent)


@pytest.mark.parametrize(
    ("written", "group"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}, use", (0, 1)),
        ("replica_groups={{0,2,4,6},{1,3,5,7}}, use", (0, 2, 4, 6)),
        ("replica_groups=[4,2]<=[8], use", (0, 1)),
        ("replica_groups=[2,4]<=[4,2]T(1,0), use", (0, 2, 4, 6)),
        ("replica_groups=mesh['data'=8] {'data'}, use", tuple(range(8))),
        ("replica_groups=mesh['data'=4,'column'=2] {'data'}, use", (0, 2, 4, 6)),
        ("replica_groups=mesh['data'=4,'column'=2] {'column'}, use", (0, 1)),
        ("replica_groups=mesh['data'=4,'column'=2] {'data','column'}, use", tuple(range(8))),
        ("replica_groups={}, use", tuple(range(8))),
    ],
)
def test_groups_as_xla_writes_them(written, group):
    text = (
        "ENTRY %main (p: f32[4,8]) -> f32[4,8] {\n"
        "  %p = f32[4,8]{1,0} parameter(0)\n"
        f"  %r = f32[4,8]{{1,0}} all-reduce-start(%p), channel_id=1, {written}_global_device_ids=true\n}}\n"
    )
    parsed = hlo.parse(text)
    operation = parsed.computations["main"][-1]
    assert operation.group(8) == group
    found = message_of(parsed, operation, 8)
    assert (found.kind, found.nbytes, found.dtype, found.group) == ("all-reduce", 128, "f32", len(group))
    assert found.stride == group[1] - group[0]


@pytest.mark.parametrize("written", ["replica_groups=<0,1>", "replica_groups=mesh['data'=8] {'data':(1)2}"])
def test_groups_that_are_written_otherwise_are_not_taken_for_all_devices(written):
    text = "ENTRY %main (p: f32[4]) -> f32[4] {\n  %p = f32[4]{0} parameter(0)\n"
    text += f"  %r = f32[4]{{0}} all-reduce-start(%p), channel_id=1, {written}, use_global_device_ids=true\n}}\n"
    with pytest.raises(ValueError, match="can't tell which devices"):
        hlo.parse(text).computations["main"][-1].group(8)


def test_of_what_is_only_cut_the_cuts_are_read():
    text = (
        "%cut (q: f32[100]) -> (f32[10], f32[5]) {\n"
        "  %q = f32[100]{0} parameter(0)\n"
        "  %a = f32[10]{0} slice(%q), slice={[0:10]}\n"
        "  %b = f32[5]{0} slice(%q), slice={[20:25]}\n"
        "  ROOT %t = (f32[10]{0}, f32[5]{0}) tuple(%a, %b)\n}\n"
        "%twice (u: f32[100]) -> f32[100] {\n"
        "  %u = f32[100]{0} parameter(0)\n"
        "  %c = f32[10]{0} slice(%u), slice={[0:10]}\n"
        "  %d = f32[100]{0} pad(%c), padding=0_90\n"
        "  ROOT %e = f32[100]{0} add(%u, %d)\n}\n"
        "ENTRY %main (p: f32[100]) -> f32[100] {\n"
        "  %p = f32[100]{0} parameter(0)\n"
        "  %s = f32[7]{0} slice(%p), slice={[0:7]}\n"
        "  %f = (f32[10]{0}, f32[5]{0}) fusion(%p), kind=kLoop, calls=%cut\n"
        "  ROOT %g = f32[100]{0} fusion(%p), kind=kLoop, calls=%twice\n}\n"
    )
    parsed = hlo.parse(text)
    assert [parsed.moved(operation) for operation in parsed.top] == [2 * 28, 2 * 60, 800]


# --- speeds of links ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [300.0, 20.0])  # old machines are slower within than their networks
@pytest.mark.parametrize(("devices", "machine"), [(8, 8), (16, 8), (64, 8), (12, 4), (6, 8), (24, 6)])
def test_links_by_counting_neighbours(devices, machine, inside):
    links = Links(inside, 50.0, machine)
    for stride in [n for n in range(1, devices) if devices % n == 0]:
        for size in [n for n in range(2, devices // stride + 1) if devices % (n * stride) == 0]:
            reach = size * stride
            groups = [
                [start + first + stride * i for i in range(size)]
                for start in range(0, devices, reach)
                for first in range(stride)
            ]
            machines = [[len([d for d in g if d // machine == m]) for m in {d // machine for d in g}] for g in groups]
            if all(len(counts) == 1 for counts in machines):
                expected = inside
            else:
                fewest = min(min(counts) for counts in machines if len(counts) > 1)
                expected = 50.0 if fewest == 1 else min(inside, 50.0 * fewest)
            assert links.speed(message("all-reduce", 8, size, stride), devices) == expected, (size, stride)


# --- more devices ---------------------------------------------------------------------------------------------


def test_extrapolation_is_what_compiling_would_give():
    links, programs = Links(300e9, 50e9, 8), Stated()
    for scheme in ("data", "columns", "zero", "hybrid"):
        group = group_of(scheme, 16, 8)
        costs = {n: cost_of(programs.get(scheme, n, 256, group), links) for n in (16, 64)}
        if scheme == "hybrid":  # a group's images stay; the stand-in counts all of them
            stays = [message("all-gather", 50_000 * 16 * 256, 8), message("all-reduce", 10**7, 64)]
            costs[64] = cost_of(program("hybrid", 64, 256, 8e-4, stays), links)
        found = extrapolated(costs[16], links, 64)
        assert found.messages == costs[64].messages
        assert found.seconds == costs[64].seconds
        assert (found.compiled_for, found.devices) == (16, 64)


def test_rings_grow_and_neighbours_stay():
    pair, across = message("all-gather", 8, 2), message("all-reduce", 8, 4, 2)
    assert on_more_devices(pair, 8, 32) == pair
    assert on_more_devices(across, 8, 32) == replace(across, group=16)
    everybody = on_more_devices(message("all-gather", 64, 8), 8, 32)
    assert (everybody.group, everybody.whole) == (32, 64)


def test_only_programs_with_the_same_groups_are_carried_on():
    compiled = [1, 2, 4, 8, 16]
    assert basis("data", 64, compiled, 8, None) == 16
    assert basis("columns", 64, [1, 2], 8, None) is None  # one pair has nobody to reduce with
    assert basis("hybrid", 64, [1, 2, 4, 8], 8, None) is None  # nor has one machine
    assert basis("hybrid", 64, compiled, 8, None) == 16
    assert basis("hybrid", 64, compiled, 8, 4) == 16
    assert basis("zero", 24, compiled, 8, None) == 8
    assert basis("data", 1, compiled, 8, None) is None


def test_where_hybrid_and_data_send_alike():
    """One Weird Trick's bytes, in float32: features of all images and back, against the layers' weights."""
    layers = facts.NETWORKS["two_column"].layers
    dense = sum(layers[name].parameters for name in ("fc6", "fc7", "fc8"))
    links = Links(1e9, 1e9, 8)

    def hybrid(images):
        messages = [message("all-reduce", WEIGHTS - 4 * dense, 8)]
        for width in (9216, 4096, 4096):
            messages += [message(kind, 8 * images * width * 4, 8) for kind in ("all-gather", "reduce-scatter")]
        return cost_of(program("hybrid", 8, images, 0, messages), links)

    data = cost_of(program("data", 8, 1, 0, [message("all-reduce", WEIGHTS, 8)]), links)
    # 8 bytes of a weight's sum against 8 bytes of each of 17,408 features
    assert crossover(data, hybrid(64), hybrid(128)) == pytest.approx(dense / 17_408)
    assert crossover(data, data, replace(data, images=128)) is None


# --- the whole plan -------------------------------------------------------------------------------------------


def planned(programs=None, **settings):
    settings = PlanSettings(**{"devices": 8, "bandwidth": 300.0, **settings})
    programs = programs or Stated()
    plan = schemes.on_devices(settings, programs)
    schemes.add_scaling(settings, programs, plan)
    return settings, plan


def test_a_step_is_work_and_messages():
    _, plan = planned()
    data = next(cost for cost in plan.costs if cost.scheme == "data")
    messages = 2 * WEIGHTS * 7 / 8 / 300e9
    assert data.seconds == pytest.approx(1e-3 + messages)
    assert data.overlapped == pytest.approx(max(1e-3, messages))
    assert data.images_per_second == pytest.approx(8 * 256 / (1e-3 + messages))
    assert text.efficiency(data, plan.scaling[1]["data"]) == pytest.approx(1e-3 / (1e-3 + messages))


def test_every_power_of_two_and_what_was_compiled_for_it():
    settings, plan = planned(network_bandwidth=50.0, compile=[1, 2, 4, 8, 16])
    assert list(plan.scaling) == [2**k for k in range(11)]
    for n, row in plan.scaling.items():
        assert set(row) == {"data", "columns", "hybrid", "zero"}
        assert {cost.compiled_for for cost in row.values()} == {min(n, 16)}
    rows = text.table_of_scaling(settings, plan).splitlines()
    assert "*" not in next(line for line in rows if line.startswith("   16"))
    assert next(line for line in rows if line.startswith(" 1024")).count("*") == 4
    far = plan.scaling[1024]["data"]
    assert far.communication == pytest.approx(2 * WEIGHTS * 1023 / 1024 / 300e9)  # eight cards of 50 GB/s are more
    entries = text.as_json(settings, plan)["scaling"]
    assert [entry["devices"] for entry in entries if not entry["extrapolated"]][-1] == 16


def test_what_can_be_neither_compiled_nor_carried_on_is_missing():
    _, plan = planned(compile=[1, 3])
    assert "columns" not in plan.scaling[3]  # an odd number
    assert 2 not in plan.scaling
    assert 4 not in plan.scaling
    assert set(plan.scaling[16]) == {"data", "columns", "zero"}  # hybrid of one machine lacks what goes between two


def test_a_fixed_global_batch_is_compiled_or_left_out():
    _, plan = planned(global_batch=1024, compile=[1, 2, 4])
    assert list(plan.scaling) == [1, 2, 4, 8]
    assert [row["data"].images for row in plan.scaling.values()] == [1024, 512, 256, 128]


def test_measured_time_of_one_gpu_scales_all_work():
    _, plan = planned(step_ms=3.0)
    assert {cost.scheme: cost.compute for cost in plan.costs} == pytest.approx(
        {"data": 3e-3, "columns": 3e-3, "hybrid": 2.4e-3, "zero": 2.7e-3}
    )


def test_the_best_is_the_fastest_that_fits_into_memory():
    settings, plan = planned()
    assert "best: hybrid" in text.table_of_schemes(settings, plan)
    small = gpu_compiler.GPUS["h100"].memory
    settings, plan = planned(Stated({"hybrid": small + 1, "zero": small}))
    said = text.table_of_schemes(settings, plan)
    assert "hybrid doesn't fit: it needs 84.9 GB" in said
    assert "best: columns" in said


def test_schemes_that_do_not_fit_say_why():
    settings, plan = planned(devices=3, compile=[1])
    assert set(plan.misfits) == {"columns"}
    assert "columns: an even number" in text.table_of_schemes(settings, plan)
    settings, plan = planned(model="cifar_18pct")
    assert [cost.scheme for cost in plan.costs] == ["data", "zero"]


def test_the_picture_shows_every_scheme(tmp_path):
    settings, plan = planned(compile=[1, 2, 4, 8, 16])
    plot.draw_scaling(settings, plan, str(tmp_path / "plan.png"))
    with Image.open(tmp_path / "plan.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in plot._COLOURS.values():
        assert (pixels == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=1).sum() > 100


# --- published ------------------------------------------------------------------------------------------------


def test_published_figures_are_those_of_the_sources():
    p100, k20 = published.PUBLISHED
    assert p100.speeds == facts.P100_SPEEDS
    one = facts.WEIRD_TRICK_IMAGES / (facts.WEIRD_TRICK_HOURS * 3600)
    assert k20.speeds == pytest.approx({n: one * up for n, up in facts.WEIRD_TRICK_SPEEDUPS.items()})
    assert k20.unverified == (2, 4)
    assert published.PUBLISHED[0].bandwidth == gpu_compiler.GPUS["p100"].link / 1e9


def test_prediction_for_p100s_by_hand():
    weights = 4 * facts.NETWORKS["one_weird_trick"].parameters

    def get(scheme, devices, images, group):
        messages = [message("all-reduce", weights, devices)] if devices > 1 else []
        return program(scheme, devices, images, 0.25, messages)

    found = published.comparison(published.PUBLISHED[0], get, 80)
    assert found.modelled_one == 512 / 0.25
    one, *_, eight = found.rows
    assert (one.predicted, one.needed) == (pytest.approx(2987), None)
    work, sent = 512 / 2987, 2 * weights * 7 / 8
    assert eight.predicted == pytest.approx(4096 / (work + sent / 80e9))
    assert eight.needed == pytest.approx(sent / (4096 / 17822 - work))
    assert eight.ratio == pytest.approx(eight.predicted / 17822)
    assert "unverified" in published.table([found])


# --- the command ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--gpu", "k20"), "--gpu 'k20' is not known. Choose from: h100, a100, v100, p100"),
        (("--devices", "0"), "--devices 0 is out of range: it must be at least 1"),
        (("--bandwidth", "0"), "--bandwidth 0.0 is out of range: it must be above 0"),
        (("--global-batch", "100"), "--global-batch 100 can't be divided among 8 GPUs: use 96 or 104"),
        (("--model", "resnet"), "Choose from: single_column"),
        (("--json", "nowhere/plan.json"), "--json nowhere/plan.json: there is no folder nowhere; make it first"),
        (("--plot", "plan.png", "--no-scaling"), "--plot draws the scaling: leave out --no-scaling"),
    ],
)
def test_bad_usage(words, said, capsys, monkeypatch):
    from jax_alexnet.plan import __main__ as command

    monkeypatch.setattr(sys, "argv", ["plan", *words])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[0]


def test_without_the_compiler_the_next_step_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_GPU_COMPILER", str(tmp_path))
    done = run_here("jax_alexnet.plan.__main__", devices=None, code=2)
    assert done.stderr.startswith("error: XLA's GPU compiler is not installed")
    assert "make gpu-compiler" in done.stderr
    assert len(done.stderr.splitlines()) == 1
