"""The process in which a page's cells run: forked from one that has imported what most pages import.

torch, sympy and `training` take four seconds to import, which thirty pages would pay for one by one. conf.py starts
the server, `python docs/kernel.py SOCKET`, which ends with the build; a kernel is `python docs/kernel.py SOCKET
CONNECTION_FILE`, which asks it for a child, whose end is its own. Pages share what is imported, and nothing else.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import socket
import sys
import threading
import warnings
from pathlib import Path


def serve(address: str) -> None:
    """Fork a kernel for each request, until the build is over."""
    warnings.filterwarnings("ignore", "IProgress")  # tqdm's, that it has no widget
    from ipykernel.kernelapp import IPKernelApp

    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as a kernel sets it, but read at import
    for name in ("training", "matplotlib.figure"):  # not pyplot, which joins the kernel where it is imported
        importlib.import_module(name)

    threading.Thread(target=_end_with_the_build, args=(Path(address).parent,), daemon=True).start()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are not waited for
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{address}.new")
    listener.listen()
    os.rename(f"{address}.new", address)  # there once it answers
    while True:
        connection, _ = listener.accept()
        request = json.loads(connection.makefile().readline())
        if os.fork() == 0:
            break
        connection.close()
    listener.close()
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[:] = ["", *request["environment"].get("PYTHONPATH", "").split(os.pathsep), *sys.path[1:]]
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    # It ends with the server too, and says nothing of how to be reached.
    options = ["--log-level=ERROR", f"--IPKernelApp.parent_handle={os.getppid()}"]
    IPKernelApp.launch_instance([*request["arguments"], *options])
    os._exit(0)


def run(address: str, connection_file: str, *arguments: str) -> None:
    """Ask for a kernel, and end when it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it comes before the message that ends the kernel
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        given = ["-f", connection_file, *arguments]
        request = {"arguments": given, "folder": str(Path.cwd()), "environment": dict(os.environ)}
        connection.sendall(json.dumps(request).encode() + b"\n")
        connection.recv(1)


def _end_with_the_build(folder: Path) -> None:
    sys.stdin.read()  # conf.py holds the other end
    shutil.rmtree(folder)
    os._exit(0)


def _end_with(connection: socket.socket) -> None:
    connection.recv(1)
    os._exit(1)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        run(*sys.argv[1:])
