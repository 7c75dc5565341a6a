"""What the tests in a browser share: Chromium, Jupyter on the loopback interface, a notebook."""

import base64
import contextlib
import io
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
ARTEFACTS = ROOT / "test-artefacts"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",  # WebGL without a GPU, where the browser is built with it
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false, '
    '"doNotDisturbMode": true}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',  # all cells are on the page at once
}
PICTURE = "canvas[role=img]"


@contextmanager
def open_browser(profile):
    """Open a headless Chromium with a profile of its own; it refuses what would leave the machine.

    Skips, with the reason, where there is none.
    """
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        program = find_browser(playwright)
        if program is None:
            pytest.skip("no Chromium was found: install one, or run 'playwright install chromium'")
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=program,
            args=FLAGS,
            headless=True,
            viewport={"width": 1280, "height": 1100},
        )
        context.set_default_timeout(90_000)
        context.refused = []
        context.route(
            re.compile(r"^https?://(?!127\.0\.0\.1)"), lambda route: _refuse(context, route)
        )
        yield context
        context.close()


def find_browser(playwright):
    """Return a Chromium that starts: the system's, or the one that playwright keeps."""
    own = playwright.chromium.executable_path
    for program in (shutil.which("chromium"), shutil.which("google-chrome"), own):
        if program and Path(program).is_file():
            if subprocess.run([program, "--version"], capture_output=True).returncode == 0:
                return program
    return None


def _refuse(context, route):
    context.refused.append(route.request.url)
    route.abort()


@contextmanager
def serve_lab(home, notebooks):
    """Serve notebooks of some cells, by how they are opened: "lab" or "notebooks" (Notebook 7).

    Yields their addresses; skips where an application is not installed.
    """
    for application in ("jupyterlab", "notebook"):
        pytest.importorskip(application, reason=f"{application} is not installed")
    for name, text in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (home / "work").mkdir()
    for name, cells in notebooks.items():
        _write_notebook(home / "work" / f"{name}.ipynb", cells)
    port, token = _free_port(), secrets.token_hex(16)
    server = subprocess.Popen(
        [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
            "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
            f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={home / 'work'}",
            "--LabApp.extension_manager=readonly",
        ],
        env=_environment(home),
        stdout=(home / "server.log").open("wb"),
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/api/status?token={token}", server, home / "server.log")
        folders = {"lab": "lab/tree", "notebooks": "notebooks"}
        yield {name: f"{address}/{folders[name]}/{name}.ipynb?token={token}" for name in notebooks}
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


def _environment(home):
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path} | {
        name: str(home / folder) for name, folder in folders.items()
    }


def _write_notebook(path, cells):
    import nbformat

    cells = [nbformat.v4.new_code_cell(code.strip()) for code in cells]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(address, server, log):
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"Jupyter did not start:\n{log.read_text(encoding='utf-8', errors='replace')}")


def run_notebook(browser, address, pictures):
    """Open a notebook, run all cells and wait for a number of pictures; returns the page."""
    api = pytest.importorskip("playwright.sync_api")
    page = browser.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    for attempt in (1, 2):
        page.goto(address)
        page.locator(".jp-Notebook .jp-CodeCell").nth(1).wait_for()
        if "/lab/" in address:
            idle = page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
            idle.wait_for(state="attached")
        run_all_cells(page)
        try:
            shown = page.locator(f"{PICTURE}[aria-label]")
            shown.nth(pictures - 1).wait_for(state="attached", timeout=240_000)
            return page
        except api.TimeoutError:
            keep_screenshot(page, f"notebook-failed-{attempt}")
            shown = page.locator(".jp-Notebook").inner_text()
            print(f"attempt {attempt}: the notebook shows no viewers but\n{shown}")
    return pytest.fail("The notebook was run twice and its viewers did not appear.")


def open_page(browser, path):
    """Open a saved page and wait for its picture; `errors` are those of its script and console."""
    page = browser.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda one: page.errors.append(one.text) if one.type == "error" else None)
    page.goto(path.as_uri())
    wait_for_alt(page, "slice")
    return page


def run_all_cells(page):
    """Run all cells from the menu, again where the kernel did not take them all."""
    api = pytest.importorskip("playwright.sync_api")
    begun = page.locator(".jp-InputArea-prompt", has_text=re.compile(r"\[(\*|\d+)\]"))
    last = page.locator(".jp-Notebook .jp-CodeCell").count() - 1
    for _ in range(6):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        with contextlib.suppress(api.TimeoutError):
            begun.nth(last).wait_for(state="attached", timeout=10_000)
            return
    pytest.fail("Jupyter was asked six times to run the cells and did not begin.")


def handle(scope, name):
    """Return the first slider with a description, on a page or part of it."""
    return scope.get_by_role("slider", name=re.compile(rf"(^| ){name}$")).first


def picture(scope):
    """Return the pixels and the alt text of the first picture on the page or part of it."""
    canvas = scope.locator(f"{PICTURE}:visible").first
    source = canvas.evaluate("canvas => canvas.toDataURL('image/png')")
    with Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))) as decoded:
        return np.asarray(decoded.convert("RGB")), canvas.get_attribute("aria-label")


def slice_number(scope):
    return int(re.search(r"slice (\d+) of", picture(scope)[1]).group(1))


def wait_for_alt(scope, words):
    scope.locator(f"{PICTURE}[aria-label*='{words}']:visible").first.wait_for()


@contextmanager
def another_picture(scope, number=0):
    """Wait at the end of the block until the picture of a number has other pixels than before."""
    canvas = scope.locator(f"{PICTURE}:visible").nth(number)
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    yield
    page = getattr(scope, "page", scope)
    changed = "([canvas, before]) => canvas.toDataURL() !== before"
    page.wait_for_function(changed, arg=[canvas.element_handle(), before])


def keep_screenshot(page, name):
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"{name}.png")
