"""Settings of scripts: dataclasses whose fields say what they may be, and a parser whose ``--help`` is readable."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
import textwrap
import types
import typing
from argparse import SUPPRESS, Action
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Any, Final, NamedTuple

import jsonargparse

METAVARS: Final = {str: "TEXT", int: "INTEGER", float: "NUMBER", bool: "{true,false}"}
CONTRACTS: Final = {str: "text", int: "an integer", float: "a number", bool: "true or false", type(None): "null"}
WIDEST: Final = 40
"""Characters of the choices that stand for a value; if there are more, its text says them."""
EXIT_CODES: Final = "exit codes: 0 done; 2 wrong input or a missing file; 130 interrupted"


def one_of(choices: Iterable[str], default: Any = dataclasses.MISSING) -> Any:
    """A field that must have one of these values, or its default; see require_choices."""
    return dataclasses.field(default=default, metadata={"choices": tuple(choices)})


def such_as(known: Iterable[str], default: Any = dataclasses.MISSING, *, runs_code: bool = False) -> Any:
    """A field for which these values are known, and others are checked elsewhere.

    With ``runs_code`` the others name code: see require_typed.
    """
    return dataclasses.field(default=default, metadata={"known": tuple(known), "runs_code": runs_code})


def require_typed(settings: Any, arguments: Iterable[str]) -> None:
    """Check that whatever names code was typed as a flag, and does not come from a file.

    Raises:
        ValueError: If it was not.
    """
    typed = {argument.partition("=")[0] for argument in arguments}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.metadata.get("runs_code") and f"--{field.name}" not in typed and value not in field.metadata["known"]:
            raise ValueError(
                f"config: {field.name} must be typed as a flag where it names code, got {value!r} from a file. Add "
                f"--{field.name} {value} to the command if you trust it."
            )


def require_choices(settings: Any, group: str = "") -> None:
    """Check the fields that are ``one_of``.

    Args:
        settings: A dataclass.
        group: Of the names of its fields, such as "data".

    Raises:
        ValueError: If one has another value.
    """
    for field in dataclasses.fields(settings):
        choices, value = field.metadata.get("choices"), getattr(settings, field.name)
        if choices is not None and value not in choices and value != field.default:
            name = f"{group}.{field.name}" if group else field.name
            raise ValueError(f"config: {name} must be one of {', '.join(choices)}, got {value!r}.")


class Setting(NamedTuple):
    """What may follow a flag: what stands for it in help, all of it that is words, and what errors say that it is."""

    metavar: str
    values: tuple[str, ...]
    contract: str


def settings_of(kind: type, group: str = "") -> Iterator[tuple[str, Setting]]:
    """The fields of a dataclass, and of the dataclasses in it, by the names of their flags."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name, members = group + field.name, _members(hints[field.name])
        if not dataclasses.is_dataclass(hints[field.name]):
            yield name, _setting(field, members)
        for member in members:
            if isinstance(member, type) and dataclasses.is_dataclass(member):
                yield from settings_of(member, f"{name}.")


def _members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the type alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _alternatives(kind: type) -> Iterator[type]:
    """The dataclasses that a field of a dataclass may be, among other types."""
    for hint in typing.get_type_hints(kind).values():
        members = [m for m in _members(hint) if isinstance(m, type) and dataclasses.is_dataclass(m)]
        if members and not dataclasses.is_dataclass(hint):
            yield from members
        for member in members:
            yield from _alternatives(member)


def _setting(field: dataclasses.Field[Any], members: tuple[Any, ...]) -> Setting:
    null = ("null",) if type(None) in members else ()
    words = ("true", "false") if bool in members else field.metadata.get("choices", ())
    metavar = f"{{{','.join((*words, *null))}}}"
    if not words or len(metavar) > WIDEST:
        tuples = [typing.get_args(member)[0] for member in members if typing.get_origin(member) is tuple]
        metavar = next(name for kind, name in METAVARS.items() if kind in (*members, *tuples))
        if tuples and str not in members:
            metavar = f"[{metavar},...]"
    contract = " or ".join(_contract(member) for member in members)
    return Setting(metavar, (*words, *field.metadata.get("known", ()), *null), contract)


def _contract(kind: Any) -> str:
    """One type in words, such as "a number"; that of a list by what is written for it."""
    if typing.get_origin(kind) is not tuple:
        return CONTRACTS.get(kind, "a mapping")
    each = ["..." if member is Ellipsis else METAVARS[member] for member in typing.get_args(kind)]
    return f"a list [{', '.join(each)}]"


def make_parser(kind: type, about: str = "") -> jsonargparse.ArgumentParser:
    """A parser of settings, from flags and files: the same one again for the same arguments.

    Args:
        kind: The dataclass of the settings.
        about: What the script does, as its docstring says it, which may end in ``Commands::``, examples.
    """
    # jsonargparse imports what a file names as class_path: of all code, none but the alternatives of a setting.
    own = [f"{member.__module__}.{member.__qualname__}" for member in _alternatives(kind)]
    jsonargparse.set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=own)
    return _parser(kind, about, PurePath(sys.argv[0]).name)


@functools.lru_cache(maxsize=16)
def _parser(kind: type, about: str, prog: str) -> jsonargparse.ArgumentParser:
    description, examples = in_words_of(prog, about)
    parser = jsonargparse.ArgumentParser(
        prog=prog,
        exit_on_error=False,
        allow_abbrev=False,
        description=f"{description}\n\nexamples:\n{examples}" if examples else description,
        epilog=EXIT_CODES,
        formatter_class=_Help,
    )
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML file; flags after it have precedence.")
    parser.add_class_arguments(kind)
    known = dict(settings_of(kind))
    for action in parser._actions:
        if action.dest in known:
            action.metavar, values, _ = known[action.dest]
            action.help = _help(action, values)
            if "true" in values:  # the flag alone means true
                action.nargs, action.const = "?", True
        elif action.dest == "print_config":
            action.metavar, action.help = "", "Print the settings as YAML, and exit."
        elif action.dest not in ("help", "config"):
            action.help = SUPPRESS  # a file for each group, and what jsonargparse says of classes
    for group in parser._action_groups:
        group.title = str(group.title).replace("``", "`")
    needed = [f"--{action.dest} {action.metavar}" for action in parser._actions if action.required]
    parser.usage = " ".join(["%(prog)s", *needed, "[--config FILE] [--SETTING VALUE ...]"])
    return parser


def _help(action: Action, values: tuple[str, ...]) -> str:
    """What it says of itself, then the values that it does not name, and the default."""
    text = str(action.help)
    words = [value for value in values if value != "null"]
    if action.metavar == "TEXT" and words and not all(re.search(rf"\b{re.escape(word)}\b", text) for word in words):
        text += f" Known: {', '.join(words)}."
    text = text.replace("``", "`")
    return text + (" (required)" if action.required else f" (default: {_as_text(action.default)})")


def _as_text(value: Any) -> str:
    """As a flag takes it."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_as_text, value))}]"
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def in_words_of(prog: str, about: str) -> tuple[str, str]:
    """The docstring of a script as text and examples, as it is called: ``sit train`` is examples/train.py too."""
    if prog.startswith("sit "):
        about = re.sub(r"python examples/\w+\.py", prog, about)
        about = re.sub(r"-- examples/\w+\.py", f"-m -- {prog}", about)
        about = re.sub(r"examples/configs/([\w-]+)\.yaml", r"\1", about)
    text, _, commands = inspect.cleandoc(about).replace("``", "`").partition("\n\nCommands::\n\n")
    return text, textwrap.indent(textwrap.dedent(commands), "  ")


class _Help(jsonargparse.DefaultHelpFormatter):
    """Keeps paragraphs apart, leaves examples as they are, and adds no types: the names of the values say them."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        return "\n\n".join(each if "\n  " in each else textwrap.fill(each, width) for each in paragraphs)

    def _get_help_string(self, action: Action) -> str:
        return str(action.help)
