"""A disk that cannot be written or is full: one line that says where, exit code 2, and the checkpoints as they were."""

import shutil
import subprocess
import tempfile

import pytest
from forks import results, start

from training.checkpoint import load_checkpoint

STEPS = 6


def train(run, out, *flags, **options):
    """The exit code, and what was printed."""
    out.unlink(missing_ok=True)
    saves = ("--training.checkpoint_every=2", "--training.keep=1")
    process = start(out, f"--run={run}", f"--training.steps={STEPS}", *saves, *flags, **options)
    process.join()
    return process.exitcode, out.read_text()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(run, run.with_suffix(".out"))[0] == 0
    return results(run)


def assert_one_line(code, said, *parts):
    assert code == 2, said
    *before, last = said.splitlines()
    assert last.startswith("error: "), said
    assert all(str(part) in last for part in parts), said
    assert not any(word in line for line in before for word in ("error", "Error", "Traceback", "warning")), said


def steps(run):
    return [load_checkpoint(folder).step for folder in sorted(run.glob("checkpoints/step-*"))]


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/run"])
def test_where_no_run_can_be(tmp_path, place):
    (tmp_path / "file").write_text("")
    run = tmp_path / place
    assert_one_line(*train(run, tmp_path / "out"), run)


@pytest.mark.parametrize(("name", "kept"), [("checkpoints", []), ("snapshots", [4])])
def test_a_file_in_the_place_of_a_folder(tmp_path, name, kept):
    run = tmp_path / "run"
    run.mkdir()
    (run / name).write_text("")
    assert_one_line(*train(run, tmp_path / "out"), run / name)
    assert steps(run) == kept


@pytest.mark.parametrize(
    ("bytes_each", "every", "name"),
    [
        (800, 2, "config.yaml"),
        (1_000_000, 9, "snapshots/"),
        (1_000_000, 2, "checkpoints/"),
        (6_000_000, 2, "checkpoints/"),
    ],
)
def test_a_file_that_cannot_be_so_large(tmp_path, undisturbed, bytes_each, every, name):
    """And when it can, it goes on."""
    run, out = tmp_path / "run", tmp_path / "out"
    limited = train(run, out, f"--training.checkpoint_every={every}", largest_file=bytes_each)
    assert_one_line(*limited, run / name, "File too large")
    assert steps(run) == []
    assert train(run, out)[0] == 0
    assert results(run) == undisturbed


def test_the_log_on_a_full_disk(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "log.txt").symlink_to("/dev/full")
    assert_one_line(*train(run, tmp_path / "out"), run / "log.txt", "No space left on device")


def mount(folder, options):
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)


def may_mount():
    with tempfile.TemporaryDirectory() as folder:
        mounted = shutil.which("mount") is not None and mount(folder, "size=4k").returncode == 0
        if mounted:
            subprocess.run(["umount", folder], check=True)
    return mounted


if may_mount():  # where one may not, there are the tests above

    @pytest.fixture
    def disk(tmp_path):
        folder = tmp_path / "disk"
        folder.mkdir()
        mount(folder, "size=4k").check_returncode()
        yield folder
        subprocess.run(["umount", folder], check=True)

    def test_a_disk_that_is_full_and_one_to_be_read_only(tmp_path, disk, undisturbed):
        """One run through all of them. Two checkpoints do not fit in 50 MB, and then there is room."""
        run, out = disk / "run", tmp_path / "out"
        for size, kept in (("40k", []), ("20m", []), ("50m", [2])):
            mount(disk, f"remount,size={size}").check_returncode()
            assert_one_line(*train(run, out), run, "No space left on device")
            assert steps(run) == kept
        for leftover in run.glob("*/.unfinished-*"):
            (leftover / "half").touch()  # in all, as it is by chance which there are and which is first
        mount(disk, "remount,ro").check_returncode()
        assert_one_line(*train(run, out), run, "Read-only file system")
        assert_one_line(*train(disk / "new", out), disk / "new", "Read-only file system")
        mount(disk, "remount,rw,size=200m").check_returncode()
        assert train(run, out)[0] == 0
        assert results(run) == undisturbed
