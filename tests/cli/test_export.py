"""`pneumonia export`: what is written gives what the classifier gives, or is not written."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from samples import NAMES, Project, expected, write_images

from pneumonia.cli import export
from pneumonia.datasets import decode
from pneumonia.models import backbones, classifier, heads, litert

pytestmark = pytest.mark.usefixtures("started")


@pytest.fixture
def runs() -> None:
    pytest.importorskip("ai_edge_litert", reason=f"needs ai-edge-litert: {litert.EXTRA}")


@pytest.mark.usefixtures("runs")
def test_the_champion_is_exported_and_measured(
    here: Project, model: keras.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = sorted(write_images(tmp_path / "scans"))
    output = tmp_path / "champion.tflite"
    assert export.main([str(tmp_path / "scans"), f"output={output}"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert f"models:/pneumonia-chest/2 is in {output}" in said.out
    facts = json.loads((tmp_path / "champion.json").read_text())
    assert facts["bytes"] == output.stat().st_size
    assert facts["classifier_bytes"] == here.classifier.stat().st_size
    assert (facts["class_names"], facts["threshold"]) == (NAMES, 0.25)
    assert facts["images"] == len(paths)
    assert facts["largest_difference"] <= 1e-4
    assert min(facts["latency_ms"].values()) > 0
    assert {path.name for path in tmp_path.iterdir()} == {output.name, "champion.json", "scans"}
    report = here.folder / "outputs" / "b" / "report.html"
    assert f"The report: outputs/b/{report.name}" in said.out
    page = report.read_text()
    assert ">Sizes and latencies<" in page
    assert f"{facts['latency_ms']['export']:.1f}" in page
    report.unlink()
    report.with_name("export.json").unlink()
    classify = litert.load(output)
    given = [float(classify(decode.decode(path)[None])[0]) for path in paths]
    np.testing.assert_allclose(given, expected(model, paths), atol=1e-4)
    assert max(given) - min(given) > 0.01


@pytest.mark.usefixtures("runs")
@pytest.mark.slow
def test_a_pretrained_backbone_on_phantoms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(1)
    backbone = backbones.efficientnet_lite(image_size=96, layer="block3b_add", pooling="max")
    head = heads.dense(backbone.output_shape[1:], units=8, dropout=0.5)
    classifier.save(classifier.assemble(backbone, head, image_size=96), Path("c.keras"))
    assert export.main(["model=c.keras"]) == 0
    assert "On 16 images" in capsys.readouterr().out
    assert json.loads(Path("classifier.json").read_text())["largest_difference"] <= 1e-4


@pytest.mark.usefixtures("runs")
def test_figures_are_written_whole_or_not_at_all(
    here: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = tmp_path / "c.json"
    beside.write_text("of an earlier one")
    write_text = Path.write_text

    def fail(path: Path, text: str, **options: Any) -> int:
        write_text(path, text[:9], **options)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_text", fail)
    assert export.main([f"output={tmp_path / 'c.tflite'}"]) == 2
    assert beside.read_text() == "of an earlier one"


@pytest.mark.usefixtures("runs")
def test_what_differs_is_not_written(
    here: Project,
    model: keras.Model,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = keras.models.clone_model(model)  # with new weights
    content = litert.convert(other)
    monkeypatch.setattr(litert, "convert", lambda model: content)
    output = tmp_path / "champion.tflite"
    output.write_bytes(b"an earlier one")
    assert export.main([f"output={output}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "more than 0.0001; nothing is written." in line
    assert output.read_bytes() == b"an earlier one"
    assert list(tmp_path.iterdir()) == [output]


def test_a_probability_that_is_no_number_is_no_agreement() -> None:
    def half(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.full(len(images), 0.5, np.float32)

    def nothing_but_once(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return half(images) if images[0, 0, 0, 0] else half(images) * np.float32("nan")

    images = [np.full((9, 9, 1), value, np.uint8) for value in (1, 0, 1)]
    measured = export.measure(half, nothing_but_once, images)
    assert np.isnan(measured["largest_difference"])
    assert not measured["largest_difference"] <= export.TOLERANCE


@pytest.mark.parametrize(
    "shape", [(28, 28, 1), (96, 96, 3), (61, 200, 1), (300, 97, 3), (1, 5, 1), (95, 96, 1)]
)
def test_images_are_resized_as_the_classifier_does(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, *shape), dtype=np.uint8)
    ours = np.asarray(litert._preprocess(image, 96))
    np.testing.assert_allclose(ours, classifier.resize(image, 96), atol=1e-2)


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["format=onnx"], "`format`: expected one of litert"),
        (["output=a.onnx"], "`output`: expected a .tflite file in an existing folder"),
        (["output=none/a.tflite"], "`output`: expected a .tflite file in an existing folder"),
        (["modle=x"], "nearest is `model`"),
        (["none.png"], "none.png: no such file or folder."),
        (["model=none.keras"], "There is no file none.keras"),
        (["model=other.keras"], "Only a classifier of this program can be exported."),
    ],
)
def test_a_mistake_is_one_message(
    arguments: list[str],
    fragment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if "model=other.keras" in arguments:
        image = keras.Input((None, None, None), dtype="uint8")
        x = keras.ops.mean(keras.ops.cast(image, "float32"), axis=(1, 2))
        keras.Model(image, keras.layers.Reshape((1,))(x[..., :1])).save("other.keras")
    assert export.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert fragment in said.err
    assert not list(tmp_path.glob("*.tflite"))


def test_without_the_extra_it_is_named(
    here: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(litert, "is_supported", lambda: False)
    assert export.main(["model=classifier.keras"]) == 2
    assert litert.EXTRA in capsys.readouterr().err


def test_images_that_cannot_be_read_stop_it(
    here: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    arguments = [str(tmp_path), "model=classifier.keras", f"output={tmp_path}/a.tflite"]
    assert export.main(arguments) == 2
    assert f"{tmp_path}/b.png: an empty file." in capsys.readouterr().err
