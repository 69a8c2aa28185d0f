"""``sit completion SHELL``: a script by which a shell completes commands, flags and choices, without asking Python."""

from __future__ import annotations

import argparse
import importlib.util
import runpy
import sys
import typing
from pathlib import Path
from typing import Any, Final

from sit.__main__ import OTHERS, PATHS, SCRIPTS, TRAINING, configs, engine, fail

SHELLS: Final = ("bash", "zsh", "fish")
HELP: Final = """usage: sit completion {bash,zsh,fish}

Print a script by which the shell completes the commands of sit, their flags, choices and files. It asks no Python and
answers at once. Write it again after an update.

examples:
  sit completion bash > ~/.local/share/bash-completion/completions/sit
  sit completion zsh > ~/.zfunc/_sit    # with fpath+=~/.zfunc before compinit in ~/.zshrc
  sit completion fish > ~/.config/fish/completions/sit.fish
"""


def show_script(words: list[str]) -> None:
    """Print the script for a shell."""
    if {"-h", "--help"} & {*words}:
        print(HELP, end="")
    elif len(words) != 1 or words[0] not in SHELLS:
        fail(f"completion: the shell must be one of {', '.join(SHELLS)}, got {' '.join(words) or 'none'}.")
    else:
        print(script(words[0]))


def script(shell: str) -> str:
    """The script for a shell."""
    try:
        import shtab
    except ImportError:
        fail('completion: needs shtab. Install it: pip install "sit-interpolants[training]".')
    parser = argparse.ArgumentParser("sit")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers()
    for name, (file, about) in TRAINING.items():
        _add_settings(commands.add_parser(name, help=about), SCRIPTS / file)
    known = runpy.run_path(str(engine("__main__.py")))
    for name, about in PATHS.items():
        command = known["parsers"]("sit")[name]
        for action in command._actions:
            if action.dest == "alpha":
                action.choices = known["PATHS"]
            elif action.dest == "html":
                action.complete = shtab.FILE
        commands.add_parser(name, help=about, parents=[command], add_help=False)
    choices = {"configs": tuple(configs()), "completion": SHELLS}
    for name, about in OTHERS.items():
        commands.add_parser(name, help=about).add_argument("name", choices=choices[name])
    return str(shtab.complete(parser, shell))


def _add_settings(command: argparse.ArgumentParser, file: Path) -> None:
    """The flags of a script."""
    import shtab

    from training.settings import make_parser, settings_of

    kind = _settings_class(file)
    help_of = {action.dest: str(action.help).replace("%", "%%") for action in make_parser(kind)._actions}
    _complete(command.add_argument("--config", help=help_of["config"]), _config_files())
    command.add_argument("--print_config", action="store_true", help=help_of["print_config"])
    for name, (metavar, values, _) in settings_of(kind):
        action = command.add_argument(f"--{name}", choices=values or None, help=help_of.get(name))
        if metavar == "TEXT" and set(values) <= {"null"}:
            _complete(action, shtab.FILE)


def _complete(action: argparse.Action, how: Any) -> None:
    action.complete = how  # type: ignore[attr-defined]  # what shtab looks for


def _settings_class(file: Path) -> type:
    """The dataclass of the settings that the function ``main`` of a script takes."""
    spec = importlib.util.spec_from_file_location(f"sit_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # where dataclasses and their docstrings are looked up
    spec.loader.exec_module(module)
    kind: type = typing.get_type_hints(module.main)["config"]
    return kind


def _config_files() -> dict[str, Any]:
    """Names of configurations, and files in YAML, for each shell."""
    names = " ".join(configs())
    return {
        "bash": "_sit_config_files",
        "zsh": "_sit_config_files",
        "fish": "(_sit_config_files)",
        "preamble": {
            "bash": f"""_sit_config_files() {{
  compgen -W "{names}" -- "$1"
  compgen -f -X '!*.yaml' -- "$1"
  compgen -d -- "$1"
}}""",
            "zsh": f"""_sit_config_files() {{
  compadd {names}
  _files -g '*.yaml'
}}""",
            "fish": f"""function _sit_config_files
  printf '%s\\n' {names}
  __fish_complete_suffix .yaml
end""",
        },
    }
