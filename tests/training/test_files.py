"""Files are whole."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from training.files import write_png, write_text


def test_a_file_is_the_old_one_until_it_is_the_new_one(tmp_path, monkeypatch):
    file = tmp_path / "file"
    write_text(file, "old")

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", die)
        with pytest.raises(KeyboardInterrupt):
            write_text(file, "new")
    assert file.read_text() == "old"
    write_text(file, "new")
    assert file.read_text() == "new"
    assert list(tmp_path.glob("file*")) == [file]


@pytest.mark.parametrize("picture", [Figure().savefig, Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save])
def test_a_picture_is_the_old_one_until_it_is_the_new_one(tmp_path, picture):
    file = tmp_path / "file.png"
    write_png(file, picture)
    old = file.read_bytes()
    assert Image.open(file).format == "PNG"

    def die(stream, **how):
        picture(stream, **how)
        stream.truncate(len(old) // 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_png(file, die)
    assert file.read_bytes() == old
