"""The page about many GPUs: its script against what processes hold, its commands against the parsers they are for."""

import importlib.util
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.run import get_args_parser
from torch.profiler import ProfilerActivity, profile

from models import PUBLISHED, create_model
from training.config import Config, read_config
from training.trainer import Trainer

ROOT = Path(__file__).parents[1]
HOLDINGS = ROOT / "tests" / "support" / "holdings.py"
SETTINGS = (
    "--config", str(ROOT / "examples/configs/digits.yaml"), "--model.name", "SiT-T/2", "--data.batch_size", "4",
    "--training.ema_decays", "[0.9, 0.5]",
)  # fmt: skip


def load(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


cluster = load(ROOT / "docs" / "cluster.py")
PAGE = cluster.PAGE.read_text(encoding="utf-8")


def test_the_page_is_what_its_script_writes():
    assert cluster.page(PAGE) == PAGE, "run: python docs/cluster.py"


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_hold_what_is_computed(tmp_path, monkeypatch, processes):
    """One alone, and two by FSDP: the first what is computed, and both together each number once."""
    arguments = [str(HOLDINGS), str(tmp_path), *SETTINGS, "--run", str(tmp_path / "run"), "--training.parallel", "fsdp"]
    if processes == 1:
        monkeypatch.setattr(sys, "argv", arguments)
        runpy.run_path(str(HOLDINGS))
    else:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--"]
        subprocess.run([*launcher, *arguments], check=True, cwd=ROOT, capture_output=True, timeout=100)
    found = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(processes)]
    model = Trainer(read_config([*SETTINGS, "--run", str(tmp_path / "new")])).model
    assert found[0] == [*cluster.held(model, processes, averages=2), cluster.gathered(model, processes)]
    assert [sum(sizes) for sizes in zip(*found, strict=True)][:-1] == list(cluster.held(model, averages=2))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_forward_pass_leaves_allocated_what_is_computed(checkpointing):
    """By the profiler's account of the allocator, with real numbers; with checkpointing, random states come on top."""
    model = create_model("SiT-T/2", input_size=16).train()
    model.activation_checkpointing = checkpointing
    x, t, y = torch.randn(4, 4, 16, 16), torch.rand(4), torch.arange(4)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:  # noqa: SIM117 - it counts the exit
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = model(x, t, y)
    allocated = sum(event.self_cpu_memory_usage for event in profiled.key_averages()) - out.nbytes
    sample, copies = cluster.kept(model.config, checkpointing)
    assert 4 * sample + copies == pytest.approx(allocated, rel=0.05)


def test_a_checkpoint_has_the_bytes_that_are_computed(tmp_path):
    trainer = Trainer(read_config([*SETTINGS, "--run", str(tmp_path), "--training.steps", "1"]))
    trainer.fit()
    (folder,) = (tmp_path / "checkpoints").iterdir()
    found = {
        file.stem: sum(tensor.nbytes for tensor in load_file(file).values()) for file in folder.glob("*.safetensors")
    }
    computed = cluster.checkpoint(trainer.model, averages=2)
    assert found["model"] == computed["network"]
    assert found["optimizer"] == computed["optimizer"]
    assert sum(found.values()) == sum(computed.values())


def test_the_published_network_has_the_published_size_and_cost():
    """The released one has four channels more in its last layer, with their biases for each pixel of a patch."""
    for name, published in PUBLISHED.items():
        model = cluster.network(name)
        doubled = 4 * 4 * (model.config.hidden_size + 1)
        assert cluster.checkpoint(model)["network"] == 4 * (published.parameters - doubled)
    step = cluster.seconds(6e9 * PUBLISHED["SiT-XL/2"].gmacs, 8, 0.5)
    assert step == pytest.approx(256 / (8 * 989e12 * 0.5 / (6 * 118.6e9)))
    row = re.search(r"\| 8 \| 50% \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|", PAGE).groups()
    expected = (1e3 * step, 1 / step, 4e5 * step / 86400, 7e6 * step / 86400)
    assert [float(cell) for cell in row] == pytest.approx(expected, rel=0.02)  # of two digits


def test_the_numbers_in_the_sentences_follow_too():
    model = cluster.network("SiT-XL/2")
    eight, many = (1e3 * cluster.sent(model, gpus, sharded=False) / 50e9 for gpus in (8, 64))  # ms of a link
    text = " ".join(PAGE.split())
    for claim in (
        f"450 GB/s (NVLink) that is {eight / 9:.0f} ms",
        f"it is {many / 8:.0f} ms for machines with eight links of 400 Gbit/s, and {many:.0f} ms",
        f"short for {sum(cluster.checkpoint(model).values()) / 1e9:.1f} GB",
        f"of 7 M steps, {7e6 / 5e4 * sum(cluster.checkpoint(model).values()) / 1e12:.1f} TB",
        f"about {1281167 * 2 * 2 * 4 * 32 * 32 * 2 / 1e9:.0f} GB for the 1.28 million images",
        f"{712e9 * 256 * 0.81 / (8 * 312e12):.0%}".replace("%", " %") + " of their peak",
        f"{cluster.kept(cluster.network('SiT-S/2').config, False).sample / 2**20:.1f} a sample, SiT-S/2",
    ):
        assert claim in text


def commands():
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    return [shlex.split(line)[line.startswith("srun") :] for line in lines if "examples/" in line]


@pytest.mark.parametrize("command", commands(), ids=lambda command: f"{command[1]} {command[-1]}")
def test_each_command_is_understood(command, monkeypatch):
    """By torchrun, and by the script that it starts."""
    monkeypatch.chdir(ROOT)
    assert command[0] == "torchrun"
    launched = get_args_parser().parse_args(command[1:])
    name = launched.training_script
    kind = Config if name == "examples/train.py" else load(ROOT / name).Encoding
    read_config(launched.training_script_args, kind)
    assert launched.nproc_per_node == "8"


def test_each_setting_of_the_page_exists():
    flags = re.findall(r"`--((?:training|data|log)\.[\w.]+)( [\w.]+)?`", PAGE)
    assert {name for name, _ in flags} >= {"training.parallel", "training.micro_batch", "data.batch_size"}
    read_config([*SETTINGS, *(part for name, value in flags for part in (f"--{name}", value.strip()))])
    names = set(re.findall(r"`((?:training|data|log)\.\w+)`", PAGE))
    config = Config()
    assert all(hasattr(getattr(config, group), name) for group, name in (each.split(".") for each in names))
    assert len(commands()) == 4
