"""SIGKILL at any moment: what was saved stays, and the run ends, to the bit, as one that nothing disturbed."""

import itertools
import random
import signal
import time
from collections import Counter

import pytest
from forks import results, start
from safetensors.torch import load_file

from training.checkpoint import load_checkpoint
from training.record import METRICS_FILE, read_log

STEPS = 30


def train(run, *flags, **options):
    return start(run.with_suffix(".out"), f"--run={run}", f"--training.steps={STEPS}", *flags, **options)


def saves(keep, every, workers=0):
    return f"--training.keep={keep}", f"--training.checkpoint_every={every}", f"--data.workers={workers}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    process = train(run)
    process.join()
    assert process.exitcode == 0, run.with_suffix(".out").read_text()
    return results(run)


def intact_steps(run):
    """The steps of the checkpoints; no file that has its name is damaged."""
    for file in run.glob("snapshots/step-*"):
        load_file(file)
    return [load_checkpoint(folder).step for folder in sorted(run.glob("checkpoints/step-*"))]


def unfinished(run):
    return {(path.name, path.stat().st_mtime_ns) for path in run.glob("checkpoints/.unfinished-*")}


def logged(run):
    """The step of the last line."""
    lines = read_log(run / METRICS_FILE) if (run / METRICS_FILE).exists() else []
    return lines[-1]["step"] if lines else 0


def assert_undisturbed(process, run, keep, expected):
    assert process.exitcode == 0, run.with_suffix(".out").read_text()
    assert results(run) == expected
    assert len(intact_steps(run)) == keep
    assert [path for path in run.rglob("*") if "unfinished" in path.name] == []


def kill(process, run, step, seconds):
    """So many seconds after a step is logged; returns whether it had not ended before."""
    while process.exitcode is None and logged(run) < step:
        time.sleep(0.002)
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(("keep", "every", "workers", "kills"), [(1, 2, 0, 20), (2, 3, 1, 10)])
def test_at_random_moments(tmp_path, undisturbed, keep, every, workers, kills):
    """Of start-up and training, by a number of steps or less; in one run after another, until there were so many."""
    moments, fell = random.Random(kills), Counter()
    for number in itertools.count():
        run, newest = tmp_path / str(number), 0
        while True:
            before, left = logged(run), unfinished(run)
            process = train(run, *saves(keep, every, workers))
            if fell["anywhere"] == kills:
                process.join()
                break
            if not kill(process, run, before + moments.randrange(2 * every + 2), moments.uniform(0, 0.2)):
                break
            last, before_it = logged(run), newest
            newest = max(intact_steps(run), default=0)
            # A save starts when the one before it is written, and the next step is logged when it has started.
            assert newest >= max(before_it, (last - 1) // every * every - every)
            fell["anywhere"] += 1
            fell["before its first step"] += last <= before
            fell["inside a save"] += bool(unfinished(run) - left)
        assert_undisturbed(process, run, keep, undisturbed)
        if fell["anywhere"] == kills:
            break
    print(fell)
    assert fell["before its first step"] > 0
    assert fell["inside a save"] > 0


MOMENTS = (
    ("os.rename", "config.yaml.unfinished", "config.yaml.unfinished"),
    ("os.mkdir", "/.unfinished-step-", ""),
    ("open", "/.unfinished-step-00000002/checkpoint.json", "checkpoints/.unfinished-step-*/optimizer.safetensors"),
    ("os.remove", "'optimizer.safetensors'", "checkpoints/.unfinished-step-*"),  # of what the one before has left
    ("os.rename", "/.unfinished-step-", "checkpoints/.unfinished-step-*/checkpoint.json"),
    ("os.rename", "metrics.jsonl.unfinished", "metrics.jsonl.unfinished"),
    ("os.rename", "/.unfinished-deletion-step-", "checkpoints/step-*4"),
    ("os.remove", "'optimizer.safetensors'", "checkpoints/.unfinished-deletion-step-*"),
    ("os.rename", "/snapshots/.unfinished-", "snapshots/.unfinished-*"),
    ("open", "metrics.jsonl", ""),
    ("open", "loss.png", "path.png"),
)  # fmt: skip
"""An operation on the disk, and what is there if it is not made."""


def test_before_each_kind_of_operation_on_the_disk(tmp_path, undisturbed):
    """Each start of one run but the last dies at another."""
    run, newest = tmp_path / "run", 0
    for event, about, trace in MOMENTS:
        process = train(run, *saves(1, 2), die_at=(event, about))
        process.join()
        assert process.exitcode == -signal.SIGKILL, (event, about, run.with_suffix(".out").read_text())
        assert not trace or any(run.glob(trace))
        before, newest = newest, max(intact_steps(run), default=0)
        assert newest >= before
    process = train(run, *saves(1, 2))
    process.join()
    assert_undisturbed(process, run, 1, undisturbed)
