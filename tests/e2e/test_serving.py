"""A real server on the champion says what `pneumonia predict` says; what is no image is refused."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from samples import Project, pixels, write_images

from pneumonia.cli import predict
from pneumonia.tracking.mlflow_model import write_model

CHAMPION = "models:/pneumonia-chest@champion"
REQUEST = """\
import json, sys
from pathlib import Path
from pneumonia.datasets.decode import decode
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


IMAGE = pixels(12, 10)[np.newaxis, ..., np.newaxis]


@pytest.fixture(scope="module")
def served(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a classifier as MLflow's server loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of its own type hints, once
        import mlflow.pyfunc.scoring_server

    folder = tmp_path_factory.mktemp("served")
    write_model(folder, project.classifier, model_id="m-1", run_id="r")
    return mlflow.pyfunc.load_model(str(folder))


def answer(served: Any, request: str) -> list[list[float]]:
    """Return what MLflow's server answers, without the server."""
    from mlflow.pyfunc.scoring_server import invocations

    schema = served.metadata.get_input_schema()
    response = invocations(request, "application/json", served, schema).response
    return json.loads(response)["predictions"]


@pytest.mark.parametrize("key", ["inputs", "instances"])
@pytest.mark.parametrize("channels", [1, 3])
def test_integers_are_answered(served: Any, model: keras.Model, key: str, channels: int) -> None:
    images = np.repeat(np.concatenate([IMAGE, 255 - IMAGE]), channels, axis=-1)
    expected = model.predict(images, verbose=0)
    said = answer(served, json.dumps({key: images.tolist()}))
    np.testing.assert_allclose(said, expected, atol=1e-6)
    for kind in (np.uint8, np.int64, np.uint16):
        np.testing.assert_allclose(served.predict(images.astype(kind)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "received"),
    [
        (IMAGE / 255, "floats from 0 to 1 of shape .*round"),
        (IMAGE.astype(float), "floats from 0 to 255 of shape"),
        (IMAGE / 127.5 - 1, "floats from -1 to 1 of shape"),
        (np.zeros(IMAGE.shape), "floats from 0 to 0"),
        (IMAGE / 255 - np.nan, "floats from nan to nan"),
        (IMAGE.astype(int) - 1, "integers from -1 to 254"),
        (IMAGE.astype(int) + 1, "integers from 1 to 256"),
        (IMAGE.astype(int) * 257, "integers from 0 to 65535"),
        (IMAGE[0], r"integers from 0 to 255 of shape \(12, 10, 1\)"),
        (IMAGE[..., 0], r"of shape \(1, 12, 10\)"),
        (np.repeat(IMAGE, 4, axis=-1), r"of shape \(1, 12, 10, 4\)"),
        (np.moveaxis(np.repeat(IMAGE, 3, axis=-1), -1, 1), r"of shape \(1, 3, 12, 10\)"),
        ([], "no numbers"),
        ([[[[1], [2]], [[3]]]], "rows of several lengths"),
        ([[[["1"]]]], "no numbers"),
        ([[[[None]]]], "no numbers"),
        ([[[[True]]]], "no numbers"),
    ],
)
def test_what_is_no_image_is_refused_with_status_400(
    served: Any, images: Any, received: str
) -> None:
    from mlflow.exceptions import MlflowException

    listed = images.tolist() if isinstance(images, np.ndarray) else images
    for key in ("inputs", "instances"):
        with pytest.raises(MlflowException) as caught:
            answer(served, json.dumps({key: listed}))
        assert caught.value.get_http_status_code() == 400
    if listed and "several" not in received:
        with pytest.raises(MlflowException, match="expected integers from 0 to 255") as caught:
            served.predict(np.array(images))
        assert re.search(received, caught.value.message)


def test_the_own_settings_of_keras_do_not_count_where_it_is_served(
    project: Project, model: keras.Model, tmp_path: Path
) -> None:
    import mlflow.pyfunc

    write_model(tmp_path, project.classifier, model_id="m-1", run_id="r")
    expected = model.predict(IMAGE, verbose=0)
    keras.config.set_image_data_format("channels_first")
    try:
        served = mlflow.pyfunc.load_model(str(tmp_path))
        np.testing.assert_allclose(served.predict(IMAGE), expected, atol=1e-6)
    finally:
        keras.config.set_image_data_format("channels_last")


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
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(address, json.dumps({"inputs": (IMAGE / 255).tolist()}).encode())
        assert caught.value.code == 400
        assert b"expected integers from 0 to 255" in caught.value.read()
