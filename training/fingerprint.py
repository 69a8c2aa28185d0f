"""What a run is trained on, as a few numbers and hashes: two runs with equal fingerprints see equal data, in one order.

A fingerprint does not depend on where the data lie. It is plain data::

    {"count": 12, "classes": [{"name": "cats", "count": 5, "sha256": ...}, ...], "sha256": ...}

``classes`` are in the order of their labels, and empty where there are none. A file counts by its name and size; its
contents are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from training.files import as_utf8
from training.progress import side_progress

Fingerprint = Mapping[str, Any]

SAID: Final = 6
"""Differences that are said; the others are counted."""


def fingerprint(classes: Sequence[str], items: Iterable[tuple[int, str]]) -> Fingerprint:
    """The fingerprint of data.

    Args:
        classes: Names, in the order of their labels; empty if there are none.
        items: Label and description of each example, in their order, such as ``(0, "cats/1.png 2048")``.
    """
    everything, each = sha256(), [sha256() for _ in classes or [""]]
    counts = [0] * len(each)
    for label, description in side_progress(items, desc="looking at the data", unit="example"):
        line = as_utf8(f"{description}\n")
        everything.update(line)
        each[label].update(line)
        counts[label] += 1
    rows = [
        {"name": name, "count": count, "sha256": digest.hexdigest()}
        for name, count, digest in zip(classes, counts, each, strict=False)
    ]
    return {"count": sum(counts), "classes": rows, "sha256": everything.hexdigest()}


def class_names(found: Fingerprint) -> list[str]:
    """The names of the classes, by label."""
    return [row["name"] for row in found["classes"]]


def changes(before: Fingerprint, now: Fingerprint) -> list[str]:
    """What differs, a sentence each; empty if nothing does."""
    if before == now:
        return []
    first, second = ({row["name"]: (label, row) for label, row in enumerate(each["classes"])} for each in (before, now))
    found = [f"class {name!r} is gone" for name in first if name not in second]
    found += [f"class {name!r} is new" for name in second if name not in first]
    for name in (name for name in first if name in second):
        (label, old), (new_label, new) = first[name], second[name]
        if label != new_label:
            found.append(f"class {name!r} was {label}, is {new_label}")
        if old["count"] != new["count"]:
            found.append(f"class {name!r} had {old['count']:,} examples, has {new['count']:,}")
        elif old["sha256"] != new["sha256"]:
            found.append(f"class {name!r} has other examples, or in another order")
    if not found and before["count"] != now["count"]:
        found.append(f"there were {before['count']:,} examples, there are {now['count']:,}")
    more = [f"and {len(found) - SAID} more differences"] if len(found) > SAID else []
    return found[:SAID] + more or ["the examples, or their order, are others"]
