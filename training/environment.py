"""Where a run was made: its settings, and for each start the code, the versions and the machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from subprocess import CalledProcessError, run
from typing import Any, Final

import torch
import yaml

import interpolants
from training.files import write_file, write_text
from training.processes import Processes

CONFIG_FILE: Final = "config.yaml"
ENVIRONMENT_FILE: Final = "environment.json"
PACKAGES: Final = ("numpy", "pillow", "safetensors", "sympy", "torch", "torchdiffeq", "torchsde")
CODE: Final = Path(__file__).parent


def write_facts(folder: Path, config: Mapping[str, Any], processes: Processes, step: int, code: Path = CODE) -> None:
    """Write the settings of a run and add this start to those before it.

    Args:
        folder: Of the run. ``config.yaml`` in it can be read back by ``--config``; ``environment.json`` is a list with
            an entry a start; ``git-<commit>-<hash>.diff`` is what the code had that its commit has not.
        config: Settings, plain data.
        processes: That train.
        step: At which they start.
        code: A folder of the code.
    """
    write_text(folder / CONFIG_FILE, yaml.safe_dump(dict(config), sort_keys=False))
    file = folder / ENVIRONMENT_FILE
    before = json.loads(file.read_text()) if file.exists() else []
    accelerators = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    entry = {
        "date": now(),
        "step": step,
        "command": shlex.join(sys.orig_argv),
        **_git_facts(folder, code),
        "python": platform.python_version(),
        "versions": {"interpolants": interpolants.__version__, **{name: _version(name) for name in PACKAGES}},
        "cuda": torch.version.cuda,
        "host": platform.node(),
        "processes": processes.count,
        "device": str(processes.device),
        "devices": accelerators or [platform.processor() or platform.machine()],
    }
    write_text(file, json.dumps([*before, entry], indent=2) + "\n")


def commit(code: Path = CODE) -> str | None:
    """Of the code in a folder, where git knows it."""
    found = _git(code, "rev-parse", "HEAD")
    return None if found is None else found.decode().strip()


def now() -> str:
    """The date and time with the offset from UTC."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _git_facts(folder: Path, code: Path) -> dict[str, Any]:
    """Commit; whether files that git knows are not as in it, and how; and modules that it does not know."""
    found = commit(code)
    if found is None:
        return {"commit": None, "dirty": None, "diff": None, "untracked": None}
    diff = _git(code, "diff", "--no-color", "--no-ext-diff", "--binary", "HEAD") or b""
    name = f"git-{found[:7]}-{hashlib.sha256(diff).hexdigest()[:7]}.diff" if diff else None
    if name is not None:
        write_file(folder / name, lambda stream: stream.write(diff))
    unknown = _git(code, "ls-files", "-z", "--others", "--exclude-standard", "--full-name", ":/*.py") or b""
    return {"commit": found, "dirty": bool(diff), "diff": name, "untracked": os.fsdecode(unknown).split("\0")[:-1]}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(code: Path, *arguments: str) -> bytes | None:
    """What git says, to the byte; None where there is no git or no repository."""
    try:
        return run(["git", "-C", str(code), *arguments], capture_output=True, check=True).stdout
    except (OSError, CalledProcessError):
        return None
