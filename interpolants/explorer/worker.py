"""A process that does work for ``deadline.Workers``: ``python -m interpolants.explorer.worker``.

It reads (function, arguments) and writes (True, result) or (False, exception), pickled, until its input ends.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import traceback

import torch

import interpolants.explorer.work  # noqa: F401  (imported before work comes)


def _end_with(parent: int) -> None:
    """End this process, and the work in it, when that which started it has ended without ending it."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main() -> None:
    """Say that all is imported, then do what comes."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)  # the states are small, and others compute beside
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints does not come between the answers
    pickle.dump("ready", answers)
    answers.flush()
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = True, function(*arguments)
        except Exception as error:  # handed on, to be raised where the work was asked for
            if not isinstance(error, (ValueError, ArithmeticError)):
                traceback.print_exc()
            answer = False, error
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
