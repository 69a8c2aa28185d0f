"""Two distributions of one version from one tree. This is quick; packaging/check.py installs them and tries them."""

import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PYPROJECTS = {folder: ROOT / folder / "pyproject.toml" for folder in (".", "packaging/training")}
PROJECTS = {folder: tomllib.loads(file.read_text())["project"] for folder, file in PYPROJECTS.items()}
PACKAGES = {".": {"interpolants"}, "packaging/training": {"models", "training", "sit"}}
PROJECT = PROJECTS["."]
CHECK = ROOT / "packaging" / "check.py"


def load(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = load(CHECK)


def version():
    """The one that is written, read as text: what is installed may be older."""
    return re.search(r'^__version__ = "(.+)"$', (ROOT / "interpolants/__init__.py").read_text(), re.MULTILINE)[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Of each distribution: the names in the sdist, and the files of the wheel that is built from the sdist."""
    found = {}
    for folder in PROJECTS:
        out = tmp_path_factory.mktemp("dist")
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT / folder)]
        subprocess.run(command, check=True, capture_output=True)
        (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
        with tarfile.open(sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        with zipfile.ZipFile(wheel) as archive:
            found[folder] = names, {name: archive.read(name) for name in archive.namelist()}
    return found


def of_wheel(files, name):
    """A file in the folder of metadata."""
    return next(content for file, content in files.items() if file.endswith(f".dist-info/{name}"))


@pytest.mark.parametrize("folder", PROJECTS)
def test_a_wheel_holds_its_packages_whole_and_no_other(built, folder):
    names, files = built[folder]
    assert {file.split("/")[0] for file in files if ".dist-info/" not in file} == PACKAGES[folder]
    for package in PACKAGES[folder]:
        where = ROOT if (ROOT / package).exists() else ROOT / folder
        there = [p for p in (where / package).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
        sources = {str(p.relative_to(where)) for p in there}
        assert f"{package}/py.typed" in sources
        assert sources <= files.keys()
        assert sources <= names
    assert not [file for file in files if "__pycache__" in file or file.endswith(".pyc")]
    assert of_wheel(files, "licenses/LICENSE").decode() == (ROOT / "LICENSE").read_text()


def test_sit_carries_the_scripts_that_people_copy(built):
    _, files = built["packaging/training"]
    carried = {file.removeprefix("sit/scripts/"): content for file, content in files.items() if "/scripts/" in file}
    assert "train.py" in carried
    assert "configs/digits.yaml" in carried
    for name, content in carried.items():
        assert content == (ROOT / "examples" / name).read_bytes(), name
        assert b"examples." not in content.replace(b"examples/", b""), f"{name} imports examples, which no wheel has"


@pytest.mark.parametrize("folder", PROJECTS)
def test_the_metadata_is_what_an_index_accepts(built, folder):
    _, files = built[folder]
    meta = Metadata.from_email(of_wheel(files, "METADATA"), validate=True)
    assert str(meta.version) == version()
    assert meta.license_expression == "MIT"
    assert meta.description_content_type == "text/markdown"
    assert meta.description.startswith("# sit-interpolants")
    assert "Typing :: Typed" in meta.classifiers


def test_the_version_is_written_once_and_all_agree(built):
    """It also stands in CITATION.cff, a file of plain facts, and heads the changelog."""
    _, files = built["packaging/training"]
    requires = Metadata.from_email(of_wheel(files, "METADATA"), validate=True).requires_dist
    assert [str(requirement) for requirement in requires] == [f"sit-interpolants[training]=={version()}"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version()
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version()
    assert "release = __version__" in (ROOT / "docs/conf.py").read_text()
    said = subprocess.run([sys.executable, "-m", "sit", "--version"], cwd=ROOT, capture_output=True, check=True)
    assert version() in said.stdout.decode().split()


def test_the_licence_of_the_second_distribution_is_that_of_the_first():
    assert (ROOT / "packaging/training/LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def requirements():
    """All that pyproject.toml asks for, but the distribution itself."""
    texts = [*PROJECT["dependencies"], *(text for extra in PROJECT["optional-dependencies"].values() for text in extra)]
    return [found for found in map(Requirement, texts) if found.name != PROJECT["name"]]


def test_the_pinned_versions_are_allowed():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.lower().replace("_", "-").split("==") for line in lines if "==" in line)
    for requirement in requirements():
        pinned = pins[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(pinned, prereleases=True), (str(requirement), pinned)


def test_the_oldest_versions_are_those_that_are_tried():
    """Each but torch, whose oldest comes with a release of Debian."""
    needed = map(Requirement, check.NEEDED)
    lowest = {r.name: next(s.version for s in r.specifier if s.operator == ">=") for r in needed}
    assert lowest.pop("torch") == "2.6"
    assert dict(floor.split("==") for floor in check.floors()) == lowest


def test_what_cannot_be_had_is_told_and_what_fails_fails(monkeypatch, tmp_path, capsys):
    """A machine without apt, and an environment whose checks fail."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check.tried("Debian", check.debian, tmp_path / "d", [], "trixie") is None
    assert "not to be had here: apt-get is not on this machine" in capsys.readouterr().out
    assert check.tried("failing", check.run, sys.executable, "-c", "raise SystemExit('why it failed')") is False
    assert "why it failed" in capsys.readouterr().out
    assert check.tried("passing", check.run, sys.executable, "-c", "print('report')") is True
    assert "report" in capsys.readouterr().out


@pytest.mark.parametrize("folder", PROJECTS)
def test_a_classifier_is_a_python_that_is_tried(folder):
    """And the page says which."""
    stated = {text.split(" :: ")[-1] for text in PROJECTS[folder]["classifiers"] if "Python :: 3." in text}
    assert PROJECTS[folder]["requires-python"] == f">={min(stated, key=Version)}"
    assert stated == {"3.11", *check.DEBIAN.values()}
    page = (ROOT / "docs/deprecation.md").read_text()
    rows = dict(re.findall(r"^\| Debian (\w+) \| ([\d.]+) \|", page, re.MULTILINE))
    assert rows == check.DEBIAN


def test_every_extra_that_a_message_names_exists():
    files = [file for packages in PACKAGES.values() for p in packages for file in (ROOT / p).rglob("*.py")]
    named = {extra for file in files for extra in re.findall(r"sit-interpolants\[(\w+)\]", file.read_text())}
    assert {"plot", "quantize", "vae"} <= named
    assert named <= PROJECT["optional-dependencies"].keys()


@pytest.mark.parametrize("name", ["bug", "question", "wrong_formula"])
def test_an_issue_form_asks_for_what_it_needs(name):
    form = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text())
    assert form.keys() >= {"name", "description", "body"}
    identifiers = [field["id"] for field in form["body"]]
    assert len(set(identifiers)) == len(identifiers)
    assert all(field["validations"]["required"] and field["attributes"]["label"] for field in form["body"])
