"""Files of weights: their own arrays, and no others' bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from pneumonia.errors import ConfigError, DataError
from pneumonia.models import backbones, weight_files


def network(weights: str | None = None) -> keras.Model:
    return backbones.cnn(image_size=16, blocks=1, filters=2, weights=weights)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The weights of a small network without what pools its features."""
    whole = network()
    path = tmp_path / "good.weights.h5"
    keras.Model(whole.inputs, whole.layers[-2].output).save_weights(path)
    return path


def replace(file: Path, kind: str) -> None:
    """Put something else in the place of the first array of a file."""
    with h5py.File(file, "r+") as content:
        paths: list[str] = []
        content.visititems(
            lambda name, item: paths.append(name) if isinstance(item, h5py.Dataset) else None
        )
        shape = content[paths[0]].shape
        del content[paths[0]]
        if kind == "external link":
            content[paths[0]] = h5py.ExternalLink(str(file.with_name("other.h5")), "/a")
        elif kind == "soft link":
            content[paths[0]] = h5py.SoftLink("/elsewhere")
        elif kind == "external data":
            outside = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
            content.create_dataset(paths[0], shape=shape, dtype="f4", external=outside)
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape, "f4")
            layout[:] = h5py.VirtualSource(file.with_name("other.h5"), "a", shape)
            content.create_virtual_dataset(paths[0], layout)
        else:
            content.create_dataset(paths[0], (10**6, 10**6), "f4", chunks=(100, 100))


def test_weights_are_loaded(file: Path, tmp_path: Path) -> None:
    kept = [variable.numpy() for variable in network(str(file)).weights]
    whole = network(str(file))
    keras.Model(whole.inputs, whole.layers[-2].output).save(tmp_path / "good.keras")
    again = network(str(tmp_path / "good.keras")).weights
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(kept, again, strict=True))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("external link", "is a link"),
        ("soft link", "is a link"),
        ("external data", "lies in another file"),
        ("virtual", "lies in another file"),
        ("huge", "claims more than 4 GB"),
    ],
)
@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras"])
def test_nothing_is_read_from_elsewhere(file: Path, kind: str, message: str, suffix: str) -> None:
    replace(file, kind)
    evil = file.with_name(f"evil{suffix}")
    if suffix == ".keras":
        with zipfile.ZipFile(evil, "w") as archive:
            archive.write(file, "model.weights.h5")
    else:
        file.rename(evil)
    with pytest.raises(DataError, match=message):
        weight_files.check(evil)
    with pytest.raises(ConfigError, match=rf"`model\.weights`: expected .*{message}"):
        network(str(evil))


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras"])
@pytest.mark.parametrize("content", [b"", b"some text", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"])
def test_what_is_no_such_file_is_told(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"x{suffix}").write_bytes(content)
    with pytest.raises(ConfigError, match=r"`model\.weights`: .* damaged, or no such file"):
        network(str(tmp_path / f"x{suffix}"))


def test_an_archive_without_weights_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.writestr("../config.json", "{}")
    with pytest.raises(DataError, match=r"holds no model\.weights\.h5"):
        weight_files.check(tmp_path / "x.keras")
