"""More public data are fetched whole or not at all, against a server on this machine."""

import hashlib
import io
import os
import re
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from spine_lib import SpineError
from spine_lib.datasets import more
from spine_lib.datasets.more import MoreSet, fetch_more

SCAN, MASK = b"scan" * 1000, b"mask" * 500


def digest(algorithm, content):
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


class Server(ThreadingHTTPServer):
    """A server of a dictionary of files; `faults` has what it does to a path."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.asked = {}, {}, []
        self.address = f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name, server = self.path[1:], self.server
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        server.asked.append((name, bool(span)))
        faults = server.faults.get(name, [])
        fault = faults.pop(0) if faults else ""
        if name not in server.files or fault.isdigit():
            return self.send_error(int(fault or 404))
        content = server.files[name]
        if span and fault != "no ranges":
            start, end = int(span[1]), int(span[2])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
            content = content[start : end + 1]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda _: None)
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def pair(server, monkeypatch):
    """A set of a scan and a mask, served as recorded."""
    server.files = {"raw/a.nii": SCAN, "raw/a_seg.nii": MASK}
    git = "git:" + hashlib.sha1(b"blob %d\0" % len(MASK) + MASK).hexdigest()
    files = (
        ("raw/a.nii", "volumes/a.nii", digest("sha256", SCAN)),
        ("raw/a_seg.nii", "labels/a.nii", git),
    )
    entry = MoreSet("two files", "CC BY 4.0", False, "them", "", server.address, files)
    monkeypatch.setattr(more, "more_sets", lambda: {"pair": entry})
    return entry


def tree(folder):
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".fetch.lock")
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def test_files_are_fetched_once_and_the_licence_is_shown_first(server, pair, tmp_path):
    lines = []
    for _ in range(2):
        assert fetch_more("pair", tmp_path / "x", progress=lines.append) == tmp_path / "x"
    assert "CC BY 4.0" in lines[0] and "cite them" in lines[0]
    assert tree(tmp_path / "x") == ["labels/a.nii", "volumes/a.nii"]
    assert (tmp_path / "x/volumes/a.nii").read_bytes() == SCAN
    assert len(server.asked) == 2


def test_a_licence_that_forbids_commercial_use_is_to_be_accepted(server, tmp_path):
    with pytest.raises(SpineError, match="--accept-licence"):
        fetch_more("ctspine1k-3", tmp_path / "x", progress=str)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["raw/a.nii", "raw/a_seg.nii"])
def test_another_content_is_refused_and_nothing_of_it_stays(server, pair, tmp_path, name):
    server.files[name] = b"something else"
    with pytest.raises(SpineError, match=rf"checksum of {server.address}{name} differs"):
        fetch_more("pair", tmp_path, progress=str)
    assert len(tree(tmp_path)) == (name == "raw/a_seg.nii")


@pytest.mark.parametrize("fault", ["cut", "503"])
def test_a_connection_that_breaks_off_is_tried_again(server, pair, tmp_path, fault):
    server.faults["raw/a.nii"] = [fault]
    fetch_more("pair", tmp_path, progress=str)
    assert tree(tmp_path) == ["labels/a.nii", "volumes/a.nii"]


@pytest.mark.parametrize(
    ("fault", "message"), [("404", "answered 404"), ("cut", "broke off, .*same command goes on")]
)
def test_what_fails_for_good_is_one_sentence_and_the_rest_is_resumed(
    server, pair, tmp_path, fault, message
):
    server.faults["raw/a_seg.nii"] = [fault] * 9
    with pytest.raises(SpineError, match=message) as caught:
        fetch_more("pair", tmp_path, progress=str)
    assert server.address in str(caught.value) and "\n" not in str(caught.value)
    assert tree(tmp_path) == ["volumes/a.nii"]
    server.faults.clear()
    fetch_more("pair", tmp_path, progress=str)
    assert [name for name, _ in server.asked].count("raw/a.nii") == 1


def test_a_full_disk_leaves_nothing_half_written(server, pair, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, os.strerror(28), "draft")

    monkeypatch.setattr(more.pooch.HTTPDownloader, "__call__", full)
    with pytest.raises(SpineError, match="draft cannot be written, the disk is full"):
        fetch_more("pair", tmp_path, progress=str)
    assert tree(tmp_path) == []


def test_an_unknown_name_and_subjects_of_no_archive_are_errors(pair, tmp_path):
    with pytest.raises(SpineError, match="choose one of pair"):
        fetch_more("verse", tmp_path, progress=str)
    with pytest.raises(SpineError, match="no subjects"):
        fetch_more("pair", tmp_path, ["s0001"], progress=str)


@pytest.fixture
def archive(server, monkeypatch):
    """Three subjects in a zip of the shape of TotalSegmentator's."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("meta.csv", "image_id;split\ns0001;train\n")
        for subject in ("s0001", "s0002", "s0003"):
            opened.writestr(f"{subject}/ct.nii.gz", os.urandom(50_000))
            for organ in ("vertebrae_L1", "sacrum", "liver"):
                opened.writestr(f"{subject}/segmentations/{organ}.nii.gz", os.urandom(5_000))
    content = packed.getvalue()
    server.files = {"small.zip": content}
    entry = MoreSet(
        "an archive", "CC BY 4.0", False, "them", "totalsegmentator",
        archive=server.address + "small.zip", checksum=digest("md5", content),
    )  # fmt: skip
    monkeypatch.setattr(more, "more_sets", lambda: {"small": entry})
    monkeypatch.setattr(more, "RANGE_BYTES", 4096)


SUBJECT = ["ct.nii.gz", "segmentations/sacrum.nii.gz", "segmentations/vertebrae_L1.nii.gz"]


def test_single_subjects_come_by_ranges_with_the_masks_of_the_spine_alone(
    server, archive, tmp_path
):
    fetch_more("small", tmp_path, ["s0002"], progress=str)
    assert tree(tmp_path) == ["meta.csv", *(f"s0002/{name}" for name in SUBJECT)]
    assert all(ranged for _, ranged in server.asked[1:])  # the first asks for the size
    asked = len(server.asked)
    fetch_more("small", tmp_path, ["s0002"], progress=str)
    assert len(server.asked) - asked < asked  # the list of members alone
    with pytest.raises(SpineError, match="no subject s9999"):
        fetch_more("small", tmp_path, ["s9999"], progress=str)


def test_a_server_that_sends_no_parts_sends_the_whole_which_is_compared(server, archive, tmp_path):
    server.faults["small.zip"] = ["no ranges"] * 9
    with pytest.raises(SpineError, match="cannot be read in parts .*leave --subjects out"):
        fetch_more("small", tmp_path, ["s0001"], progress=str)
    assert tree(tmp_path) == []
    right, server.files["small.zip"] = server.files["small.zip"], b"another"
    with pytest.raises(SpineError, match="checksum of .*small.zip differs"):
        fetch_more("small", tmp_path, progress=str)
    assert tree(tmp_path) == []
    server.files["small.zip"] = right
    for _ in range(2):
        fetch_more("small", tmp_path, progress=str)
        server.files = {}  # the second asks for nothing
    subjects = [f"{subject}/{name}" for subject in ("s0001", "s0002", "s0003") for name in SUBJECT]
    assert tree(tmp_path) == [".complete", "meta.csv", *subjects]
    server.files, server.faults = {"small.zip": right}, {}
    with pytest.raises(SpineError, match="no subject s9999"):
        fetch_more("small", tmp_path, ["s9999"], progress=str)


def test_a_fetch_that_was_cut_goes_on_with_the_missing_subjects(server, archive, tmp_path):
    lines, subjects = [], ["s0001", "s0002", "s0003"]

    def stop_after_one(line):
        lines.append(line)
        if line.startswith("s0001"):
            server.faults["small.zip"] = ["404"] * 99

    with pytest.raises(SpineError, match="answered 404"):
        fetch_more("small", tmp_path, subjects, progress=stop_after_one)
    assert {name.split("/")[0] for name in tree(tmp_path)} == {"meta.csv", "s0001"}
    server.faults.clear()
    fetch_more("small", tmp_path, subjects, progress=lines.append)
    assert sum(line.startswith("s0001") for line in lines) == 1
    assert sorted(path.name for path in tmp_path.glob("s*")) == subjects


def test_every_recorded_set_has_an_address_a_licence_and_checksums():
    for name, entry in more.more_sets().items():
        assert entry.licence and entry.cite, name
        assert entry.archive or entry.files, name
        for _, target, checksum in entry.files:
            algorithm, _, value = checksum.partition(":")
            assert len(value) == {"sha256": 64, "git": 40}[algorithm], target
