"""Mistakes in the flags and files of a command, each explained in one line that names the setting that was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import jsonargparse
import yaml

from training.checkpoint import flat, run_of
from training.initial import is_official
from training.settings import Setting, settings_of

HABITS: Final[dict[str, str]] = {
    "lr": "training.learning_rate", "data-path": "data.source, source", "data-dir": "data.source, source",
    "batch-size": "data.batch_size", "global-batch-size": "data.batch_size", "num-workers": "data.workers, workers",
    "image-size": "model.input_size", "resolution": "model.input_size, image_size",
    "num-classes": "model.num_classes", "epochs": "training.steps",
    "max-steps": "training.steps", "results-dir": "run", "output-dir": "output, run", "output": "run",
    "global-seed": "seed", "ckpt-every": "training.checkpoint_every", "log-every": "log.every",
    "sample-every": "log.samples_every", "cfg-scale": "sampling.guidance_scale", "cfg": "sampling.guidance_scale",
    "wandb": "log.wandb", "guidance-scale": "sampling.guidance_scale", "num-fid-samples": "sampling.num_samples",
    "num-sampling-steps": "sampling.ode.num_steps & sampling.sde.num_steps",
    "sampling-method": "sampling.ode.method & sampling.sde.method", "atol": "sampling.ode.atol",
    "rtol": "sampling.ode.rtol", "diffusion-form": "sampling.sde.w", "diffusion-norm": "sampling.sde.w",
    "last-step": "sampling.sde.last_step", "last-step-size": "sampling.sde.interval", "path-type": "path",
    "change-path": "sampling.path", "loss-weight": "space & weight", "train-eps": "time.interval",
    "sample-eps": "sampling.ode.interval & sampling.sde.interval", "weight-decay": "training.weight_decay",
    "mixed-precision": "training.precision", "tf32": "precision, training.precision",
    "no-tf32": "precision, training.precision", "ckpt": "pretrained, init", "checkpoint": "pretrained, init",
    "pretrained": "init", "resume": "run", "sample-dir": "output", "per-proc-batch-size": "sampling.batch_size",
}  # fmt: skip
"""Flags elsewhere, with dashes between words, and the settings that they mean. Commas separate alternatives, of which
the first that the command has is named; & joins settings that are all named."""
FIXES: Final = {
    "epochs": "Steps are epochs times images over data.batch_size.",
    "resume": "The command that began a run resumes it.",
    "tf32": "Set it to tf32.",
    "no-tf32": "Set it to float32.",
    "diffusion-norm": "The norm is its argument: sigma(0.5).",
    "last-step-size": "For a last step of 0.04, end it at 0.96: [0, 0.96].",
}
"""How to translate the value, where the name is not enough."""
ELSEWHERE: Final = {
    "reverse": "It is a command: sit reverse.",
    "likelihood": "It is a command: sit likelihood.",
    "model.condition_dim": "No data here have vectors as conditions. In Python: docs/howto/own-network.md, vectors.",
}
"""What is no setting of any command."""
NONE: Final = "Nothing has a name like it."
NEAR: Final = 0.6
"""Similarity above which a name may have been meant; difflib's own choice."""


def explained(message: str, parser: jsonargparse.ArgumentParser, kind: type, arguments: Sequence[str]) -> str:
    """What the message of a parser means, on one line.

    Args:
        message: The first mistake that the parser came upon.
        parser: The parser.
        kind: The dataclass of its settings.
        arguments: What it was given. All that it does not know is named, in ``arguments`` and in the files that they
            name.
    """
    message, known = " ".join(message.split()), dict(settings_of(kind))
    if found := re.search(r"Importing '(.*?)' is not allowed", message):
        fix = _of_weights(found[1], known) or "Nothing that a configuration names is imported."
        return f"config: no setting may name code, got {found[1]!r}. {fix}"
    if found := re.search(r'Parser key "((?:sampling\.)?path)"', message):
        return _wrong_path(found[1], message)
    if re.search(r"unrecognized arguments: |Option '.*' is not accepted|does not accept option '", message):
        return f"config: {_all_unknown(known, arguments) or message}"
    if found := re.search("the following arguments are required: (.*)", message):
        needed = found[1].split(", ")
        about = {
            action.dest: " ".join(str(action.help).removesuffix(" (required)").split()) for action in parser._actions
        }
        flags = "; ".join(f"--{name} {known[name].metavar} ({about[name].rstrip('.')})" for name in needed)
        return f"config: {_listed(needed)} must be set, got nothing. Add {flags}."
    if found := re.search(r'Parser key "config": (.*): \'(.*)\'', message):
        fix = _of_weights(found[2], known) or "See: sit configs."
        return f"config: --config must be a file of settings, got {found[2]!r}. {found[1]}. {fix}"
    if found := re.search(r"""Parser key "([\w.]+)": Unable to load config ["'](.*?)["']""", message):
        first = next(key for key in known if key.startswith(f"{found[1]}."))
        fix = _of_weights(found[2], known) or f"Did you mean --{first} {found[2]}?"
        return f"config: {found[1]} is a group of settings, got {found[2]!r}. {fix}"
    if found := re.search("(Unexpected config|Problems parsing config): (.*)", message):
        return f"config: --config must be a file of settings in YAML, and cannot be read: {found[2]}"
    if found := re.search(r"argument --([\w.]+): expected one argument", message):
        contract = known[found[1]].contract if found[1] in known else "followed by a value"
        return f"config: {found[1]} must be {contract}, got nothing after --{found[1]}."
    if found := re.search(r'Parser key "([\w.]+)":.*?(?:Got|Given) value: (.*)$', message):
        got = re.sub(r".*Given value: ", "", found[2])
        return _wrong_value(found[1], "null" if got == "None" else repr(got), known)
    return f"config: {message}"


def _wrong_value(name: str, got: str, known: Mapping[str, Setting]) -> str:
    """That a value is of another type than the setting."""
    contract = f" must be {known[name].contract}" if name in known else " cannot be that"
    none = " 0 is none." if name == "model.num_classes" and got == "null" else ""
    return f"config: {name}{contract}, got {got}.{none}"


def _wrong_path(name: str, message: str) -> str:
    """That a path is neither named nor given by alpha and sigma."""
    got = ""
    if found := re.search(r"arguments are required: (\w+)", message):
        other = "sigma" if found[1] == "alpha" else "alpha"
        got = f", got {other} without {found[1]}. Add --{name}.{found[1]}"
    elif found := re.search(r"Option '(.*?)' is not accepted", message):
        got = f", got {found[1]!r}. Leave it out"
    contract = "the name of a path, or a mapping with alpha and sigma as text and nothing else"
    return f"config: {name} must be {contract}{got}."


def _all_unknown(known: Mapping[str, Setting], arguments: Sequence[str]) -> str:
    """All flags, words and keys of files that mean nothing, each with what may have been meant."""
    groups = {name[:place] for name in known for place, letter in enumerate(name) if letter == "."}
    words, given = list[str](), dict[str, object]()
    for flag, value in _typed(arguments):
        if flag is None:
            words.append(value)
        elif flag == "config":
            given |= flat(yaml.safe_load(Path(value).read_text()))
        elif flag in groups - {*known}:
            given |= flat(yaml.safe_load(value), flag)
        else:
            given[flag] = value
    unknown = given.keys() - {*known, *groups, "print_config", ""}
    said = [_unknown(name, str(value), known) for name, value in given.items() if name in unknown]
    if words:
        fix = " ".join(filter(None, (_of_word(word, known) for word in words))) or "Each setting is --name value."
        said = [f"arguments must begin with --, got {', '.join(map(repr, words))}. {fix}", *said]
    text = " ".join([*said[:1], *(sentence[0].upper() + sentence[1:] for sentence in said[1:])])
    return f"{text} --help lists all." if NONE in text else text


def _typed(arguments: Sequence[str]) -> Iterator[tuple[str | None, str]]:
    """Each flag with its value, empty where it has none; a word that follows no flag is a value of None."""
    flag: str | None = None
    for word in arguments:
        if not word.startswith("--"):
            yield flag, word
            flag = None
            continue
        if flag is not None:
            yield flag, ""
        flag, equals, value = word.removeprefix("--").partition("=")
        if equals:
            yield flag, value
            flag = None
    if flag is not None:
        yield flag, ""


def _of_word(word: str, known: Mapping[str, Setting]) -> str:
    """What to type for a word without a flag, or nothing."""
    if word.upper() in ("ODE", "SDE") and "sampler" in known:
        return f"Say --sampler {word.lower()}."
    return _of_weights(word, known)


def _of_weights(value: str, known: Mapping[str, Setting]) -> str:
    """How to name a run, a checkpoint or a file of weights to this command, or nothing if it is none of these."""
    if "run" not in known:
        return ""
    if (run := run_of(value)) is not None:
        other = "" if "pretrained" in known else f", or to begin another run from its weights --init {run}"
        return f"Say --run {run}{other}."
    if is_official(value):
        return f"Say --{'pretrained' if 'pretrained' in known else 'init'} {value}."
    return ""


def _unknown(name: str, value: str, known: Mapping[str, Setting]) -> str:
    """That there is no such setting, and which may have been meant."""
    said, last = f"there is no setting {name!r}.", name.rpartition(".")[2]
    habit = last.replace("_", "-")
    if name.upper() in ("ODE", "SDE") and "sampler" in known:
        return f"{said} {_of_word(name, known)}"
    if (plain := name.replace("-", "_")) in known:
        return f"{said} Nearest: {plain!r}."
    for names in HABITS.get(habit, "").split(", "):
        if {*(meant := names.split(" & "))} <= {*known}:
            if meant[0] in ("pretrained", "init") and (flag := _of_weights(value, known)):
                return f"{said} {flag}"
            called, fix = " or ".join(map(repr, meant)), f" {FIXES[habit]}" if habit in FIXES else ""
            return f"{said} It is called {called}.{fix}"
    if plain in ELSEWHERE:
        return f"{said} {ELSEWHERE[plain]}"
    near = _near(plain, list(known))
    return f"{said} {f'Nearest: {_listed([repr(each) for each in near])}.' if near else NONE}"


def _near(name: str, known: Sequence[str]) -> list[str]:
    """The settings that may have been meant: the nearest, or all of that last name if no group is given."""

    def alike(one: str, other: str) -> float:
        return difflib.SequenceMatcher(None, one, other).ratio()

    group, _, last = name.rpartition(".")
    likeness = {}
    for each in known:
        its_group, _, its_last = each.rpartition(".")
        same = alike(last, its_last)
        if max(same, alike(name, each) - 0.3) >= NEAR:  # the names of a group have more than its own in common
            likeness[each] = max(same, alike(name, each)) + (alike(group, its_group) if group else 0.0)
    near = sorted(likeness, key=likeness.__getitem__, reverse=True)
    if group or not near:
        return near[:1]
    return [each for each in near if each.rpartition(".")[2] == near[0].rpartition(".")[2]]


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
