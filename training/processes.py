"""Several processes that train one network, as torchrun starts them; one process without it."""

from __future__ import annotations

import datetime
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

TIMEOUT = datetime.timedelta(minutes=10)
"""After which a process that waits for another gives up; one that died is noticed sooner, as its connections close."""


@dataclass(frozen=True)
class Processes:
    """This process, of so many.

    Attributes:
        rank: 0, 1, ... of this one. The first one writes and speaks.
        count: Of all.
        device: Of this one.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over all processes, in each of them, as float64 on the CPU."""
        values = values.detach().double()
        if self.count > 1:
            dist.all_reduce(values)
        return values.cpu() / self.count

    def gather(self, part: torch.Tensor) -> torch.Tensor:
        """The parts of all processes, in their order, along the first dimension; they have equal shapes."""
        if self.count == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.count)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    def any(self, flag: bool) -> bool:
        """Whether one of them says so."""
        return self.mean(torch.tensor(float(flag), device=self.device)).item() > 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """What all of them do in step.

        Raises:
            ConnectionError: If another has died, or does not answer.
        """
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not re.search("gloo|nccl|peer|timed out", str(error), re.IGNORECASE):
                raise
            reason = str(error).splitlines()[0]
            raise ConnectionError(
                f"training: process {self.rank} of {self.count} has lost another, which has died or does not answer "
                f"({reason}). The same command resumes from the last checkpoint."
            ) from error


def join(device: torch.device) -> Processes:
    """Meet the others that torchrun has started, if it has; on a machine with accelerators each takes its own.

    Raises:
        RuntimeError: If they are not all there in time.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes(0, 1, device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        _initialize("nccl" if device.type == "cuda" else "gloo")
    return Processes(dist.get_rank(), count, device)


def _initialize(backend: str) -> None:
    store, rank, count = next(rendezvous("env://", timeout=TIMEOUT))
    # torchrun keeps the store where it starts all again after a death, and with it the addresses of the dead.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT)


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """Collect the names of SIGINT and SIGTERM instead of dying of them; only the main thread can."""
    caught: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(n, lambda got, _: caught.append(signal.Signals(got).name)) for n in numbers]
    try:
        yield caught
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def leave() -> None:
    """Part from the others, in order; nothing where there are none."""
    if dist.is_initialized():
        # gloo's thread takes the interpreter's lock to let go of the last tensor, and the destructor, which holds the
        # lock, waits for the thread.
        time.sleep(0.2)
        dist.destroy_process_group()
