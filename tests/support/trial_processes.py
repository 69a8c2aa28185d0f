"""Random cases put to the engine, each in a process of its own, which may be killed."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from engine_trial import Finding, Trial
from path_oracle import Verdict
from random_paths import Case


@dataclass
class Outcome:
    """What became of a case.

    Attributes:
        case: The case.
        verdict: The oracle's.
        engine: "accepted", "refused", "undecided", or "unfinished".
        findings: All that is wrong.
        seconds: Processor time of each stage that ended.
        worst: The largest error of float64 that is not wrong, in ulp, and of what.
        errors: The largest error of each coefficient that is right in float64, in ulp.
        notes: Allowed refusals.
    """

    case: Case
    verdict: Verdict = Verdict(None, "unknown")  # noqa: RUF009, frozen
    engine: str = "unfinished"
    findings: list[Finding] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    worst: tuple[float, str] = (0.0, "")
    errors: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def outcomes(cases: Iterable[Case], *, seconds: float, jobs: int, thorough: bool) -> Iterator[Outcome]:
    """The outcome of each case, as they end, from at most ``jobs`` processes at a time.

    Each is a fork of this process: what this one has imported costs the others nothing.

    Args:
        cases: From ``random_paths.draw``, or by hand.
        seconds: Processor time that each stage may take.
        jobs: Number of processes.
        thorough: All stages, at many times; else whether it is a path, and its alpha and sigma at a few times.
    """
    context = multiprocessing.get_context("fork")
    waiting = iter(cases)
    running: dict[Connection, _Running] = {}
    try:
        while True:
            while len(running) < jobs and (case := next(waiting, None)) is not None:
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_in_process, args=(case, seconds, thorough, there))
                process.start()
                there.close()
                running[here] = _Running(process, Outcome(case), time.monotonic() + 60 + 20 * seconds)
            if not running:
                return
            for connection in wait(list(running), timeout=1.0):
                one = running[connection]
                try:
                    one.hear(*connection.recv())
                except EOFError:
                    del running[connection]
                    yield one.end()
            for one in running.values():
                if time.monotonic() > one.deadline:  # it waits for something
                    one.process.kill()
    finally:
        for one in running.values():
            one.process.kill()
            one.process.join()


@dataclass
class _Running:
    """A process and what it has told."""

    process: multiprocessing.process.BaseProcess
    outcome: Outcome
    deadline: float
    stage: str = "the oracle"
    done: bool = False

    def hear(self, kind: str, payload: Any) -> None:
        outcome = self.outcome
        match kind:
            case "finding":
                outcome.findings.append(payload)
            case "verdict":
                outcome.verdict = payload
            case "engine":
                outcome.engine = payload
            case "seconds":
                outcome.seconds[payload[0]] = payload[1]
            case "worst":
                outcome.worst = max(outcome.worst, payload)
                outcome.errors.append(payload[0])
            case "note":
                outcome.notes.append(payload)
            case "stage":
                self.stage = payload
            case "done":
                self.done = True

    def end(self) -> Outcome:
        self.process.join()
        code, outcome = self.process.exitcode, self.outcome
        where = self.stage
        if not self.done:
            if code in (-signal.SIGXCPU, -signal.SIGKILL):
                outcome.findings.append(Finding("time", where, "a process that had to be killed", "an end"))
            else:
                outcome.findings.append(Finding("crash", where, f"exit code {code}", "an end"))
        return outcome


def _in_process(case: Case, seconds: float, thorough: bool, connection: Connection) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        Trial(case, seconds, thorough, lambda kind, payload: connection.send((kind, payload))).run()
    except Exception as error:  # of the tester
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
        connection.send(("finding", Finding("crash", "the tester", what, "none")))
    connection.send(("done", None))
