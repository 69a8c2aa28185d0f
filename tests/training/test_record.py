import io
import json
import math
import re
import subprocess
import sys
import time
from datetime import datetime

import numpy as np
import pytest
import torch
import wandb
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.processes import Processes
from training.record import LogConfig, Recorder, read_log

FIRST, SECOND = (Processes(rank, 2, torch.device("cpu")) for rank in (0, 1))
TENSORBOARD = LogConfig(tensorboard=True)


def recorder(run, settings=LogConfig(), step=0, processes=FIRST) -> Recorder:  # noqa: B008
    return Recorder(run, settings, {"seed": 1}, processes, step)


def picture(seed: int = 0):
    return np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_metrics_are_lines_of_json(tmp_path):
    with recorder(tmp_path / "run") as record:
        record.scalars(10, {"loss": 0.1 + 0.2, "learning_rate": 1e-5})
        # Written at once: a kill loses none.
        assert read_log(tmp_path / "run" / "metrics.jsonl") == [{"step": 10, "loss": 0.1 + 0.2, "learning_rate": 1e-5}]
        record.scalars(20, {"loss": math.nan, "grad_norm": math.inf})
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert lines[1] == '{"step": 20, "loss": null, "grad_norm": null}'
    assert (tmp_path / "run" / "config.yaml").read_text() == "seed: 1\n"
    assert len(json.loads((tmp_path / "run" / "environment.json").read_text())) == 1


def test_what_was_written_after_the_step_that_is_resumed_from_is_dropped(tmp_path):
    with recorder(tmp_path) as record:
        for step in (10, 20, 30):
            record.scalars(step, {"loss": step / 3})
    file = tmp_path / "metrics.jsonl"
    with file.open("a") as killed:
        killed.write('{"step": 40, "lo')
    assert [line["step"] for line in read_log(file)] == [10, 20, 30]
    with recorder(tmp_path, step=20) as record:
        assert read_log(file) == [{"step": 10, "loss": 10 / 3}, {"step": 20, "loss": 20 / 3}]
        record.scalars(30, {"loss": 0.5})
    assert [line["loss"] for line in read_log(file)] == [10 / 3, 20 / 3, 0.5]
    assert [entry["step"] for entry in json.loads((tmp_path / "environment.json").read_text())] == [0, 20]
    with recorder(tmp_path):  # killed before its first checkpoint
        assert read_log(file) == []


def wait_for_the_next_event_file():
    """Event files are read in the order of their names, which begin with the second of the start."""
    time.sleep(1.0)


def events(run) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard")).Reload()


def test_tensorboard_has_the_curves_once_after_a_resume(tmp_path):
    with recorder(tmp_path, TENSORBOARD) as record:
        for step in (10, 20, 30):
            record.scalars(step, {"loss": step / 2, "loss_by_time/0.000-0.125": math.nan})
        assert [event.step for event in events(tmp_path).Scalars("loss")] == [10, 20, 30]  # though it is not closed
    wait_for_the_next_event_file()
    with recorder(tmp_path, TENSORBOARD, step=20) as record:
        assert [event.step for event in events(tmp_path).Scalars("loss")] == [10, 20]
        record.scalars(30, {"loss": 0.25})
    curve = [(event.step, event.value) for event in events(tmp_path).Scalars("loss")]
    assert curve == [(10, 5.0), (20, 10.0), (30, 0.25)]
    wait_for_the_next_event_file()
    with recorder(tmp_path, TENSORBOARD) as record:
        record.scalars(10, {"loss": 4.0})
    assert [(event.step, event.value) for event in events(tmp_path).Scalars("loss")] == [(10, 4.0)]


def test_pictures_are_files_and_in_tensorboard_to_the_pixel(tmp_path):
    with recorder(tmp_path, TENSORBOARD) as record:
        record.image("samples", 1000, picture())
        (event,) = events(tmp_path).Images("samples")
    for source in (tmp_path / "samples" / "step-00001000.png", io.BytesIO(event.encoded_image_string)):
        assert np.array_equal(np.asarray(Image.open(source)), picture())
    assert event.step == 1000


def test_a_figure_is_a_picture(tmp_path):
    figure = Figure(figsize=(2, 1), facecolor="#ff8000")
    with recorder(tmp_path) as record:
        record.image("loss", 1, figure)
    drawn = np.asarray(Image.open(tmp_path / "loss" / "step-00000001.png"))
    assert drawn.shape == (150, 300, 3)
    assert (drawn == [255, 128, 0]).all()


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (np.zeros((4, 4, 3)), r"float64 of shape \(4, 4, 3\)"),
        (picture()[..., :1], r"uint8 of shape \(5, 7, 1\)"),
        (picture()[0], r"uint8 of shape \(7, 3\)"),
    ],
)
def test_another_array_is_no_picture(tmp_path, wrong, got):
    with recorder(tmp_path) as record, pytest.raises(ValueError, match=f"must be uint8 of shape .*, got {got}"):
        record.image("samples", 1, wrong)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    for name, value in (("MODE", "offline"), ("SILENT", "true"), ("CACHE_DIR", tmp_path), ("ERROR_REPORTING", "false")):
        monkeypatch.setenv(f"WANDB_{name}", str(value))


def logged(file):
    """The records of wandb's log, joined. It has LevelDB's blocks of 32 KiB, and a block may end inside a word."""
    content, records = file.read_bytes(), b""
    at = 7  # the file's own header
    while at + 7 < len(content):
        if (left := -at % 32768) and left < 7:  # too few for a header: zeros
            at += left
        size = int.from_bytes(content[at + 4 : at + 6], "little")
        records += content[at + 7 : at + 7 + size]
        at += 7 + size
    return records


def test_all_starts_are_one_run_of_wandb(tmp_path, offline):
    settings, run = LogConfig(wandb="project-of-mine"), tmp_path / "digits"
    with recorder(run, settings) as record:
        record.scalars(10, {"loss": 0.8125, "grad_norm": math.inf})
        record.image("samples", 10, picture())
    time.sleep(1.0)  # wandb names a start by its second, and what starts in the same one takes its place
    with recorder(run, settings, step=10) as record:
        record.scalars(20, {"loss": 0.4375})
    wandb.teardown()  # waits for the process that writes the logs, which may be behind
    ids = {file.stem.split("-")[-1] for file in run.glob("wandb/offline-run-*/run-*.wandb")}
    assert ids == {(run / "wandb" / "id.txt").read_text()}
    contents = b"".join(map(logged, sorted(run.glob("wandb/offline-run-*/run-*.wandb"))))
    for written in (b"project-of-mine", b"digits", b"0.8125", b"0.4375", b"seed"):
        assert written in contents
    (file,) = run.glob("wandb/offline-run-*/files/media/images/samples_10_*.png")
    assert np.array_equal(np.asarray(Image.open(file)), picture())
    assert len(read_log(run / "metrics.jsonl")) == 2


def test_where_wandb_cannot_start_the_run_does_not(tmp_path, monkeypatch):
    def no_key(**_):
        raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", no_key)
    with pytest.raises(ValueError, match=r"^config: log\.wandb must be .* got 'mine': No API .* in\. WANDB_MODE=.*\.$"):
        recorder(tmp_path, LogConfig(wandb="mine"))


def test_wandb_is_told_how_a_run_ended_and_which_it_is(tmp_path, monkeypatch):
    class Run:
        def finish(self, exit_code):
            ends.append(exit_code)

    starts, ends = [], []
    monkeypatch.setattr(wandb, "init", lambda **settings: starts.append(settings) or Run())
    with recorder(tmp_path, LogConfig(wandb="mine")):
        pass
    with pytest.raises(FloatingPointError), recorder(tmp_path, LogConfig(wandb="mine")) as record:
        fail(record)
    assert ends == [0, 1]
    assert starts[0] == starts[1]
    assert (starts[0]["resume"], starts[0]["config"]) == ("allow", {"seed": 1})


@pytest.mark.parametrize(
    ("settings", "extra"), [(TENSORBOARD, "tensorboard"), (LogConfig(wandb="mine"), "wandb")], ids=str
)
@pytest.mark.parametrize("processes", [FIRST, SECOND])
def test_what_is_not_installed_is_missed_at_the_start(tmp_path, monkeypatch, settings, extra, processes):
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(ImportError, match=re.escape(f"pip install 'sit-interpolants[{extra}]'")):
        recorder(tmp_path / "run", settings, processes=processes)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_wandb_left_is_not_wandb(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ImportError, match=r"for log\.wandb `wandb` must be installed"):
        LogConfig(wandb="mine").require_installed()


def test_only_the_first_process_writes_and_speaks(tmp_path, capsys):
    with recorder(tmp_path / "run", LogConfig(tensorboard=True, wandb="mine"), processes=SECOND) as record:
        record.scalars(1, {"loss": 1.0})
        record.image("samples", 1, picture())
        record.say("hello")
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""


def fail(record):
    record.say("resumed at step 3")
    raise FloatingPointError("loss must be finite")


def test_what_is_said_is_printed_and_noted_with_its_time(tmp_path, capsys):
    before = datetime.now().astimezone().replace(microsecond=0)
    with recorder(tmp_path) as record:
        record.say("begins")
    with pytest.raises(FloatingPointError), recorder(tmp_path) as record:
        fail(record)
    assert capsys.readouterr().out == "begins\nresumed at step 3\n"
    lines = [line.split(" ", 1) for line in (tmp_path / "log.txt").read_text().splitlines()]
    messages = ["begins", "resumed at step 3", "FloatingPointError: loss must be finite"]
    assert [message for _, message in lines] == messages
    assert all(before <= datetime.fromisoformat(time) <= datetime.now().astimezone() for time, _ in lines)


def noted(run) -> list[str]:
    return [line.split(" ", 1)[1] for line in (run / "log.txt").read_text().splitlines()]


def test_the_log_tells_the_course_of_the_run(tmp_path, monkeypatch):
    """A line when the steps have doubled and each minute, with the mean loss since the line before."""
    seconds = iter(range(0, 10_000, 10))  # ten seconds a line of metrics
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    clock = [0]
    with recorder(tmp_path) as record:
        for step in range(5, 205, 5):
            clock[0] = next(seconds)
            record.scalars(step, {"loss": 1000 / step, "images_per_second": 1234.5})
            if step == 150:
                record.note("saves step 150")
    ends = [5, 10, 20, 40, 70, 100, 130, 150, 180, 200]  # doublings, then 6 lines of metrics; what is left at the end
    spans = zip([0, *ends[:-1]], ends, strict=True)
    means = [np.mean([1000 / step for step in range(low + 5, high + 5, 5)]) for low, high in spans]
    lines = [f"step {step}: loss {mean:.4g}, 1,234 images/s" for step, mean in zip(ends, means, strict=True)]
    assert noted(tmp_path) == [*lines[:8], "saves step 150", *lines[8:]]


def test_the_log_of_a_loss_that_is_not_finite(tmp_path):
    with recorder(tmp_path, step=100) as record:
        record.scalars(110, {"loss": math.nan})
        record.scalars(120, {"loss": math.nan})
        record.scalars(130, {"loss": 2.0})
        record.scalars(130, {"speed": 1.0})
    assert noted(tmp_path) == ["step 110: loss not finite", "step 130: loss 2"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"every": 0}, "log.every must be at least 1, got 0"),
        ({"samples_every": -1}, "log.samples_every must be at least 1, got -1"),
        ({"samples": 0}, "log.samples must be at least 1, got 0"),
        ({"wandb": ""}, "log.wandb must be the name of a project, or null, got ''"),
    ],
)
def test_wrong_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=f"^config: {re.escape(message)}"):
        LogConfig(**setting)


def test_importing_training_imports_neither_tensorboard_nor_wandb():
    code = (
        "import sys, training, training.record, training.environment, training.meters, training.preview\n"
        "training.record.LogConfig(tensorboard=True, wandb='mine').require_installed()\n"
        "print(sorted({'tensorboard', 'wandb', 'torch.utils.tensorboard'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"
