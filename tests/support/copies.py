"""Copies between devices: what would make a step wait, seen without a device to wait for."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Copies(TorchDispatchMode):
    """Notes the copies of numbers from one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        devices = {leaf.device for leaf in tree_leaves((args, kwargs, result)) if torch.is_tensor(leaf)}
        if len(devices) > 1 and any(word in str(operation) for word in ("aten.to.", "_to_copy", "copy_")):
            self.seen.append(str(operation))
        return result
