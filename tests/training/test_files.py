"""Files are whole."""

import pytest

from training.files import write_text


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
