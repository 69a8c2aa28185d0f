"""What a run writes for people to look at:

- ``metrics.jsonl``: a line of JSON each so many steps; a value that is not finite is null;
- ``log.txt``: loss and speed in a few lines, and all messages, with their times;
- ``config.yaml`` and ``environment.json``: see ``environment``;
- ``samples/step-00001000.png``: pictures, in a folder for each kind;
- if asked, the metrics and pictures once more in ``tensorboard/``, and at Weights & Biases.
"""

from __future__ import annotations

import io
import json
import math
import secrets
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from training.environment import now, write_facts
from training.files import append_text, named, write_png, write_text
from training.images import decode
from training.processes import Processes
from training.progress import SECONDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS_FILE: Final = "metrics.jsonl"
MESSAGES_FILE: Final = "log.txt"

Picture = NDArray[np.uint8]
"""Of shape (H, W, 3)."""


@dataclass(frozen=True)
class LogConfig:
    """What a run records about itself.

    Args:
        every: Steps between two lines of metrics.
        tensorboard: Whether to write the metrics for TensorBoard too.
        wandb: Project of Weights & Biases to send the metrics to; null is none. With WANDB_MODE=offline in the
            environment nothing is sent until you run ``wandb sync``.
        samples_every: Steps between two pictures of samples; null draws none.
        samples: Number of samples in a picture.
    """

    every: int = 10
    tensorboard: bool = False
    wandb: str | None = None
    samples_every: int | None = None
    samples: int = 64

    def __post_init__(self) -> None:
        for name in ("every", "samples_every", "samples"):
            value = getattr(self, name)
            if not (value is None or value >= 1):
                raise ValueError(f"config: log.{name} must be at least 1, got {value!r}.")
        if self.wandb == "":
            raise ValueError("config: log.wandb must be the name of a project, or null, got ''.")

    def require_installed(self) -> None:
        """Check that what is asked for is there, without importing it.

        Raises:
            ImportError: If not; names the extra that brings it.
        """
        for name, asked in (("tensorboard", self.tensorboard), ("wandb", self.wandb is not None)):
            # wandb leaves folders named wandb, which can be imported but have no origin.
            if asked and getattr(find_spec(name), "origin", None) is None:
                raise ImportError(
                    f"config: for log.{name} `{name}` must be installed. "
                    f"pip install 'sit-interpolants[{name}]' brings it."
                )


class Recorder:
    """Opens the folder of a run; a context manager. Only the first process writes.

    Args:
        run: The folder.
        settings: What to write.
        config: All settings of the run, plain data.
        processes: That train; each makes a Recorder.
        step: The run goes on from there: what was written of later steps is dropped, as they are made again.

    Raises:
        ImportError: If TensorBoard or wandb is asked for and not installed; in every process.
        ValueError: If wandb cannot start.
    """

    def __init__(
        self, run: str | Path, settings: LogConfig, config: Mapping[str, Any], processes: Processes, step: int = 0
    ) -> None:
        settings.require_installed()
        self.run, self._sinks, self._course = Path(run), list[_Sink](), _Course()
        if not processes.is_first:
            return
        self.run.mkdir(parents=True, exist_ok=True)
        write_facts(self.run, config, processes, step)
        if settings.wandb is not None:
            self._sinks.append(_Wandb(self.run, settings.wandb, config))
        if settings.tensorboard:
            self._sinks.append(_TensorBoard(self.run, step))
        self._sinks.append(_Files(self.run, step))

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:  # closes all, also where one fails
            for sink in self._sinks:
                stack.callback(sink.close, failed=kind is not None)
            stack.callback(self._note, [] if kind is None else [f"{kind.__name__}: {error}"])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record the metrics of a step. ``log.txt`` also gets loss and speed: each minute, when the number of steps has
        doubled, and before another message.
        """
        for sink in self._sinks:
            sink.scalars(step, values)
        if self._course.add(step, values):
            self._note([])

    def image(self, name: str, step: int, picture: Picture | Figure) -> None:
        """A picture of a step: uint8 of shape (H, W, 3), or a figure.

        Raises:
            ValueError: If it is another array.
        """
        if not isinstance(picture, np.ndarray):
            picture = _drawn(picture)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            got = f"{picture.dtype} of shape {picture.shape}"
            raise ValueError(f"Recorder.image: picture must be uint8 of shape (H, W, 3), or a figure, got {got}.")
        for sink in self._sinks:
            sink.image(name, step, picture)

    def say(self, message: str) -> None:
        """Print a message, above the progress bar if there is one, and note it in log.txt."""
        if self._sinks:
            tqdm.write(message)
            self.note(message)

    def note(self, message: str) -> None:
        """Note a message in log.txt."""
        self._note([message])

    def _note(self, messages: list[str]) -> None:
        if self._sinks:
            lines = [f"{now()} {message}\n" for message in [*self._course.read(), *messages]]
            append_text(self.run / MESSAGES_FILE, "".join(lines))


class _Course:
    """The mean loss since the last reading, and the speed."""

    def __init__(self) -> None:
        self._losses, self._line = list[float](), ""
        self._step, self._next_step, self._next_time = 0, 0, 0.0

    def add(self, step: int, values: Mapping[str, float]) -> bool:
        """Whether it is time to read it."""
        if "loss" not in values:
            return False
        self._losses += [values["loss"]] if math.isfinite(values["loss"]) else []
        mean = f"{sum(self._losses) / len(self._losses):.4g}" if self._losses else "not finite"
        speed = f", {values['images_per_second']:,.4g} images/s" if "images_per_second" in values else ""
        self._step, self._line = step, f"step {step}: loss {mean}{speed}"
        return step >= self._next_step or time.monotonic() >= self._next_time

    def read(self) -> list[str]:
        """A line, or none if nothing was added."""
        if not self._line:
            return []
        line, self._line = self._line, ""
        self._losses.clear()
        self._next_step, self._next_time = 2 * self._step, time.monotonic() + SECONDS
        return [line]


def read_log(file: str | Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last one that a kill cut short is left out."""
    lines = Path(file).read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


class _Sink(Protocol):
    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def image(self, name: str, step: int, picture: Picture) -> None: ...

    def close(self, *, failed: bool) -> None: ...


class _Files:
    """metrics.jsonl, written line by line, and PNG files."""

    def __init__(self, run: Path, step: int) -> None:
        self.run, self._file = run, run / METRICS_FILE
        if self._file.exists():
            kept = [json.dumps(line) + "\n" for line in read_log(self._file) if line["step"] <= step]
            write_text(self._file, "".join(kept))
        self._lines = self._file.open("a", buffering=1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with named(self._file):
            self._lines.write(json.dumps({"step": step, **finite}) + "\n")

    def image(self, name: str, step: int, picture: Picture) -> None:
        folder = self.run / name
        folder.mkdir(exist_ok=True)
        write_png(folder / f"step-{step:08d}.png", Image.fromarray(picture).save)

    def close(self, *, failed: bool) -> None:
        with named(self._file):
            self._lines.close()


class _TensorBoard:
    """Event files, in which a start hides what the one before it wrote of later steps."""

    def __init__(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # the extra

        self._writer: Any = SummaryWriter(run / "tensorboard", purge_step=step + 1)
        self._writer.flush()  # hides them now, rather than with the first metrics

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # so that a kill loses none before the checkpoint that is resumed from

    def image(self, name: str, step: int, picture: Picture) -> None:
        self._writer.add_image(name, picture, step, dataformats="HWC")
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        self._writer.close()


class _Wandb:
    """One run of wandb for all starts. Of steps that are made again it keeps the first, by itself."""

    def __init__(self, run: Path, project: str, config: Mapping[str, Any]) -> None:
        import wandb  # the extra

        file = run / "wandb" / "id.txt"  # written first, so that the id outlives a kill
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            write_text(file, secrets.token_hex(4))
        try:
            self._run = wandb.init(
                project=project,
                dir=run,
                name=run.resolve().name,
                id=file.read_text(),
                resume="allow",
                config=dict(config),
            )
        except wandb.Error as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise ValueError(
                f"config: log.wandb must be a project that can be written to, got {project!r}: {reason}. "
                "WANDB_MODE=offline needs no account."
            ) from error
        self._image = wandb.Image

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def image(self, name: str, step: int, picture: Picture) -> None:
        self._run.log({name: self._image(picture)}, step=step)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


def _drawn(figure: Figure) -> Picture:
    with io.BytesIO() as stream:
        figure.savefig(stream, format="png", dpi=150)
        return np.asarray(decode(stream.getvalue(), channels=3))
