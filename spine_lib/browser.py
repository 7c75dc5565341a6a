"""Find a Chromium for the tests that need a browser, and try to install one where there is none.

Only the standard library is imported.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
USUAL_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Google\Chrome\Application\chrome.exe",
)
APT_LIMIT_S, PLAYWRIGHT_LIMIT_S = 300, 300

Run = Callable[..., subprocess.CompletedProcess]


def find_browser(run: Run = subprocess.run) -> Path | None:
    """Return a Chromium or Chrome that starts: the system's, or the one that playwright keeps.

    Args:
        run: starts a program, as `subprocess.run` does.
    """
    on_path = (shutil.which(name) for name in NAMES)
    candidates = [*filter(None, on_path), *USUAL_PLACES, _playwrights_own(run)]
    for candidate in filter(None, candidates):
        if Path(candidate).is_file() and _starts(candidate, run):
            return Path(candidate)
    return None


def ensure_browser(run: Run = subprocess.run, say: Callable[[str], None] = print) -> Path | None:
    """Return a Chromium, installing one where there is none; say so where that fails.

    On Debian and Ubuntu it is the distribution's, if this is root; elsewhere the one that
    playwright downloads into the user's cache (about 180 MB). Neither may take longer than its
    time limit.

    Args:
        run: starts a program, as `subprocess.run` does.
        say: takes a sentence for the user.

    Returns:
        The program, or None if the tests that need a browser have to be skipped.
    """
    found = find_browser(run)
    if found is not None:
        return found
    reasons = []
    for attempt in (_install_with_apt, _install_with_playwright):
        reason = attempt(run, say)
        found = find_browser(run)
        if found is not None:
            return found
        reasons.append(reason or "what was installed does not start")
    say(
        f"The tests in a browser will be skipped: no Chromium was found ({'; '.join(reasons)}). "
        "Install Chromium or Chrome, or run 'python -m playwright install --with-deps chromium'."
    )
    return None


def _starts(program: str, run: Run) -> bool:
    """Tell whether a browser starts; only Linux ships without the libraries that it needs."""
    if not sys.platform.startswith("linux"):
        return True
    return _failure(run, [program, "--version"], 60) is None


def _playwrights_own(run: Run) -> str | None:
    if importlib.util.find_spec("playwright") is None:
        return None
    # In a process of its own: its loop would stand in the way of the caller's.
    code = (
        "from playwright.sync_api import sync_playwright as p\n"
        "with p() as it: print(it.chromium.executable_path)"
    )
    try:
        done = run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _install_with_apt(run: Run, say: Callable[[str], None]) -> str | None:
    """Install Debian's Chromium; return why it could not be, or None."""
    if shutil.which("apt-get") is None:
        return "there is no apt-get here"
    if os.geteuid() != 0:
        return "apt-get needs root"
    say("Installing Chromium for the tests in a browser (apt-get).")
    for rest in (
        ["update", "-qq"],
        ["install", "-y", "-qq", "--no-install-recommends", "chromium"],
    ):
        failure = _failure(run, ["apt-get", *rest], APT_LIMIT_S, DEBIAN_FRONTEND="noninteractive")
        if failure:
            return f"apt-get {rest[0]}: {failure}"
    return None


def _install_with_playwright(run: Run, say: Callable[[str], None]) -> str | None:
    """Download playwright's Chromium; return why it could not be, or None."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed"
    say("Downloading Chromium for the tests in a browser (playwright, about 180 MB, once).")
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    failure = _failure(
        run, command, PLAYWRIGHT_LIMIT_S, PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT="10000"
    )
    return f"playwright install: {failure}" if failure else None


def _failure(run: Run, command: list[str], limit_s: float, **environment: str) -> str | None:
    """Run a command quietly; return its last line or what else went wrong, or None."""
    try:
        done = run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            env={**os.environ, **environment},
        )
    except subprocess.TimeoutExpired:
        return f"not done after {limit_s:g} s"
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1].strip() if lines else f"exit code {done.returncode}"
