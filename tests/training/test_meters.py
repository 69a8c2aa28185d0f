import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from copies import Copies

from models import PUBLISHED, SiT, create_model
from training import meters
from training.meters import LossByTime, Meter, peak_flops, training_flops
from training.processes import Processes

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)


def expected(t, losses, buckets):
    """By a loop over the parts."""
    edges = np.linspace(0, 1, buckets + 1)
    means = {}
    for low, high in itertools.pairwise(edges):
        inside = (t >= low) & ((t < high) | (high == 1))
        if inside.any():
            means[f"loss_by_time/{low:.3f}-{high:.3f}"] = pytest.approx(losses[inside].mean(), rel=1e-5)
    return means


def test_the_loss_of_each_part_of_the_time_is_its_mean_since_the_last_line():
    generator = np.random.default_rng(0)
    by_time = LossByTime(CPU)
    for _ in range(2):
        t, losses = generator.random(90).astype("f4"), generator.exponential(size=90).astype("f4")
        t[:3] = 0, 0.5, 1
        for part in range(3):
            rows = slice(30 * part, 30 * part + 30)
            by_time.add(torch.from_numpy(t[rows]), torch.from_numpy(losses[rows]).requires_grad_())
        assert by_time.read(ALONE) == expected(t, losses, 8)
        assert not by_time._sums.requires_grad  # no graph is kept
    assert by_time.read(ALONE) == {}


def test_a_part_without_samples_is_left_out():
    by_time = LossByTime(CPU, buckets=4)
    by_time.add(torch.tensor([0.3, 0.4, 0.9]), torch.tensor([1.0, 3.0, 5.0]))
    assert by_time.read(ALONE) == {"loss_by_time/0.250-0.500": 2.0, "loss_by_time/0.750-1.000": 5.0}


def test_the_mean_is_over_the_samples_of_all_processes_not_over_their_means(monkeypatch):
    mine, other = LossByTime(CPU, buckets=2), LossByTime(CPU, buckets=2)
    mine.add(torch.tensor([0.1, 0.2, 0.3, 0.6]), torch.tensor([1.0, 2.0, 3.0, 7.0]))
    other.add(torch.tensor([0.4]), torch.tensor([10.0]))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda sums: sums.add_(other._sums))
    read = mine.read(Processes(0, 2, CPU))
    assert read == {"loss_by_time/0.000-0.500": pytest.approx(16 / 4), "loss_by_time/0.500-1.000": 7.0}


def test_adding_does_not_wait_for_the_device():
    """The meta device has no numbers to wait for: whatever reads one raises."""
    by_time = LossByTime(torch.device("meta"))
    with Copies() as copies:
        by_time.add(torch.rand(5, device="meta"), torch.rand(5, device="meta", dtype=torch.bfloat16))
    assert copies.seen == []


def on_meta(**settings) -> SiT:
    with torch.device("meta"):
        return create_model(input_size=32, **settings)


@pytest.mark.parametrize("name", ["SiT-S/2", "SiT-XL/2"])
def test_a_sample_takes_three_forward_passes_of_the_published_multiply_accumulates(name):
    model, before = on_meta(name=name), torch.random.get_rng_state()
    assert training_flops(model) == pytest.approx(3 * 2 * PUBLISHED[name].gmacs * 1e9, rel=0.01)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_flops_are_those_of_the_mathematics_whatever_conditions_the_network():
    plain = on_meta(name="SiT-S/2", num_classes=0)
    table = on_meta(name="SiT-S/2")
    table.activation_checkpointing = True
    assert training_flops(plain) == training_flops(table)  # a look-up multiplies nothing
    vectors = on_meta(name="SiT-S/2", num_classes=0, condition_dim=10)
    assert training_flops(vectors) == pytest.approx(training_flops(plain), rel=0.01)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GB200", None),
        ("NVIDIA L40", None),
        ("cpu", None),
    ],
)
def test_the_peak_is_that_of_the_card(name, peak):
    assert peak_flops(name) == peak


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(meters, "time", clock)
    return clock


def test_speed_is_that_of_the_steps_alone(clock):
    meter = Meter(create_model("SiT-T/8", input_size=8, in_channels=1), 12, ALONE, step=3)
    clock.now += 10
    with meter.paused():
        clock.now += 1000
    clock.now += 10
    read = meter.read(step=8)
    assert {name: read[name] for name in ("seconds_per_step", "images_per_second")} == {
        "seconds_per_step": 4.0,
        "images_per_second": 3.0,
    }
    assert "mfu" not in read
    clock.now += 3
    assert meter.read(step=9)["images_per_second"] == 4.0


def test_mfu_is_the_share_of_what_all_devices_could_have_made(clock, monkeypatch):
    resets = []
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", resets.append)
    cuda = torch.device("cuda", 1)
    meter = Meter(on_meta(name="SiT-XL/2"), 256, Processes(1, 2, cuda))
    clock.now += 5
    read = meter.read(step=10)
    flops = 256 * 10 * 3 * 2 * 118.6e9
    assert read["mfu"] == pytest.approx(flops / (5 * 2 * 989e12), rel=0.01)
    assert read["peak_memory_gib"] == 3.0
    assert resets == [cuda]


def test_memory_on_the_cpu_is_what_the_kernel_says_of_the_process(clock):
    meter = Meter(create_model("SiT-T/8", input_size=8), 1, ALONE)
    clock.now += 1
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kilobytes = int(status["VmHWM"].split()[0])
    assert meter.read(step=1)["peak_memory_gib"] == pytest.approx(kilobytes / 2**20, rel=0.3)


def test_the_network_that_is_counted_is_the_one_that_is_trained():
    model = create_model("SiT-T/8", input_size=8, in_channels=1, num_classes=3)
    deeper = SiT(**{**dataclasses.asdict(model.config), "depth": 2 * model.config.depth})
    assert 1.5 < training_flops(deeper) / training_flops(model) < 2
