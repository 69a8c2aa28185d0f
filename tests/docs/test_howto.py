"""The commands on the how-to pages: their settings are those of the scripts, and those on digits run, with less to do.

The Python on the pages runs where they are built.
"""

from __future__ import annotations

import importlib
import re
import shlex
import typing
from pathlib import Path

import pytest
from scripts import EXAMPLES, call, call_in_ranks
from torch.distributed.run import get_args_parser

from training.config import read_config

PAGES = [
    page
    for page in sorted((Path(__file__).parents[2] / "docs" / "howto").glob("*.md"))
    if page.stem != "command-line"  # which has a test of its own
]
SCRIPTS = {"encode": "encode_latents"}
"""Where a command of ``sit`` is not named as its script."""
LESS = (
    "--model.name=SiT-T/8", "--data.batch_size=8", "--training.steps=2", "--sampling.num_samples=10",
    "--sampling.ode.num_steps=2", "--sampling.sde.num_steps=2",
)  # fmt: skip


class Command(typing.NamedTuple):
    """A command of a page: the program, the script, its flags, and those of torchrun before it."""

    page: str
    block: int
    program: str
    script: str
    flags: list[str]
    torchrun: list[str] | None


def commands():
    for page in PAGES:
        for number, block in enumerate(re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)):
            for line in block.replace("\\\n", " ").splitlines():
                program, *words = shlex.split(line, comments=True) or [""]
                before = None
                if program == "torchrun" and "--" in words:
                    before, words = words[: words.index("--")], words[words.index("--") + 1 :]
                if program in ("python", "torchrun") and words and words[0].startswith("examples/"):
                    yield Command(page.stem, number, program, Path(words[0]).stem, words[1:], before)
                if program == "sit" and (EXAMPLES / f"{SCRIPTS.get(words[0], words[0])}.py").exists():
                    yield Command(page.stem, number, program, SCRIPTS.get(words[0], words[0]), words[1:], before)


COMMANDS = list(commands())


def settings(command, monkeypatch):
    monkeypatch.chdir(EXAMPLES.parent)
    main = importlib.import_module(f"examples.{command.script}").main
    return read_config(command.flags, typing.get_type_hints(main)["config"])


def name(command):
    return f"{command.page}-{command.script}"


@pytest.mark.parametrize("command", COMMANDS, ids=name)
def test_its_flags_are_settings(command, monkeypatch):
    settings(command, monkeypatch)
    if command.torchrun is not None:
        get_args_parser().parse_args([*command.torchrun, "script.py"])


def test_both_forms_are_the_same(monkeypatch):
    """In a block where one is said to be the other."""
    pairs = 0
    for page in PAGES:
        for number, block in enumerate(re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)):
            if "# the same" not in block:
                continue
            here = [c for c in COMMANDS if (c.page, c.block) == (page.stem, number)]
            for script in {c.script for c in here}:
                found = [settings(c, monkeypatch) for c in here if c.script == script]
                assert len(found) == 1 or all(each == found[0] for each in found)
                pairs += len(found) > 1
    assert pairs >= 5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    config = str(EXAMPLES / "configs" / "digits.yaml")
    assert call("train.py", "--config", config, "--run", str(folder), *LESS) == 0
    return folder


def on_digits(*scripts, program="python"):
    """Those of a program; ``sit`` runs the same scripts with the same settings."""
    config = "examples/configs/digits.yaml"
    return [c for c in COMMANDS if c.script in scripts and c.program == program and config in c.flags]


@pytest.mark.parametrize("command", on_digits("sample", "generate", "likelihood"), ids=name)
def test_what_is_drawn_and_measured_on_digits(command, run, tmp_path, monkeypatch):
    monkeypatch.chdir(EXAMPLES.parent)
    flags = [*command.flags, "--run", str(run), *LESS]
    if command.script != "sample":
        flags += ["--output", str(tmp_path / "output")]
    if command.script == "likelihood":
        flags += [
            "--likelihood.count=2",
            "--likelihood.probes=1",
            "--likelihood.method=euler",
            "--likelihood.num_steps=2",
        ]
    assert call(f"{command.script}.py", *flags) == 0


@pytest.mark.parametrize("command", on_digits("train"), ids=name)
def test_what_is_trained_on_digits(command, tmp_path, monkeypatch):
    monkeypatch.chdir(EXAMPLES.parent)
    assert call("train.py", *command.flags, "--run", str(tmp_path), *LESS) == 0


@pytest.mark.parametrize("command", on_digits("train", program="torchrun"), ids=name)
def test_what_processes_train_on_digits(command, tmp_path, monkeypatch):
    monkeypatch.chdir(EXAMPLES.parent)
    count = int(command.torchrun[command.torchrun.index("--nproc_per_node") + 1])
    said = call_in_ranks(count, "train.py", *command.flags, "--run", str(tmp_path), *LESS)
    assert "trained 2 steps" in said
