"""Build both distributions, install them into empty environments, and try them there: ``python packaging/check.py``.

Every environment runs packaging/smoke.py on the built wheels:

- this Python, `interpolants` alone, with the versions of constraints.txt; there mypy also reads a user's file;
- this Python, all, with the oldest numpy, sympy and others that pyproject.toml allows;
- the Pythons of Debian releases, with the oldest torch and the newest, in a folder: no root, nothing installed.

What cannot be had on this machine, as Debian's packages without apt, is named with the reason and is no failure. What
fails in an environment that can be had is one.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import traceback
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ROOT / "packaging" / "smoke.py"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["training"]]
CONSTRAINTS = ROOT / "constraints.txt"
DEBIAN = {"trixie": "3.13", "forky": "3.14"}
"""Releases of Debian with their Python: torch 2.6, the oldest that is allowed, and 2.14."""

DEBIAN_PACKAGES = ("python3-torch", "python3-sympy", "python3-numpy", "python3-mpmath")
WORKS = """\
import sys, torch, sympy, numpy, mpmath
torch.rand(2, 2) @ torch.rand(2, 2)
print("%d.%d" % sys.version_info[:2])
"""
"""What a Debian release must do by itself, before anything of this project is there."""

USER = """\
import interpolants as ip
from training import Field, sample_ode

path: int = ip.linear()
sample_ode(Field, num_steps="8")  # a class for a Field, text for a number
"""
SEEN = ('expression has type "Path", variable has type "int"', '"num_steps"', 'expected "int"')


class NotToBeHadError(Exception):
    """An environment that cannot be had on this machine, with the reason."""


def run(*command, **options):
    """A command, quiet; where it fails, what it printed is in the error."""
    done = subprocess.run(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=500, **options
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout


def build(folder):
    """Sdist and wheel of both; the wheel is built from the sdist, and equals the one built from the checkout."""
    wheels = []
    for source in (ROOT, ROOT / "packaging" / "training"):
        out = folder / f"dist-{len(wheels)}"
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
        run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", out / "direct", source)
        (wheel,), (direct,), (sdist,) = out.glob("*.whl"), out.glob("direct/*.whl"), out.glob("*.tar.gz")
        assert contents(wheel) == contents(direct), f"the wheel of {sdist.name} is another than that of the checkout"
        with tarfile.open(sdist) as archive:
            names = archive.getnames()
        assert not [name for name in names if "__pycache__" in name or "/.venv" in name], names
        print(f"built: {sdist.name}, {len(names)} files, and {wheel.name}, {len(contents(wheel))} files")
        wheels.append(wheel)
    return wheels


def contents(wheel):
    """The files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def this_python(folder, wheels):
    """The mathematics alone by constraints.txt, then all with the oldest dependencies."""
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    install = (*pip, "install", "--quiet", "--no-compile", "--constraint", CONSTRAINTS)
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    run(*install, wheels[0])
    report = run(python, "-I", SMOKE, "interpolants", cwd=folder)
    run(*install, *wheels)
    run(*pip, "check")
    return report + user_sees_the_types(python, folder) + oldest(python, folder)


def user_sees_the_types(python, folder):
    """mypy finds the mistakes in a file outside the checkout, by the types of the installed packages."""
    (folder / "user.py").write_text(USER)
    command = (sys.executable, "-m", "mypy", "--python-executable", python, "--ignore-missing-imports", "user.py")
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=folder, timeout=300)
    assert all(text in done.stdout for text in SEEN), done.stdout + done.stderr
    return "  ok: mypy sees the types\n"


def oldest(python, folder):
    """The oldest of each dependency but torch, laid over an environment that has newer ones."""
    over = folder / "oldest"
    pinned = [line for line in CONSTRAINTS.read_text().splitlines() if "==" in line]
    newer = {floor.partition("==")[0].lower() for floor in floors()}
    (folder / "others.txt").write_text("\n".join(p for p in pinned if p.partition("==")[0].lower() not in newer))
    lay(over, floors(), folder / "others.txt")
    environment = os.environ | {"PYTHONPATH": str(over)}
    return run(python, "-s", "-P", SMOKE, "interpolants", "training", cwd=folder, env=environment)


def floors():
    """The oldest version of each dependency that pyproject.toml allows, torch apart."""
    found = (re.match(r"([\w.-]+)(?:\[\w+\])?>=([\w.]+)", requirement).groups() for requirement in NEEDED)
    return [f"{name}=={version}" for name, version in found if name != "torch"]


def lay(folder, requirements, constraints, *options):
    """Install into a folder, without a torch: what depends on it is taken without its dependencies."""
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", folder)
    pip = (*pip, "--constraint", constraints)
    on_torch = [text for text in requirements if text.startswith(("torchdiffeq", "torchsde"))]
    run(*pip, *options, *(text for text in requirements if text not in on_torch))
    run(*pip, "--no-deps", *on_torch, "trampoline")


def debian(folder, wheels, release):
    """Python and torch as Debian builds them, in a folder that is entered by chroot; all else from Python's index."""
    version = DEBIAN[release]
    try:
        unpack(folder, release)
        found = entered(folder, "-c", WORKS).split()[-1]
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        raise NotToBeHadError(str(error).strip().splitlines()[-1]) from error
    if found != version:
        raise NotToBeHadError(f"{release} has Python {found} now, and not {version}")
    apt = ("torch>", "numpy", "sympy", "mpmath")  # which Debian has
    others = [text for text in NEEDED if not text.startswith(apt)]
    lay(folder / "packages", others, CONSTRAINTS, "--only-binary=:all:", "--python-version", version)
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder / "packages", *wheels)
    shutil.copy(SMOKE, folder / "smoke.py")
    return entered(folder, "/smoke.py", "interpolants", "training")


def unpack(folder, release):
    """Unpack Debian's packages of a release into a folder, from the mirror that this machine uses."""
    for program in ("apt-get", "dpkg-deb", "unshare"):
        if shutil.which(program) is None:
            raise NotToBeHadError(f"{program} is not on this machine")
    label = "Created-By: Packages", "Label: Debian", "Component: main"
    mirrors = run("apt-get", "indextargets", "--format", "$(REPO_URI)", *label).split()
    if not mirrors:
        raise NotToBeHadError("apt knows no mirror of Debian")
    apt = folder / "apt"
    for part in ("state/lists/partial", "cache/archives/partial"):
        (apt / part).mkdir(parents=True)
    signed = "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg"
    (apt / "sources.list").write_text(f"deb [{signed}] {mirrors[0]} {release} main\n")
    (apt / "status").touch()
    settings = {
        "Dir::Etc::SourceList": apt / "sources.list", "Dir::Etc::SourceParts": "/dev/null", "Dir::State": apt / "state",
        "Dir::State::status": apt / "status", "Dir::Cache": apt / "cache", "Acquire::Languages": "none",
        "Acquire::Check-Valid-Until": "false", "APT::Install-Recommends": "false", "APT::Sandbox::User": "",
    }  # fmt: skip
    options = [f"--option={name}={value}" for name, value in settings.items()]
    run("apt-get", *options, "--quiet", "--error-on=any", "update")
    run("apt-get", *options, "--quiet", "--yes", "--download-only", "install", *DEBIAN_PACKAGES)
    for part in ("bin", "lib", "lib64", "sbin"):
        (folder / "usr" / part).mkdir(parents=True, exist_ok=True)
        (folder / part).symlink_to(f"usr/{part}")
    for part in ("dev", "proc", "tmp", "packages"):
        (folder / part).mkdir()
    for package in sorted((apt / "cache" / "archives").glob("*.deb")):
        run("dpkg-deb", "--extract", package, folder)
        package.unlink()


def entered(folder, *arguments):
    """Run its Python in the folder as root directory, in a mount namespace of its own."""
    who = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    enter = 'mount --rbind /dev "$0/dev" && mount --rbind /proc "$0/proc" && exec chroot "$0" python3 -s -P "$@"'
    libraries = next((folder / "usr/lib").glob("*/blas")).relative_to(folder).parent
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": "/packages", "HOME": "/tmp", "LC_ALL": "C.UTF-8",
        "LD_LIBRARY_PATH": f"/{libraries}/blas:/{libraries}/lapack",  # where Debian's alternatives would point
        **{name: value for name, value in os.environ.items() if name.startswith(("OMP_", "OPENBLAS_"))},
    }  # fmt: skip
    return run("unshare", "--mount", *who, "sh", "-c", enter, folder, *arguments, env=environment, cwd=folder)


def tried(name, function, *arguments):
    """Run an environment's checks: its name, whether it ran (None: it could not be had), and the report."""
    start = time.perf_counter()
    try:
        ran, report = True, function(*arguments)
    except NotToBeHadError as reason:
        ran, report = None, f"  not to be had here: {reason}\n"
    except Exception:  # told whole, and main's exit code is 1; the other environments are tried still
        ran, report = False, traceback.format_exc()
    print(f"{name}, {time.perf_counter() - start:.0f} s:\n{report}", end="", flush=True)
    return ran


def main():
    """Build, then try each environment, two at a time; 1 where one failed."""
    with tempfile.TemporaryDirectory(prefix="packages-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        wheels = build(folder)
        jobs = [("this Python", this_python, folder / "this", wheels)]
        jobs += [(f"Debian {release}", debian, folder / release, wheels, release) for release in DEBIAN]
        with ThreadPoolExecutor(2) as pool:
            ran = list(pool.map(lambda job: tried(*job), jobs))
    print(f"packages: {ran.count(True)} passed, {ran.count(False)} failed, {ran.count(None)} not to be had here")
    return 1 if False in ran else 0


if __name__ == "__main__":
    sys.exit(main())
