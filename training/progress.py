"""How far a long work is: a bar on a terminal, and where the output is a file a line a minute."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

from tqdm import tqdm

SECONDS: Final = 60.0
"""Between two lines."""

PATIENCE: Final = 5.0
"""Seconds before a bar appears that is not the main one."""

LINE: Final = "{desc}: {n_fmt} of {total_fmt} {unit}s, {rate_fmt}, {remaining} left{postfix}"


def progress(iterable: Iterable[Any] | None = None, *, seconds: float = SECONDS, **settings: Any) -> tqdm[Any]:
    """A tqdm, which on no terminal prints lines instead.

    Args:
        iterable: What to go through, if ``update`` is not called.
        seconds: Between two lines.
        settings: Arguments of tqdm: total, initial, unit, desc, disable, leave, and delay, the seconds before anything
            is shown.
    """
    if sys.stderr.isatty():
        return tqdm(iterable, mininterval=0.5, **settings)
    return _Lines(iterable, mininterval=seconds, maxinterval=seconds, miniters=1, bar_format=LINE, **settings)


def side_progress(iterable: Iterable[Any] | None = None, **settings: Any) -> tqdm[Any]:
    """``progress`` of work that is usually short, or part of a longer one: it appears late, and nothing of it stays."""
    return progress(iterable, leave=False, delay=PATIENCE, **settings)


class _Lines(tqdm):  # type: ignore[type-arg]
    """Without the moves of the cursor that a bar is drawn by."""

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        def show(text: str) -> None:
            if text.strip():
                file.write(f"{text.strip()}\n")
                file.flush()

        return show

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> None:
        if not nolock:  # which it is where a message was written, and a bar is drawn again below it
            super().refresh(nolock, lock_args)

    def clear(self, nolock: bool = False) -> None:
        """Nothing is taken back."""

    def moveto(self, n: int) -> None:
        """Nor is anything above written to."""

    def close(self) -> None:
        """Print the last line once; tqdm would add an empty one."""
        if not self.disable:
            if self.n != self.last_print_n and self.format_dict["elapsed"] >= (self.delay or 0.0):
                self.display()
            self.disable = True
            self._decr_instances(self)  # type: ignore[attr-defined]
