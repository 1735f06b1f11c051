"""Files are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import pytest

from shaplab._atomic import write_atomically


def test_a_new_file_takes_the_place_of_the_old_one_and_leaves_no_draft(tmp_path):
    path = tmp_path / "kept.bin"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"new")
        assert path.read_bytes() == b"old"

    write_atomically(path, write)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_after_an_exception_the_old_file_stands_and_the_draft_is_gone(tmp_path, kind):
    path = tmp_path / "kept.bin"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half of")
        raise kind

    with pytest.raises(kind):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
