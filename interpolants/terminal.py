"""Where a command prints to, and colour on a terminal, only there.

It is made of the standard library alone, so that a command line is there at once.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from typing import Any, Final, TextIO

RED: Final = 31
GREEN: Final = 32
YELLOW: Final = 33


def open_outputs() -> None:
    """Let a command go on whatever its outputs are: what is printed to a closed one, or to a pipe whose reader has left
    as ``head`` does, goes nowhere; what is no text, as a file's name may be, is escaped.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", errors="replace"))  # noqa: SIM115 - until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            if _has_reader(stream):
                stream.flush()
                setattr(sys, name, _lasting(stream))


def _has_reader(stream: io.TextIOWrapper) -> bool:
    """Whether another process reads it, which may leave; else it is a file, a terminal or in memory."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


class _Lasting(io.FileIO):
    """The pipe of a stream. Once its reader has left, all that is written goes nowhere."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__(stream.fileno(), "wb", closefd=False)
        self._stream = stream  # which would close the pipe if it went

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def _lasting(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream, which outlives its reader."""
    binary = io.BufferedWriter(_Lasting(stream))
    lines, through = stream.line_buffering, stream.write_through
    return io.TextIOWrapper(binary, stream.encoding, stream.errors, line_buffering=lines, write_through=through)


def has_colour(stream: TextIO | None) -> bool:
    """Whether to colour what is written to a stream, None where it is closed.

    NO_COLOR says no, then FORCE_COLOR yes, else terminals are.

    Source: no-color.org and force-color.org, by which an empty value says nothing.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: int, stream: TextIO | None) -> str:
    """Text in a colour where the stream has colours, else as it is."""
    return f"\x1b[{colour}m{text}\x1b[0m" if has_colour(stream) else text
