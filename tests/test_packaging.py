"""Two wheels from one tree: `interpolants` alone, and `models` with `training`."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("folder", "packages"), [(".", {"interpolants"}), ("packaging/training", {"models", "training"})]
)
def test_a_wheel_holds_its_packages_and_no_other(folder, packages, tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT / folder, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert {name.split("/")[0] for name in names} == packages
    sources = {str(p.relative_to(ROOT)) for package in packages for p in (ROOT / package).rglob("*.py")}
    assert sources <= set(names)
