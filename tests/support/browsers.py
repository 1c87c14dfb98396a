"""A real browser and MLflow's real UI, for the tests and for the pictures of the README."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
WAIT = 60.0  # seconds; two busy cores draw MLflow's UI slowly
T = TypeVar("T")


def missing() -> str:
    """Return what a browser needs and this machine lacks; an empty text if nothing."""
    found = {
        "chromium": _chromium(),
        "chromedriver": shutil.which("chromedriver"),
        "selenium": importlib.util.find_spec("selenium"),
    }
    return ", ".join(name for name, place in found.items() if place is None)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium without a window; yield what drives it."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(_chromium())
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage",
                     "--enable-unsafe-swiftshader", "--hide-scrollbars"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(str(shutil.which("chromedriver")))
    driving = webdriver.Chrome(options=options, service=service)
    try:
        yield driving
    finally:
        driving.quit()


def open_report(browser: Any, path: Path) -> None:
    """Open a report from disk; return when its plots are drawn."""
    browser.get(path.resolve().as_uri())
    wait_for(browser, "return document.documentElement.dataset.ready === 'yes'")


def resize(browser: Any, width: int, height: int, *, theme: str = "light") -> None:
    """Give the page a size in pixels, and light or dark."""
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def wait_for(browser: Any, script: str) -> Any:
    """Return what a script returns in the page, as soon as that is true."""
    return until(lambda: browser.execute_script(script), lambda: f"{script}\n{text(browser)}")


def until(found: Callable[[], T], tell: Callable[[], str]) -> T:
    """Return what a function returns, as soon as that is true; tell why where it never is."""
    end = time.monotonic() + WAIT
    while not (value := found()):
        assert time.monotonic() < end, tell()
        time.sleep(0.2)
    return value


def text(browser: Any) -> str:
    """Return what the page shows."""
    return str(browser.execute_script("return document.body.innerText"))


def requests(browser: Any, *own: str) -> list[str]:
    """Return what pages asked for since the last call, besides what is theirs."""
    events = [json.loads(one["message"])["message"] for one in browser.get_log("performance")]
    sent = [one for one in events if one["method"] == "Network.requestWillBeSent"]
    addresses = [one["params"]["request"]["url"] for one in sent]
    return [one for one in addresses if not one.startswith(("data:", "blob:", *own))]


def complaints(browser: Any) -> list[str]:
    """Return the errors that pages have told since the last call."""
    return [one["message"] for one in browser.get_log("browser") if one["level"] == "SEVERE"]


def run_module(project: Path, module: str, *arguments: str) -> str:
    """Run a module of ours in a folder, in a process of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=project, env=_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def mlflow_ui(project: Path) -> Iterator[str]:
    """Start `pneumonia ui` in a folder, on a free port of this machine; yield its link."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    log = project / "ui.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pneumonia", "ui", f"port={port}"],
            cwd=project, env=_environment(), stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: _answers(port) or process.poll() is not None, log.read_text)
        assert process.poll() is None, log.read_text()
        yield next(word for word in log.read_text().split() if word.startswith("http"))
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the session that was started above
        process.wait(30)


def _environment() -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW")}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": programs, "PYTHONPATH": str(ROOT)}


def _answers(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("google-chrome")
