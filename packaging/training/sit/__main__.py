"""``sit COMMAND``, also ``python -m sit COMMAND``: the scripts of examples/ and the commands of interpolants.

A command is a script, run as if by ``python``: what a person copies is what ``sit`` runs. Nothing but the standard
library is imported before that, so that help is there at once.
"""

from __future__ import annotations

import difflib
import os
import re
import runpy
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Final, NoReturn

HERE: Final = Path(__file__).parent
SCRIPTS: Final = HERE / "scripts" if (HERE / "scripts").is_dir() else HERE.parents[2] / "examples"
"""The wheel carries them beside this file; in a checkout they are where people look for them."""

TRAINING: Final = {
    "train": ("train.py", "train a SiT, or resume a run"),
    "sample": ("sample.py", "pictures of samples by the ODE and by the SDE"),
    "generate": ("generate.py", "many samples, on any number of GPUs; the same command resumes"),
    "evaluate": ("evaluate.py", "FID and other figures of samples beside real images"),
    "likelihood": ("likelihood.py", "bits per dimension of images"),
    "reverse": ("reverse.py", "the noise that leads to given images, by the ODE"),
    "encode": ("encode_latents.py", "encode images once, to train on their latents"),
}
PATHS: Final = {
    "prove": "what follows from alpha(t) and sigma(t), and which identities are proved of it",
    "explore": "pictures of a path and of all that follows from it, in the browser or as one file",
}
OTHERS: Final = {
    "configs": "the configurations that come along: their names, or one of them as YAML",
    "completion": "a script by which bash, zsh or fish completes commands, flags and choices",
}
COMMANDS: Final = (*TRAINING, *PATHS, *OTHERS)

HELP: Final = """usage: sit COMMAND ...
       sit COMMAND --help

Probability paths and SiT: derive, prove, train, sample, measure.

train and sample:
{training}

paths, noise at t = 0 and data at t = 1:
{paths}

help:
{others}

examples:
  sit train --config digits
  sit sample --config digits --sampling.sde.w sin_squared
  sit train --config digits --run runs/mine --path.alpha "t**2" --path.sigma "1-t"
  sit prove "sin(pi*t/2)" "cos(pi*t/2)"
  torchrun --nproc_per_node 8 -m -- sit train --config imagenet256-XL

exit codes: 0 done; 1 an identity failed; 2 wrong input or a missing file; 130 interrupted
"""
CONFIGS_HELP: Final = """usage: sit configs [NAME]

The configurations that come along, which --config takes by their names; or one of them, to change.

examples:
  sit configs
  sit configs digits > mine.yaml
  sit train --config mine.yaml --run runs/mine
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say, by default those of the process; returns the exit code."""
    try:
        command, *words = (sys.argv[1:] if arguments is None else arguments) or [""]
        code = _run(command, words)
        if sys.stdout is not None:  # as it is where it is closed
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has seen enough, as head has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        fail(str(error))


def _run(command: str, words: list[str]) -> int:
    if command in ("-h", "--help"):
        print(overview(), end="")
    elif command == "--version":
        print(f"sit {version()}")
    elif command in TRAINING:
        file, _ = TRAINING[command]
        run_script(SCRIPTS / file, [f"sit {command}", *with_config(words)])
    elif command in PATHS:
        run_script(engine("__main__.py"), ["sit", command, *words])
    elif command == "configs":
        show_configs(words)
    elif command == "completion":
        from sit.completion import show_script

        show_script(words)
    elif not command:
        print(overview(), end="", file=sys.stderr)
        return 2
    else:
        fail(f"there is no command {command!r}.{nearest(command, COMMANDS)} See: sit --help.")
    return 0


def overview() -> str:
    """What ``sit --help`` prints."""
    training = {name: about for name, (_, about) in TRAINING.items()}
    groups = {"training": training, "paths": PATHS, "others": OTHERS}
    rows = {key: "\n".join(f"  {name:<12}{about}" for name, about in group.items()) for key, group in groups.items()}
    return HELP.format(**rows)


def run_script(file: Path, argv: list[str]) -> None:
    """Run a file as Python does, but for the first of these words, by which its help calls it."""
    module = ModuleType("__main__")
    module.__file__ = str(file)
    sys.argv, sys.modules["__main__"] = argv, module
    exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)


def engine(name: str) -> Path:
    """A file of the package interpolants, which is not imported: that would import torch."""
    spec = find_spec("interpolants")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name(name)


def version() -> str:
    """Of interpolants, which is that of all."""
    found = re.search(r'^__version__ = "(.+)"$', engine("__init__.py").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def configs() -> dict[str, Path]:
    """The configurations that come along, but for that of a study, by their names."""
    return {file.stem: file for file in sorted((SCRIPTS / "configs").glob("*.yaml")) if file.stem != "study"}


def with_config(words: list[str]) -> list[str]:
    """Words in which ``--config NAME``, of a configuration that comes along, has become ``--config FILE``."""
    words = list(words)
    for place, word in enumerate(words):
        if words[place - 1 : place] == ["--config"]:
            words[place] = config_file(word)
        elif word.startswith("--config="):
            words[place] = f"--config={config_file(word.removeprefix('--config='))}"
    return words


def config_file(name: str) -> str:
    """The file of a configuration that comes along; anything but a bare name is a file of the user's."""
    if not re.fullmatch(r"[\w-]+", name) or Path(name).exists():
        return name
    known = configs()
    if name not in known:
        fail(f"config: there is no file and no configuration {name!r}.{nearest(name, known)} See: sit configs.")
    return str(known[name])


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence with the name that may have been meant, or nothing."""
    near = difflib.get_close_matches(word, [*known], n=1)
    return f" Nearest: {near[0]}." if near else ""


def show_configs(words: list[str]) -> None:
    """Print their names, each with the first line that it says of itself; or one of them."""
    if {"-h", "--help"} & {*words}:
        print(CONFIGS_HELP, end="")
    elif words:
        print(Path(config_file(words[0])).read_text(), end="")
    else:
        for name, file in configs().items():
            print(f"{name:<16}{file.read_text().splitlines()[0].removeprefix('# ')}")


def fail(message: str) -> NoReturn:
    """Say in one line what is wrong, and exit with 2."""
    terminal = runpy.run_path(str(engine("terminal.py")))
    print(terminal["paint"]("error:", terminal["RED"], sys.stderr), message, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    sys.exit(main())
