"""A real server on the champion, asked over HTTP, says what `pneumonia-predict` says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import Project, write_images

from pneumonia import predict

CHAMPION = "models:/pneumonia@champion"
REQUEST = """\
import json, sys
from pathlib import Path
from pneumonia.inference import decode
print(json.dumps({"inputs": decode(Path(sys.argv[1]))[None].tolist()}))
"""


@contextmanager
def serving(project: Project, log: Path) -> Iterator[str]:
    """Serve the champion on a free port of this machine; yield the address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    command = ["mlflow", "models", "serve", "-m", CHAMPION, "--env-manager", "local"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": project.settings.store_uri}
    # The server is started by the name `python`.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", port],
            cwd=project.folder,
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _await(address, process, log)
        yield address
    finally:
        os.killpg(process.pid, 15)  # the session that was started above, its worker included
        process.wait(30)


def _await(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/ping", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise AssertionError(log.read_text())


def ask(address: str, body: bytes) -> list[float]:
    """Return the probabilities that the server gives for a request."""
    request = urllib.request.Request(
        f"{address}/invocations", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return [row[0] for row in json.loads(answer.read())["predictions"]]


@pytest.mark.slow
@pytest.mark.usefixtures("started")
def test_the_server_says_what_the_command_says(
    here: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = sorted(write_images(tmp_path / "scans"))
    assert predict.main([str(tmp_path / "scans"), "format=json"]) == 0
    said = json.loads(capsys.readouterr().out)["predictions"]
    assert len(said) == len(paths)
    with serving(here, tmp_path / "server.log") as address:
        for path, row in zip(paths, said, strict=True):
            with Image.open(path) as image:
                pixels = np.asarray(image)
            images = pixels.reshape(1, *pixels.shape[:2], -1).tolist()
            (probability,) = ask(address, json.dumps({"inputs": images}).encode())
            assert probability == pytest.approx(row["probability"], abs=1e-6)
        # As the README makes a request of a file.
        body = subprocess.run(
            [sys.executable, "-c", REQUEST, str(paths[0])],
            env={**os.environ, "PYTHONPATH": str(Path(predict.__file__).parents[1])},
            capture_output=True,
            check=True,
        ).stdout
        assert ask(address, body) == [pytest.approx(said[0]["probability"], abs=1e-6)]
