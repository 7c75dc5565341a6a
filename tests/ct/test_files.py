"""Files are recognised when they are replaced."""

import os

from spine_lib.ct.files import ENDS_BYTES, file_identity


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
