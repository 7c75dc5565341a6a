"""Files are written whole or not at all, and recognised when they are replaced."""

import os

import pytest

from spine_lib import SpineError
from spine_lib.ct.files import ENDS_BYTES, atomic_file, file_identity


def test_an_identity_changes_with_size_time_and_content_alone(tmp_path):
    path = tmp_path / "ct.nii"
    content = bytes(3 * ENDS_BYTES)

    def identity(content, time_ns=10**18, name=path):
        path.write_bytes(content)
        os.utime(path, ns=(time_ns, time_ns))
        return file_identity(name)

    first = identity(content)
    assert first == identity(content)
    others = {identity(b"x" + content[1:]), identity(content[1:] + b"x"), identity(content[1:])}
    others |= {identity(content, time_ns=10**18 + 1), ""}
    assert first not in others and len(others) == 5
    folder = identity(content, name=tmp_path)
    assert folder == identity(content, name=tmp_path) != identity(content + b"x", name=tmp_path)
    assert file_identity(tmp_path / "none") == ""


def test_an_interrupted_write_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "a.nii") as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(SpineError, match="mask.nii.gz cannot be written"),
        atomic_file(tmp_path / "file" / "mask.nii.gz"),
    ):
        pass
