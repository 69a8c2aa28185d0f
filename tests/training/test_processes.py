"""Two processes beside one: the same run. torchrun starts those of which one dies or is refused, the rest are forks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from scripts import EXAMPLES, call, call_in_ranks

from training.checkpoint import latest

ROOT = Path(__file__).parents[2]
SETTINGS = (
    "--config", str(EXAMPLES / "configs" / "digits.yaml"), "--model.name", "SiT-T/8", "--data.batch_size", "12",
    "--training.warmup_steps", "4", "--training.learning_rate", "0.0005", "--training.checkpoint_every", "2",
    "--log.every", "1",
)  # fmt: skip
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
SCRIPT = (
    "--",
    "examples/train.py",
    *SETTINGS,
)  # after --, as torchrun has a --run... too


def start(*command, **options):
    return subprocess.Popen(
        [*command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )  # fmt: skip


def train(run, processes, steps, *flags):
    arguments = ("train.py", *SETTINGS, "--run", str(run), "--training.steps", str(steps), *flags)
    if processes > 1:
        return call_in_ranks(processes, *arguments)
    assert call(*arguments) == 0
    return ""


def tensors(run):
    found = {name[: -len(".safetensors")]: load_file(latest(run).folder / name) for name in latest(run).meta["sha256"]}
    return {f"{name}/{key}": value for name, tensors in found.items() for key, value in tensors.items()}


def difference(first, second):
    assert first.keys() == second.keys()
    return max((first[key] - second[key]).abs().max().item() for key in first)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    run = tmp_path_factory.mktemp("one")
    train(run, 1, 6)
    return run


def test_two_processes_make_the_steps_of_one(tmp_path, one):
    """To the order of the sums over a batch: each takes half of it, and of what is drawn for it."""
    out = train(tmp_path / "two", 2, 6)
    assert out.count("trained 6 steps") == 1
    assert difference(tensors(one), tensors(tmp_path / "two")) < 1e-6
    lines = [[json.loads(line) for line in (run / "metrics.jsonl").open()] for run in (one, tmp_path / "two")]
    assert [line["step"] for line in lines[1]] == list(range(1, 7))
    for first, second in zip(*lines, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-6)
        assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-5)


def test_a_run_goes_on_with_another_number_of_processes_and_parts_of_a_batch(tmp_path, one):
    train(tmp_path / "run", 2, 3, "--training.micro_batch", "4")
    assert latest(tmp_path / "run").step == 3
    train(tmp_path / "run", 1, 6, "--training.micro_batch", "5")
    assert difference(tensors(one), tensors(tmp_path / "run")) < 1e-6


SHARDED = ("--training.parallel", "fsdp")


def test_parameters_in_parts_make_the_same_steps(tmp_path, one):
    """FSDP2 beside one process; with several averages, parts of a batch, and pairs made over the whole batch."""
    out = train(tmp_path / "two", 2, 6, *SHARDED)
    assert out.count("trained 6 steps") == 1
    assert difference(tensors(one), tensors(tmp_path / "two")) < 1e-6
    flags = (
        *("--training.micro_batch", "4", "--training.ema_decays", "[0.9, 0.5]", "--training.ema_widths", "[0.1]"),
        *("--training.ema_snapshot_every", "6", "--coupling", "ot"),
    )
    train(tmp_path / "plain", 1, 6, *flags)
    train(tmp_path / "parts", 2, 6, *flags, *SHARDED)
    assert difference(tensors(tmp_path / "plain"), tensors(tmp_path / "parts")) < 1e-6
    first, second = (
        load_file(tmp_path / name / "snapshots" / "step-00000006.safetensors") for name in ("plain", "parts")
    )
    assert difference(first, second) < 1e-3


def test_a_run_goes_on_in_parts_in_copies_and_alone(tmp_path, one):
    for steps, processes, parallel in ((2, 2, "fsdp"), (3, 1, "fsdp"), (4, 2, "ddp"), (5, 2, "fsdp"), (6, 1, "ddp")):
        train(tmp_path, processes, steps, "--training.parallel", parallel)
        assert latest(tmp_path).step == steps
    assert difference(tensors(one), tensors(tmp_path)) < 1e-6


def first_checkpoint(run, command):
    deadline = time.monotonic() + 60
    while latest(run) is None:
        assert command.poll() is None, command.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_workers_read_the_same_and_end_with_the_run(tmp_path, one):
    train(tmp_path / "whole", 1, 6, "--data.workers", "2")
    assert difference(tensors(one), tensors(tmp_path / "whole")) == 0
    flags = ("--run", str(tmp_path / "stopped"), "--training.steps", "100000", "--data.workers", "2")
    command = start(sys.executable, *SCRIPT[1:], *flags, start_new_session=True)
    first_checkpoint(tmp_path / "stopped", command)
    os.killpg(command.pid, signal.SIGTERM)  # as Slurm does: the workers get it too
    out, err = command.communicate(timeout=30)
    assert (command.returncode, out.count("stopped by SIGTERM after step")) == (0, 1), err
    with pytest.raises(ProcessLookupError):
        os.killpg(command.pid, 0)


def test_where_one_dies_the_other_says_so_and_ends(tmp_path):
    """And torchrun, asked to, starts both again, which go on."""
    steps = ("--training.steps", "200", "--training.checkpoint_every", "10")
    command = start(*TORCHRUN, "--max_restarts", "1", *SCRIPT, "--run", str(tmp_path), *steps)
    first_checkpoint(tmp_path, command)
    children = subprocess.run(["pgrep", "-P", str(command.pid)], capture_output=True, text=True, check=True)
    signal_to = int(children.stdout.split()[-1])
    died = time.monotonic()
    subprocess.run(["kill", f"-{signal.SIGKILL}", str(signal_to)], check=True)
    out, err = command.communicate(timeout=90)
    assert command.returncode == 0, err
    assert "has lost another, which has died or does not answer" in err
    assert time.monotonic() - died < 80
    assert latest(tmp_path).step == 200
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()] == list(range(1, 201))
    assert "trained 200 steps" in out


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    command = start(*TORCHRUN, *SCRIPT, "--run", str(tmp_path), "--data.batch_size", "5")
    _, err = command.communicate(timeout=60)
    assert command.returncode != 0
    assert "error: data.batch_size must be a multiple of the 2 ranks, got 5" in err
    assert not torch.distributed.is_initialized()
