import dataclasses
import json
import platform
import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from training import environment
from training.config import Config, PathText, TrainingConfig, read_config
from training.environment import commit, write_facts
from training.processes import Processes

PROCESSES = Processes(0, 3, torch.device("cpu"))


@pytest.fixture(autouse=True)
def _no_repository_above(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


@pytest.fixture
def code(tmp_path):
    """A repository with a text of Windows' line ends, a binary file and a module."""
    folder = tmp_path / "code"
    (folder / "package").mkdir(parents=True)
    (folder / "text.txt").write_bytes(b"one\r\ntwo\r\n")
    (folder / "binary").write_bytes(bytes(range(256)))
    (folder / "package" / "module.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text("ignored*\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first")
    return folder


def git(folder, *arguments) -> str:
    command = ["git", "-C", str(folder), "-c", "core.autocrlf=false", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def facts(run, code, config=None, step=0):
    run.mkdir(exist_ok=True)
    write_facts(run, config or {}, PROCESSES, step, code)
    return json.loads((run / "environment.json").read_text())


@pytest.mark.parametrize("path", ["gvp", PathText("t**2", "1 - t")])
def test_the_settings_are_read_back_as_they_are(tmp_path, path):
    training = TrainingConfig(steps=7, learning_rate=1e-5, schedule="cosine", decay_steps=10**6, compile=False)
    config = Config(run=str(tmp_path), seed=3, path=path, weight="1/(1 - t + 1e-3)", training=training)
    facts(tmp_path, tmp_path, dataclasses.asdict(config))
    assert (
        (tmp_path / "config.yaml").read_text().startswith(f"run: {tmp_path}\ninit: null\nseed: 3\n")
    )  # in the order of Config
    assert read_config(["--config", str(tmp_path / "config.yaml")]) == config
    facts(tmp_path, tmp_path, dataclasses.asdict(dataclasses.replace(config, seed=4)))
    assert read_config(["--config", str(tmp_path / "config.yaml")]).seed == 4


def test_each_start_is_an_entry(tmp_path, code):
    first = facts(tmp_path / "run", code)
    second = facts(tmp_path / "run", code, step=40)
    assert second[:1] == first
    assert [entry["step"] for entry in second] == [0, 40]
    entry = second[1]
    assert (datetime.now(UTC) - datetime.fromisoformat(entry["date"])).total_seconds() < 60
    assert shlex.split(entry["command"]) == Path("/proc/self/cmdline").read_text().split("\0")[:-1]
    assert entry["python"] == platform.python_version()
    assert (entry["versions"]["torch"], entry["versions"]["numpy"]) == (torch.__version__, np.__version__)
    assert (entry["processes"], entry["device"], entry["cuda"]) == (3, "cpu", torch.version.cuda)
    host = subprocess.run(["uname", "-n"], capture_output=True, text=True, check=True).stdout.strip()
    assert (entry["host"], entry["devices"]) == (host, [platform.machine()])


def test_clean_code_is_its_commit(tmp_path, code):
    (code / "ignored.py").write_text("")
    (entry,) = facts(tmp_path / "run", code / "package")
    assert entry["commit"] == commit(code) == git(code, "rev-parse", "HEAD")
    assert (entry["dirty"], entry["diff"], entry["untracked"]) == (False, None, [])
    assert list((tmp_path / "run").glob("*.diff")) == []


def test_from_the_commit_and_the_diff_the_code_is_had_again(tmp_path, code):
    git(code, "config", "color.ui", "always")
    git(code, "clone", "-q", str(code), str(tmp_path / "again"))
    (code / "text.txt").write_bytes(b"one\r\nthree\xff\r\nno newline")
    (code / "binary").write_bytes(bytes(range(255, -1, -1)))
    for new in (code / "package" / "new é.py", code / "other.py"):
        new.write_text("y = 2\n")
    (entry,) = facts(tmp_path / "run", code / "package")
    assert entry["dirty"] is True
    assert entry["diff"].startswith(f"git-{entry['commit'][:7]}-")
    assert entry["untracked"] == ["other.py", "package/new é.py"]
    git(tmp_path / "again", "apply", str(tmp_path / "run" / entry["diff"]))
    for name in ("text.txt", "binary"):
        assert (tmp_path / "again" / name).read_bytes() == (code / name).read_bytes()


def test_starts_from_one_commit_keep_the_diff_of_each(tmp_path, code):
    names = []
    for number in (2, 3, 3):
        (code / "package" / "module.py").write_text(f"x = {number}\n")
        names.append(facts(tmp_path / "run", code)[-1]["diff"])
    assert names[0] != names[1] == names[2]
    assert [f"+x = {n}" in (tmp_path / "run" / names[n - 2]).read_text() for n in (2, 3)] == [True, True]


def test_without_git_or_a_repository_nothing_is_known_of_the_commit(tmp_path, code, monkeypatch):
    (entry,) = facts(tmp_path / "run", tmp_path)
    assert {entry[name] for name in ("commit", "dirty", "diff", "untracked")} == {None}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert facts(tmp_path / "run", code)[1]["commit"] is None
    assert commit(code) is None


def test_a_package_that_is_not_there_has_no_version(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "no-such-package"))
    versions = facts(tmp_path / "run", tmp_path)[0]["versions"]
    assert (versions["torch"], versions["no-such-package"]) == (torch.__version__, None)
