"""Files that are there whole or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def write_file(file: Path, save: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that whoever is killed leaves the old one or the new one.

    Args:
        file: Is written under another name, flushed to the disk and renamed.
        save: Writes its contents.

    Raises:
        OSError: If it cannot be written; names it.
    """
    temporary = file.with_name(f"{file.name}.unfinished")
    with named(file):
        with temporary.open("wb") as stream:
            save(stream)
        flush(temporary)
        os.replace(temporary, file)
        flush(file.parent)


def write_text(file: Path, text: str) -> None:
    """The same for text."""
    write_file(file, lambda stream: stream.write(as_utf8(text)))


def write_png(file: Path, save: Callable[..., object], **options: object) -> None:
    """The same for a picture.

    Args:
        file: See write_file.
        save: ``Figure.savefig`` of matplotlib or ``Image.save`` of Pillow.
        options: More of its arguments, such as dpi.
    """
    write_file(file, lambda stream: save(stream, format="png", **options))


def as_utf8(text: str) -> bytes:
    """The text in UTF-8. Names of files may be any bytes: those that are no text are written as escapes."""
    return text.encode(errors="backslashreplace")


def append_text(file: Path, text: str) -> None:
    """Write more at the end of a file.

    Raises:
        OSError: If it cannot be written; names it.
    """
    with named(file), file.open("ab") as stream:
        stream.write(as_utf8(text))


@contextmanager
def named(file: Path) -> Iterator[None]:
    """An error of writing says which file, as one of opening does."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(file)
        raise


def flush(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
