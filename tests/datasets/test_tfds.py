"""PneumoniaMNIST through TensorFlow Datasets: prepared from the real file, offline."""

from __future__ import annotations

import functools
import http.server
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pneumonia.datasets.sources import npz, pneumonia_mnist
from pneumonia.datasets.tfds import fetch
from pneumonia.errors import UserError

FILE = Path(__file__).parents[3] / "shared" / "data" / "pneumoniamnist.npz"
PREPARED = Path("pneumonia_mnist", "1.0.0")

needs_file = pytest.mark.skipif(
    not FILE.exists(), reason="needs pneumoniamnist.npz in ../shared/data"
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which PneumoniaMNIST was prepared, after a process that was killed."""
    folder = left_behind(tmp_path_factory.mktemp("tfds"))
    pneumonia_mnist(data_dir=str(folder), manual_dir=str(FILE.parent))
    return folder


def left_behind(folder: Path) -> Path:
    # What a process that was killed leaves behind.
    (folder / PREPARED.parent / "incomplete.ABC123_1.0.0").mkdir(parents=True)
    (folder / "pneumonia_mnist.lock").touch()
    return folder


@needs_file
@pytest.mark.slow
def test_two_processes_prepare_it_at_once(tmp_path: Path) -> None:
    folder = left_behind(tmp_path)
    code = (
        "from pneumonia.datasets.sources import pneumonia_mnist;"
        f"print(pneumonia_mnist(data_dir={str(folder)!r}, manual_dir={str(FILE.parent)!r})"
        ".train.digest)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    # The digest alone: neither progress bars nor messages go to stdout.
    assert len(outputs[0]) == 65
    assert outputs[0] == outputs[1]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send all requests to a port where nobody listens."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve the folder `tmp_path/served`; return the address."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass

    def send_header(self, keyword: str, value: str) -> None:
        # A connection that breaks off: fewer bytes come than were announced.
        is_short = keyword == "Content-Length" and self.path.endswith("short.bin")
        super().send_header(keyword, str(int(value) + 10) if is_short else value)


@pytest.mark.slow
@needs_file
def test_the_prepared_dataset_is_complete(
    data_dir: Path, offline: None, capfd: pytest.CaptureFixture[str]
) -> None:
    data = pneumonia_mnist(data_dir=str(data_dir))
    assert capfd.readouterr().out == ""
    assert data.name == "pneumonia_mnist"
    assert data.class_names == ("normal", "pneumonia")
    assert [len(split) for split in (data.train, data.val, data.test)] == [4708, 524, 624]
    assert data.train.images.read(np.array([0, 4707])).shape == (2, 28, 28, 1)
    positives = [int(split.labels.sum()) for split in (data.train, data.val, data.test)]
    assert positives == [3494, 389, 390]
    assert str(data_dir) in data.source


@needs_file
def test_it_holds_the_same_images_as_the_file(data_dir: Path) -> None:
    data, raw = pneumonia_mnist(data_dir=str(data_dir)), npz(path=str(FILE))
    for split, other in zip(
        (data.train, data.val, data.test), (raw.train, raw.val, raw.test), strict=True
    ):
        ours = sorted(zip(split.hashes, split.labels, strict=True))
        assert ours == sorted(zip(other.hashes, other.labels, strict=True))
    assert data.duplicates == raw.duplicates == {"train/val": 8, "train/test": 0, "val/test": 0}


@needs_file
@pytest.mark.slow
def test_reading_a_prepared_dataset_is_quick(data_dir: Path) -> None:
    pneumonia_mnist(data_dir=str(data_dir))
    start = time.process_time()
    pneumonia_mnist(data_dir=str(data_dir))
    assert time.process_time() - start < 2


@needs_file
@pytest.mark.parametrize(
    "name", ["pneumonia_mnist-train.tfrecord-00000-of-00001", "dataset_info.json"]
)
def test_a_damaged_prepared_dataset_is_named(data_dir: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(data_dir / PREPARED, tmp_path / PREPARED)
    damaged = tmp_path / PREPARED / name
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(UserError, match=f"{PREPARED.parent}.*Delete this folder"):
        pneumonia_mnist(data_dir=str(tmp_path))


def test_a_half_copied_prepared_dataset_is_named(tmp_path: Path) -> None:
    (tmp_path / PREPARED).mkdir(parents=True)
    (tmp_path / PREPARED / "features.json").touch()
    with pytest.raises(UserError, match="Delete this folder"):
        pneumonia_mnist(data_dir=str(tmp_path))


@pytest.mark.usefixtures("offline")
def test_without_file_and_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    start = time.perf_counter()
    with pytest.raises(UserError) as caught:
        pneumonia_mnist(data_dir=str(tmp_path))
    assert time.perf_counter() - start < 10
    for hint in ("dataset.manual_dir=<folder with pneumoniamnist.npz>", "dataset=phantom", "https"):
        assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_manual_dir_without_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"`dataset\.manual_dir`: expected a folder with pneumoniamnist\.npz"
    ):
        pneumonia_mnist(data_dir=str(tmp_path), manual_dir=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not the official file"])
def test_a_file_with_another_checksum_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pneumoniamnist.npz").write_bytes(content)
    with pytest.raises(UserError, match=f"pneumoniamnist.npz`: .*Received: {len(content)} bytes"):
        pneumonia_mnist(data_dir=str(tmp_path / "data"), manual_dir=str(tmp_path))
    assert not (tmp_path / "data" / PREPARED).exists()


@needs_file
def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "pneumoniamnist.npz").write_bytes(FILE.read_bytes()[:1_000_000])
    with pytest.raises(UserError, match="Received: 1000000 bytes"):
        pneumonia_mnist(data_dir=str(tmp_path / "data"), manual_dir=str(tmp_path))


def test_a_data_dir_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"`dataset\.data_dir`: "):
        pneumonia_mnist(data_dir=str(tmp_path / "file"))


def test_fetch_writes_the_whole_file(server: str, tmp_path: Path) -> None:
    (tmp_path / "served" / "some.bin").write_bytes(b"12345" * 1000)
    target = tmp_path / "new" / "some.bin"
    fetch(f"{server}/some.bin", target)
    assert target.read_bytes() == b"12345" * 1000
    assert [path.name for path in target.parent.iterdir()] == ["some.bin"]


@pytest.mark.parametrize(("name", "message"), [("none.bin", "404"), ("short.bin", "bytes")])
def test_fetch_leaves_no_file_after_a_failure(
    server: str, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "served" / "short.bin").write_bytes(b"123")
    with pytest.raises(OSError, match=message):
        fetch(f"{server}/{name}", tmp_path / name)
    assert not (tmp_path / name).exists()


def test_fetch_gives_up_on_a_host_that_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.perf_counter()
        with pytest.raises(OSError, match=r"no answer|timed out"):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/", tmp_path / "x", seconds=0.3)
        assert time.perf_counter() - start < 2
