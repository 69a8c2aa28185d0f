"""Work that is bounded in time: processes wait for it, and one that takes too long is killed.

The processes are started anew, never forked: a fork of a process in which torch has started threads may wait forever.
They have imported everything before work comes, so that a request does not pay for it. One of them is kept free of slow
work, for the quick request that comes meanwhile.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

SECONDS_TO_START: Final = 120.0
"""How long a process may take to import everything."""

SECONDS_IN_LINE: Final = 60.0
"""How long a request may wait for others."""


class OverdueError(Exception):
    """The work was not done in time; the message says what to do."""


class Workers:
    """A few processes, each of which does one piece of work at a time.

    Args:
        count: How many, at least 2.

    Raises:
        ValueError: If there are fewer than 2, so that slow work would leave none free.
    """

    def __init__(self, count: int = 3) -> None:
        if count < 2:
            raise ValueError(f"Workers: count must be at least 2, got {count!r}. Slow work takes all but one.")
        self._idle: queue.Queue[_Worker] = queue.Queue()  # those that are ready
        self._slow = threading.BoundedSemaphore(count - 1)
        self._lock, self._closed, self._all = threading.Lock(), False, set[_Worker]()
        for _ in range(count):
            threading.Thread(target=self._add, daemon=True).start()

    def _add(self) -> None:
        """Start a process, and have it wait for work once it is ready."""
        with self._lock:
            if self._closed:
                return
            worker = _Worker()
            self._all.add(worker)
        worker.wait_until_ready()
        self._idle.put(worker)

    def do(self, work: Callable[..., Result], *arguments: Any, seconds: float, slow: bool = False) -> Result:
        """``work(*arguments)``, computed by a process.

        Args:
            work: A function of a module, which the process imports.
            *arguments: Whatever can be pickled.
            seconds: After which the process is killed; the time in line and that of its start are not counted.
            slow: Whether it leaves one process free for work that is not.

        Raises:
            OverdueError: If it took longer, or if no process was free for ``SECONDS_IN_LINE``.
            Exception: What ``work`` raised.
        """
        busy = OverdueError(f"Busy: no process was free within {SECONDS_IN_LINE:g} s. Try again.")
        if slow and not self._slow.acquire(timeout=SECONDS_IN_LINE):
            raise busy
        try:
            worker = self._idle.get(timeout=SECONDS_IN_LINE)
        except queue.Empty:
            if slow:
                self._slow.release()
            raise busy from None
        try:
            result: Result = worker.do(work, arguments, seconds)
        finally:
            if worker.alive:
                self._idle.put(worker)
                if slow:
                    self._slow.release()
            else:
                threading.Thread(target=self._replace, args=(worker, slow), daemon=True).start()
        return result

    def _replace(self, worker: _Worker, slow: bool) -> None:
        """Start another process. While there is one less, slow work must do with one less as well."""
        held = slow or self._slow.acquire(blocking=False)
        with self._lock:
            self._all.discard(worker)
        self._add()
        if held:
            self._slow.release()

    def close(self) -> None:
        """End the processes, and the work in them."""
        with self._lock:
            self._closed = True
            for worker in self._all:
                worker.kill()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Worker:
    """One process, spoken to by pickles through its standard input and output."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "interpolants.explorer.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process, which ends the others
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def wait_until_ready(self) -> None:
        """Until it has imported everything; one that fails to says so when it is given work."""
        with contextlib.suppress(OverdueError):
            self._receive(SECONDS_TO_START, "")

    def do(self, work: Callable[..., Any], arguments: tuple[Any, ...], seconds: float) -> Any:
        with contextlib.suppress(BrokenPipeError):  # of a process that has ended, which _receive then says
            pickle.dump((work, arguments), self._input)
            self._input.flush()
        done, result = self._receive(
            seconds,
            f"Stopped after {seconds:g} s: this takes longer than a page may. A simpler expression is faster; called "
            "from Python, interpolants has no such bound.",
        )
        if done:
            return result
        raise result

    def _receive(self, seconds: float, message: str) -> Any:
        overdue = threading.Event()

        def stop() -> None:
            overdue.set()
            self._process.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            return pickle.load(self._output)
        except (EOFError, pickle.UnpicklingError):  # it ended, maybe amid an answer
            self.kill()
            if overdue.is_set():
                raise OverdueError(message) from None
            code = self._process.returncode
            raise OverdueError(f"The process that computes has ended, with code {code}. Try again.") from None
        finally:
            timer.cancel()
