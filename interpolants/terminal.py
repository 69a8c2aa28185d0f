"""Where a command prints to, and colour on a terminal, only there.

It is made of the standard library alone, so that a command line is there at once.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Final, TextIO

RED: Final = 31
GREEN: Final = 32
YELLOW: Final = 33


def open_outputs() -> None:
    """What is printed to a closed output goes nowhere; what is no text, as a file's name may be, is escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", errors="replace"))  # noqa: SIM115 - until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
