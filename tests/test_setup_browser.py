"""A browser for the tests: found where there is one, installed where that can be, else told."""

import shutil
import subprocess
import sys

import pytest

from spine_lib import browser

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="fakes programs as on Unix")


class Machine:
    """A machine without a browser, on which installing one works or not."""

    def __init__(self, folder, monkeypatch, apt=None, playwright=None, root=True):
        self.folder, self.apt, self.playwright, self.ran = folder, apt, playwright, []
        self.system, self.own = folder / "chromium", folder / "own-chromium"
        self.broken = False
        monkeypatch.setattr(browser, "USUAL_PLACES", ())
        monkeypatch.setattr(shutil, "which", self.which)
        monkeypatch.setattr(browser.os, "geteuid", lambda: 0 if root else 1000)
        monkeypatch.setattr(browser.sys, "platform", "linux")

    def which(self, name):
        there = name == "apt-get" and self.apt is not None
        there |= name == "chromium" and self.system.is_file()
        return str(self.folder / name) if there else None

    def run(self, command, **options):
        assert options["timeout"] <= 300
        answer = self.answer([str(part) for part in command])
        if isinstance(answer, Exception):
            raise answer
        code, text = answer
        return subprocess.CompletedProcess(command, code, text, "")

    def answer(self, command):
        if command[-1] == "--version":
            return (127, "libnss3.so: cannot open") if self.broken else (0, "Chromium 1")
        if "-c" in command:
            return 0, f"{self.own}\n"
        self.ran.append(" ".join(command[-2:]))
        for place, how in ((self.system, self.apt), (self.own, self.playwright)):
            if ("apt-get" in command[0]) == (place == self.system):
                if how == "works" and "install" in command:
                    place.touch()
                return (0, "") if how == "works" else how
        return None


def test_a_browser_that_is_there_is_taken_and_nothing_is_installed(tmp_path, monkeypatch):
    machine, said = Machine(tmp_path, monkeypatch, apt="works"), []
    machine.system.touch()
    assert browser.ensure_browser(machine.run, said.append) == machine.system
    assert machine.ran == [] and said == []


def test_root_on_debian_gets_the_one_of_the_distribution(tmp_path, monkeypatch):
    machine, said = Machine(tmp_path, monkeypatch, apt="works"), []
    assert browser.ensure_browser(machine.run, said.append) == machine.system
    assert machine.ran == ["update -qq", "--no-install-recommends chromium"]
    assert said == ["Installing Chromium for the tests in a browser (apt-get)."]


@pytest.mark.parametrize(
    ("apt", "root"), [(None, True), ("works", False), ((100, "E: no such host"), True)]
)
def test_where_apt_cannot_playwright_downloads_one(tmp_path, monkeypatch, apt, root):
    machine = Machine(tmp_path, monkeypatch, apt=apt, playwright="works", root=root)
    assert browser.ensure_browser(machine.run, lambda _: None) == machine.own
    assert machine.ran[-1] == "install chromium"


def test_where_nothing_helps_it_is_said_that_tests_are_skipped_and_why(tmp_path, monkeypatch):
    endless = subprocess.TimeoutExpired("playwright", 300)
    machine = Machine(tmp_path, monkeypatch, apt=(100, "E: no such host"), playwright=endless)
    said = []
    assert browser.ensure_browser(machine.run, said.append) is None
    for words in (
        "will be skipped",
        "apt-get update: E: no such host",
        "playwright install: not done after 300 s",
        "Install Chromium",
    ):
        assert words in said[-1]


def test_a_browser_that_does_not_start_is_none(tmp_path, monkeypatch):
    machine = Machine(tmp_path, monkeypatch, playwright="works")
    machine.own.touch()
    machine.broken = True
    assert browser.find_browser(machine.run) is None
    said = []
    assert browser.ensure_browser(machine.run, said.append) is None
    assert "what was installed does not start" in said[-1]


def test_the_search_on_this_machine_ends_with_a_program_or_none():
    found = browser.find_browser()
    assert found is None or found.is_file()
