"""A rank of two dies: the other says so, all end at once, and one rank ends the run as if nothing had been."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from forks import ROOT, SMALL, start

from training.checkpoint import latest, load_checkpoint

STEPS = 8  # those after the second save wait for it, so that the other rank is there whenever one dies in it
FLAGS = (f"--training.steps={STEPS}", "--training.checkpoint_every=2")
SCRIPT = """
import os, runpy, signal
from training import checkpoint
from training.trainer import Trainer

original, calls = {place}, []

def counted(*arguments):
    calls.append(arguments)
    if len(calls) == {call} and os.environ["RANK"] == "{rank}":
        os.kill(os.getpid(), signal.SIGSTOP)
    return original(*arguments)

{place} = counted
runpy.run_path("examples/train.py", run_name="__main__")
"""
"""examples/train.py, of which one rank stops where it calls a function for the so-manieth time, to be killed there."""


def alone(run):
    out = run.with_suffix(".alone")
    process = start(out, f"--run={run}", *FLAGS)
    process.join()
    assert process.exitcode == 0, out.read_text()
    found = latest(run)
    assert found.step == STEPS
    files = {name: found.tensors(name.removesuffix(".safetensors")) for name in found.meta["sha256"]}
    return {(file, name): value for file, tensors in files.items() for name, value in tensors.items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return alone(tmp_path_factory.mktemp("undisturbed") / "run")


def processes(run):
    """All that have the run in their command: torchrun, the ranks, and the workers that these have forked."""
    found = subprocess.run(["pgrep", "-f", str(run)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


@contextmanager
def two_ranks(run, script, *flags):
    """Without --max_restarts. Whatever happens, none of them is left."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--no-python")
    command = (*launcher, "--", sys.executable, "-c", script, *SMALL, f"--run={run}", *FLAGS, *flags)
    with run.with_suffix(".out").open("w") as out, subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out) as both:
        try:
            yield both
        finally:
            for pid in processes(run):
                os.kill(pid, signal.SIGKILL)


def stopped(run):
    return [pid for pid in processes(run) if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"]


@pytest.mark.parametrize(
    ("parallel", "rank", "place", "call", "newest"),
    [
        ("ddp", 1, "Trainer.train_step", 5, 4),
        ("fsdp", 1, "Trainer.train_step", 5, 4),
        ("ddp", 0, "checkpoint.flush", 12, 2),  # of 8 in a save: inside the second
    ],
)
def test_where_one_is_killed_all_end_and_the_run_goes_on(tmp_path, undisturbed, parallel, rank, place, call, newest):
    run, script = tmp_path / "run", SCRIPT.format(rank=rank, place=place, call=call)
    with two_ranks(run, script, f"--training.parallel={parallel}", "--data.workers=1") as both:
        deadline = time.monotonic() + 120
        while not (victims := stopped(run)):
            assert both.poll() is None, run.with_suffix(".out").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        killed = time.monotonic()
        os.kill(victims[0], signal.SIGKILL)
        assert both.wait(timeout=30) == 1
        while processes(run):
            assert time.monotonic() - killed < 30
            time.sleep(0.05)
    said = run.with_suffix(".out").read_text()
    assert said.count(f"error: training: process {1 - rank} of 2 has lost another, which has died") == 1, said
    assert "The same command resumes from the last checkpoint." in said
    assert max(load_checkpoint(folder).step for folder in run.glob("checkpoints/step-*")) == newest
    assert len([*run.glob("checkpoints/.unfinished-step-*")]) == (place == "checkpoint.flush")
    resumed = alone(run)
    assert resumed.keys() == undisturbed.keys()
    assert max((resumed[name] - undisturbed[name]).abs().max().item() for name in resumed) < 1e-6
    assert [*run.rglob("*unfinished*")] == []
