"""Files are written whole or not at all, and recognised when they are replaced."""

import contextlib
import errno
import os
import tempfile
from pathlib import Path

import pytest

from spine_lib import SpineError
from spine_lib.ct.files import ENDS_BYTES, atomic_file, check_output, file_identity, sole_use


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


@pytest.mark.parametrize(
    ("number", "filename", "words"),
    [
        (errno.ENOSPC, "/data/mask.nii", "the disk is full: free some space"),
        (errno.ENOSPC, f"{tempfile.gettempdir()}/a", "temporary folder .* set TMPDIR"),
        (errno.ENOENT, "No usable temporary directory found in ['/tmp']", "temporary .* is full"),
        (errno.EACCES, "/data/mask.nii", "you have no permission: change the rights"),
        (errno.ENAMETOOLONG, None, "its name is too long: shorten it"),
        (errno.EIO, None, "the system reports Input/output error: check the disk"),
    ],
)
def test_each_failure_of_the_system_has_its_own_advice(tmp_path, number, filename, words):
    error = OSError(number, os.strerror(number), filename)
    with (
        pytest.raises(SpineError, match=f"a.nii cannot be written, .*{words}.*\\.$"),
        atomic_file(tmp_path / "a.nii"),
    ):
        raise error


def test_a_name_as_long_as_the_system_allows_can_be_written(tmp_path):
    with atomic_file(tmp_path / (251 * "a" + ".nii")) as stream:
        stream.write(b"all")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"all"]


def test_an_interrupted_write_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "a.nii") as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


# --- what may be written --------------------------------------------------------------------------


def spellings(file, folder):
    """Yield paths that lead to a file in a folder."""
    yield file
    yield folder / "." / file.name
    yield folder / ".." / folder.name / file.name
    yield Path(os.path.relpath(file))
    for name, link in (("soft", os.symlink), ("hard", os.link)):
        with contextlib.suppress(OSError):  # Windows asks for rights
            link(file, folder / f"{name}.nii.gz")
            yield folder / f"{name}.nii.gz"
    other = folder.parent / "other"
    with contextlib.suppress(OSError):
        os.symlink(folder, other)
        yield other / file.name
    if (folder / file.name.upper()).exists():  # a disk that takes no notice of case
        yield folder / file.name.upper()


@pytest.mark.parametrize("given", ["the file", "its folder"])
def test_no_spelling_of_an_input_may_be_written(tmp_path, given):
    folder = tmp_path / "data"
    folder.mkdir()
    file = folder / "scan.nii.gz"
    file.write_bytes(b"scan")
    for path in spellings(file, folder):
        inputs = [None, file if given == "the file" else folder]
        with pytest.raises(SpineError, match="is an input of this command") as caught:
            check_output(path, inputs, overwrite=True)
        assert str(path) in str(caught.value)


def test_a_file_that_exists_is_replaced_only_when_asked(tmp_path):
    file = tmp_path / "mask.nii"
    file.touch()
    with pytest.raises(SpineError, match="exists already: choose another output, or add --overwr"):
        check_output(file, [tmp_path / "scan.nii"])
    assert check_output(file, [tmp_path / "scan.nii"], overwrite=True) == file


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mask", "must end in .nii or .nii.gz"),
        ("mask.NII.GZ", "must end in .nii or .nii.gz"),
        (300 * "a" + ".nii", "its name is too long"),
        ("folder.nii", "is no file that can be replaced"),
        ("file/mask.nii", "cannot be written, what should be its folder is a file"),
        ("new.nii", "needs 1,000,000,000,000 MB and"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(tmp_path, name, message):
    (tmp_path / "file").touch()
    (tmp_path / "folder.nii").mkdir()
    before = sorted(tmp_path.rglob("*"))
    size = 10**18 if name == "new.nii" else 0
    with pytest.raises(SpineError, match=message) as caught:
        check_output(tmp_path / name, (), True, (".nii", ".nii.gz"), size)
    assert "\n" not in str(caught.value) and sorted(tmp_path.rglob("*")) == before


def test_a_folder_in_use_is_refused_and_drafts_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / ".last.ckpt.1a.part").touch()
    with sole_use(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
        with pytest.raises(SpineError, match="is in use by another process"):
            with sole_use(tmp_path, seconds=0):
                pass
    with sole_use(tmp_path, seconds=0):
        pass
