"""`pneumonia-predict`: real files through a real classifier from a real MLflow store."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pneumonia import backbones, classifier, dicom, heads, inference, predict, startup
from pneumonia.errors import ConfigError, UserError
from pneumonia.image_files import MAX_PIXELS
from pneumonia.journal import Journal
from pneumonia.tracking import Settings, Tracker, check, search_run_id

ROOT = Path(__file__).parents[1]
SIZE = 32
NAMES = ["normal", "pneumonia"]


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with a store of two searches, the classifier of both being the same."""

    folder: Path
    classifier: Path
    run_ids: tuple[str, str]

    @property
    def settings(self) -> Settings:
        return Settings(
            uri=f"sqlite:///{self.folder}/mlruns/mlflow.db",
            artifacts=str(self.folder / "mlruns" / "artifacts"),
        )


@pytest.fixture(autouse=True)
def _started(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow runs already; for the tests of other modules it should stay as it is."""
    monkeypatch.setattr(startup, "start", lambda: None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(1)
    backbone = backbones.cnn(image_size=SIZE, blocks=2, filters=4, channels=3)
    # The weights of a head that is not trained give probabilities that are far apart.
    head = heads.dense(backbone.output_shape[1:], units=8, dropout=0.5)
    return classifier.assemble(backbone, head, image_size=SIZE)


@pytest.fixture(scope="module")
def project(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    file = folder / "classifier.keras"
    classifier.save(model, file)
    project = Project(folder, file, ("", ""))
    check(project.settings)
    told = {"class_names": json.dumps(NAMES), "threshold": "0.25"}
    ids = [track_search(project, name, tags) for name, tags in (("a", {}), ("b", told))]
    return Project(folder, file, (ids[0], ids[1]))


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(project.folder)
    return project


def track_search(project: Project, name: str, tags: dict[str, str]) -> str:
    """Record a search of one trial that wins; return the id of its run."""
    folder = project.folder / "outputs" / name
    folder.mkdir(parents=True)
    with closing(Journal(folder)) as journal:
        shutil.copyfile(project.classifier, folder / "trial.keras")
        fields: dict[str, Any] = {"params": {}, "datasets": [], "artifacts": []}
        journal.append(
            "search_started", search_id=name, name=name, direction="max", tags=tags, **fields
        )
        trial = {"trial_id": "0001"}
        journal.append("trial_started", **trial, number=1, name="trial 1", values={}, tags={})
        ended = {"reason": None, "traceback": None, "metrics": {}, "classifier": "trial.keras"}
        journal.append("trial_ended", **trial, status="COMPLETED", score=0.9, **ended)
        ended = {"reason": None, "artifacts": [], "metrics": {}, "classifier": "trial.keras"}
        journal.append("search_ended", status="completed", winner="0001", **ended)
    tracker = Tracker(folder, project.settings)
    tracker.start()
    assert tracker.close() == 0
    run_id = search_run_id(folder)
    assert run_id is not None
    return run_id


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blurred noise: JPEG keeps it nearly, and resizing does not make it all grey."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4), dtype=np.uint8)
    fine = np.asarray(
        Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    )
    return fine if len(shape) == 2 else np.stack([fine, 255 - fine, fine // 2], -1)


def write_images(folder: Path) -> dict[Path, NDArray[np.uint8]]:
    """Write an image of every format, in grey and colour and several sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    images = {
        "a.png": pixels(40, 40, seed=1),
        "b.jpg": pixels(40, 40, 3, seed=2),
        "c.JPEG": pixels(33, 61, seed=3),
        "d.bmp": pixels(40, 40, 3, seed=4),
        "e.tif": pixels(90, 50, seed=5),
        "f.tiff": pixels(40, 40, seed=6),
    }
    for name, image in images.items():
        Image.fromarray(image).save(folder / name, format=None)
    return {folder / name: image for name, image in images.items()}


def expected(model: keras.Model, paths: Sequence[Path]) -> list[float]:
    """Return what the whole classifier gives for each image alone."""
    raw = [np.asarray(Image.open(path)) for path in paths]
    raw = [image if image.ndim == 3 else image[..., np.newaxis] for image in raw]
    return [float(model.predict(image[np.newaxis], verbose=0)[0, 0]) for image in raw]


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return subprocess.run(
        [sys.executable, "-m", "pneumonia.predict", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_champion_predicts_all_formats_beside_damaged_files(
    project: Project, model: keras.Model, tmp_path: Path
) -> None:
    paths = sorted(write_images(tmp_path / "scans"))
    (tmp_path / "scans" / "broken.png").write_bytes(paths[0].read_bytes()[:60])
    (tmp_path / "scans" / "text.jpg").write_text("no image")
    (tmp_path / "scans" / "notes.txt").write_text("not looked at")
    ran = run(str(tmp_path / "scans"), "threshold=0.5", folder=project.folder)
    assert ran.returncode == 1
    errors = ran.stderr.splitlines()
    assert len(errors) == 3
    assert errors[0].startswith(f"{tmp_path}/scans/broken.png: cannot be decoded")
    assert errors[1] == f"{tmp_path}/scans/text.jpg: not a PNG, JPEG, BMP or TIFF image."
    assert errors[2] == (
        "models:/pneumonia/2: the probability is that of pneumonia, decided for above 0.5. "
        "Not for clinical use."
    )
    rows = [line.split() for line in ran.stdout.splitlines()]
    assert rows[0] == ["file", "probability", "decision"]
    assert [row[0] for row in rows[1:]] == [str(path) for path in paths]
    values = expected(model, paths)
    assert max(values) - min(values) > 0.01
    assert [row[1] for row in rows[1:]] == [f"{value:.4f}" for value in values]
    assert [row[2] for row in rows[1:]] == [NAMES[value > 0.5] for value in values]
    assert len({line.rindex("  ") for line in ran.stdout.splitlines()}) == 1


def test_help_is_quick_and_names_every_key(tmp_path: Path) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        ran = run("--help", folder=tmp_path)
        seconds.append(time.perf_counter() - start)
    assert ran.returncode == 0
    assert statistics.median(seconds) < 0.5
    assert all(f"{key}=" in ran.stdout for key in predict._KEYS)
    assert max(map(len, ran.stdout.splitlines())) <= 100


def test_the_command_is_installed() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["pneumonia-predict"].partition(":")
    assert getattr(import_module(module), function) is predict.main


@pytest.mark.parametrize("has_store", [False, True])
def test_without_a_champion_tensorflow_is_not_imported(has_store: bool, tmp_path: Path) -> None:
    write_images(tmp_path)
    if has_store:
        check(Settings(uri=f"sqlite:///{tmp_path}/mlruns/mlflow.db", artifacts=str(tmp_path)))
    code = (
        "import sys; from pneumonia.predict import main; status = main(['a.png']); "
        "print(status, [name for name in ('tensorflow', 'keras') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "2 []\n"
    (line,) = ran.stderr.splitlines()
    assert line.startswith("`model`: expected a model")
    assert "Received: 'models:/pneumonia@champion'." in line
    assert ("There is no champion yet" if has_store else "There is no store at") in line
    assert "`pneumonia experiment=demo`" in line
    assert (tmp_path / "mlruns").exists() == has_store


@pytest.mark.parametrize(
    ("wanted", "found", "names"),
    [
        ("models:/pneumonia@champion", "models:/pneumonia/2", NAMES),
        ("models:/pneumonia/1", "models:/pneumonia/1", ["negative", "positive"]),
        ("models:/pneumonia/latest", "models:/pneumonia/2", NAMES),
        ("{model}", "{model}", NAMES),
        ("{search}", "{model}", NAMES),
        ("runs:/{search}", "{model}", NAMES),
        ("{trial}", "{model}", NAMES),
        ("runs:/{trial}/classifier", "{model}", NAMES),
        ("classifier.keras", "classifier.keras", ["negative", "positive"]),
    ],
)
def test_the_ways_to_name_a_model(
    wanted: str,
    found: str,
    names: list[str],
    here: Project,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(here.settings.store_uri, here.settings.store_uri)
    model_id = client.get_run(here.run_ids[1]).outputs.model_outputs[0].model_id
    trial = client.get_logged_model(model_id).source_run_id
    ids = {"search": here.run_ids[1], "trial": trial, "model": f"models:/{model_id}"}
    path = sorted(write_images(tmp_path))[0]
    monkeypatch.setattr(inference, "load_classifier", lambda file: halves)
    assert predict.main([str(path), f"model={wanted.format(**ids)}", "format=json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["model"] == found.format(**ids)
    assert shown["class_names"] == names
    assert shown["threshold"] == (0.25 if names == NAMES else 0.5)
    assert shown["note"] == "Not for clinical use."
    # The probability is not above 0.5.
    assert shown["predictions"][0]["decision"] == names[names == NAMES]


def halves(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Stand for a classifier where only its name matters."""
    return np.full(len(images), 0.5, np.float32)


@pytest.mark.parametrize(
    ("wanted", "fragment"),
    [
        ("models:/pneumona@champion", "There is models:/pneumonia@champion, models:/pneumonia/"),
        ("models:/pneumonia@best", "models:/pneumonia@champion"),
        ("models:/pneumonia/7", "It is not in sqlite:///"),
        ("models:/m-0123456789abcdef0123456789abcdef", "It is not in sqlite:///"),
        ("0" * 32, "It is not in sqlite:///"),
        ("runs:/" + "0" * 32 + "/model", ""),
        ("champion", ""),
        ("missing.keras", "There is no file missing.keras"),
    ],
)
def test_an_unknown_model_is_told(
    wanted: str, fragment: str, here: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sorted(write_images(tmp_path))[0]
    assert predict.main([str(path), f"model={wanted}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("`model`: expected ")
    assert f"Received: {wanted!r}." in line
    assert fragment in line


@pytest.mark.parametrize(
    ("name", "value"),
    [("class_names", "normal, pneumonia"), ("class_names", '["one"]'), ("threshold", "2")],
)
def test_a_version_tag_that_makes_no_sense_is_told(
    name: str, value: str, here: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(here.settings.store_uri, here.settings.store_uri)
    client.set_model_version_tag("pneumonia", "2", name, value)
    path = sorted(write_images(tmp_path))[0]
    try:
        assert predict.main([str(path)]) == 2
    finally:
        client.delete_model_version_tag("pneumonia", "2", name)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"models:/pneumonia/2: the tag `{name}` should be")
    assert line.endswith(f"Received: {value!r}.")


def test_an_interrupt_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(names: Sequence[str]) -> list[Path]:
        raise KeyboardInterrupt

    monkeypatch.setattr(inference, "find_files", interrupt)
    assert predict.main(["a.png"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_a_run_without_a_classifier(here: Project, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(here.settings.store_uri, here.settings.store_uri)
    run_id = client.create_run("0").info.run_id
    path = sorted(write_images(tmp_path))[0]
    with pytest.raises(ConfigError, match="kept no classifier"):
        predict._run(predict.parse([str(path), f"model={run_id}"]))


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ([], ["Which images?", "--help"]),
        (["treshold=0.5", "a.png"], ["`treshold`: expected one of", "nearest is threshold"]),
        (["a.png", "threshold=2"], ["`threshold`: expected a number from 0 to 1"]),
        (["a.png", "threshold=nan"], ["`threshold`: expected a number from 0 to 1"]),
        (["a.png", "batch_size=0"], ["`batch_size`: expected a positive integer"]),
        (["a.png", "format=xml"], ["`format`: expected one of table, csv, json"]),
        (["a.png", "model="], ["`model`: expected a value"]),
        (["a.png", "--model"], ["`arguments`: expected an image", "'--model'"]),
        (["a.png", "none.png"], ["none.png: no such file or folder."]),
        (["none/*.png"], ["none/*.png: the pattern matches no file."]),
        (["empty"], ["empty: no image in this folder."]),
        (["a.png", "output=none/x.csv"], ["`output`: expected a file in an existing folder"]),
        (["a.png", "output=empty"], ["`output`: expected a file in an existing folder"]),
        (["a.png", "output=./a.png"], ["`output`: expected another file than the images"]),
        (["a.png", "tracking.uri=sqlite:///no.db"], ["There is no store at", "no.db"]),
        (["a.png", "model=bad.keras"], ["bad.keras: Keras cannot load it as a classifier"]),
        (["a.png", "model=other.keras"], ["other.keras: expected a classifier", "float32"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_mistake_is_one_message(
    arguments: list[str],
    fragments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.keras").write_bytes(b"no classifier")
    if "model=other.keras" in arguments:
        image = keras.Input((4,))
        keras.Model(image, keras.layers.Dense(1)(image)).save("other.keras")
    assert predict.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert all(fragment in shown.err for fragment in fragments)


def test_a_classifier_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    image = keras.Input((None, None, None), dtype="uint8")
    x = keras.layers.Lambda(lambda x: x * 0.0, output_shape=(None, None, None))(image)
    keras.Model(image, x).save(tmp_path / "lambda.keras")
    with pytest.raises(UserError, match="lambda"):
        inference.load_classifier(tmp_path / "lambda.keras")


def test_csv_and_json_equal_the_whole_classifier(
    here: Project, model: keras.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = sorted(write_images(tmp_path / "scans"))
    names = [str(path) for path in paths]
    for batch_size in (1, 4, 100):
        options = ["model=classifier.keras", f"batch_size={batch_size}", "format=csv"]
        assert predict.main([*names, *options]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert [row["file"] for row in rows] == names
        found = [float(row["probability"]) for row in rows]
        np.testing.assert_allclose(found, expected(model, paths), atol=1e-6)
    output = tmp_path / "p.json"
    output.write_text("old")
    assert predict.main([*names, "model=classifier.keras", f"output={output}"]) == 0
    assert capsys.readouterr().out == ""
    again = json.loads(output.read_text())["predictions"]
    np.testing.assert_allclose([row["probability"] for row in again], found, atol=1e-6)
    assert sorted(tmp_path.iterdir()) == [output, tmp_path / "scans"]


def test_nothing_readable_needs_no_classifier(
    here: Project,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.setattr(inference, "load_classifier", lambda file: pytest.fail("loaded"))
    output = tmp_path / "p.csv"
    arguments = [str(tmp_path), "model=classifier.keras", f"output={output}"]
    assert predict.main(arguments) == 1
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        f"{tmp_path}/a.png: an empty file.",
        f"{tmp_path}/pipe.png: not a file.",
        "None of the files could be read.",
    ]
    assert shown.out == ""
    assert not output.exists()


def test_a_probability_that_is_no_number_is_not_a_decision(
    here: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = sorted(write_images(tmp_path))[0]
    monkeypatch.setattr(
        inference, "load_classifier", lambda file: lambda images: halves(images) * np.float32("nan")
    )
    assert predict.main([str(path), "model=classifier.keras"]) == 2
    assert f"the classifier gives nan for {path}" in capsys.readouterr().err


def test_files_folders_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("x", "x/deep", "x/.hidden", "y"):
        write_images(Path(folder))
    shutil.copyfile("y/a.png", "y/k=[1].png")
    shutil.copyfile("y/a.png", "x/.b.png")
    found = inference.find_files(["y/a.png", "x", "y/*.png", "y/k=[1].png"])
    names = [str(path) for path in found]
    assert names[:2] == ["y/a.png", "x/a.png"]
    assert len(names) == len(set(names)) == 1 + 12 + 1
    assert names[-1] == "y/k=[1].png"
    assert all(".hidden" not in name and "/.b" not in name for name in names)
    deep = inference.find_files(["x/**/*.bmp"])
    assert [str(path) for path in deep if ".hidden" not in str(path)] == ["x/d.bmp", "x/deep/d.bmp"]
    absolute = inference.find_files([f"{tmp_path}/y/*.jp*g"])
    assert [path.name for path in absolute] == ["b.jpg"]
    # A file of that name exists, so it is no `key=value` pair.
    monkeypatch.chdir("y")
    Path("k=1").write_bytes(Path("a.png").read_bytes())
    assert predict.parse(["k=1", "threshold=0.2"]).names == ("k=1",)


def test_images_are_decoded_as_batches_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(pixels(64, 64)).save(tmp_path / "a.png")
    paths = [tmp_path / "a.png"] * 100
    decoded: list[Path] = []

    def decode(path: Path) -> NDArray[np.uint8]:
        decoded.append(path)
        return original(path)

    original = inference.decode
    monkeypatch.setattr(inference, "decode", decode)
    batches = inference.decode_batches(paths, batch_size=8)
    assert len(next(batches)) == 8
    assert len(decoded) <= 8 + inference._WORKERS
    assert sum(map(len, batches)) == 92
    monkeypatch.setattr(inference, "_BATCH_VALUES", 3 * 64 * 64 * 3)
    sizes = [len(batch) for batch in inference.decode_batches(paths[:7], batch_size=32)]
    assert sizes == [3, 3, 1]


def test_many_sizes_are_traced_once(here: Project, model: keras.Model) -> None:
    classify = inference.load_classifier(here.classifier)
    images = [pixels(20 + seed, 30, seed=seed)[..., np.newaxis] for seed in range(40)]
    classify(images[0][np.newaxis])
    start = time.perf_counter()
    found = inference.classify_all(images, classify)
    assert time.perf_counter() - start < 2
    for index in (0, 17, 39):
        alone = model.predict(images[index][np.newaxis], verbose=0)[0, 0]
        assert found[index] == pytest.approx(alone, abs=1e-6)


def test_names_that_a_terminal_or_csv_must_not_take_literally(
    here: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["new\nline\x1b[2J.png", "肺.png", 'a,"b".png', os.fsdecode(b"latin-\xe9.png")]
    for name in names:
        Image.fromarray(pixels(16, 16)).save(tmp_path / "x.png")
        (tmp_path / "x.png").rename(tmp_path / name)
    assert predict.main([str(tmp_path), "model=classifier.keras"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 5
    assert "\x1b" not in out
    output = tmp_path / "p.csv"
    assert predict.main([str(tmp_path), "model=classifier.keras", f"output={output}"]) == 0
    text = output.read_text(encoding="utf-8", errors="surrogateescape")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert sorted(row[0] for row in rows[1:]) == sorted(str(tmp_path / name) for name in names)


# DICOM


def write_dicom(path: Path, image: NDArray[Any], **elements: Any) -> Path:
    """Write a DICOM file; elements come over those of a plain grey image."""
    pydicom = pytest.importorskip("pydicom", reason="needs pydicom: pip install 'pneumonia[dicom]'")
    uid = pydicom.uid
    dataset = pydicom.dataset.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = uid.generate_uid()
    frames = elements.get("NumberOfFrames", 1)
    rows, columns, *samples = image.shape[1:] if frames > 1 else image.shape
    bits = 8 * image.dtype.itemsize
    usual = {
        "Rows": rows,
        "Columns": columns,
        "SamplesPerPixel": samples[0] if samples else 1,
        "PhotometricInterpretation": "RGB" if samples else "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(image.dtype.kind == "i"),
    }
    if samples:
        usual["PlanarConfiguration"] = 0
    for name, value in (usual | elements).items():
        setattr(dataset, name, value)
    dataset.PixelData = image.tobytes()
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path


GREY = pixels(24, 30, seed=9)
DEEP = np.linspace(0, 4095, 24 * 30).reshape(24, 30).astype(np.uint16)
LINEAR = np.clip((DEEP.astype(float) - 1999.5) / 999 + 0.5, 0, 1)
WINDOW = {"WindowCenter": 2000, "WindowWidth": 1000}
WHOLE = DEEP / 4095.0


@pytest.mark.parametrize(
    ("image", "elements", "shares"),
    [
        (GREY, {}, GREY / 255),
        (GREY, {"PhotometricInterpretation": "MONOCHROME1"}, 1 - GREY / 255),
        (DEEP, {"BitsStored": 12, "HighBit": 11}, WHOLE),
        (DEEP, {"PhotometricInterpretation": "MONOCHROME1"}, 1 - WHOLE),
        (DEEP, WINDOW, LINEAR),
        (DEEP, {"WindowCenter": [2000, 9], "WindowWidth": [1000, 9]}, LINEAR),
        (DEEP, WINDOW | {"PhotometricInterpretation": "MONOCHROME1"}, 1 - LINEAR),
        (
            DEEP,
            {
                "RescaleSlope": 2,
                "RescaleIntercept": -100,
                "WindowCenter": 3899.5,
                "WindowWidth": 1999,
            },
            np.clip((2.0 * DEEP - 3999) / 1998 + 0.5, 0, 1),
        ),
        (DEEP, {"RescaleSlope": 2, "RescaleIntercept": -100}, WHOLE),
        (
            DEEP,
            WINDOW | {"VOILUTFunction": "LINEAR_EXACT"},
            np.clip((DEEP - 2000.0) / 1000 + 0.5, 0, 1),
        ),
        (DEEP, WINDOW | {"VOILUTFunction": "SIGMOID"}, 1 / (1 + np.exp(-(DEEP - 2000.0) / 250))),
        (DEEP, {"WindowCenter": 2000, "WindowWidth": 1}, (DEEP > 1999.5) * 1.0),
        ((DEEP.astype(np.int16) - 2048), {}, WHOLE),
        (
            np.where(np.arange(720).reshape(24, 30) < 50, 0, DEEP + 60_000).astype(np.uint16),
            {"PixelPaddingValue": 0},
            np.clip((DEEP - float(DEEP.flat[50])) / (4095 - float(DEEP.flat[50])), 0, 1),
        ),
        (np.stack([GREY, 255 - GREY]), {"NumberOfFrames": 2}, GREY / 255),
        (np.full((9, 9), 7, np.uint16), {}, np.zeros((9, 9))),
    ],
)
def test_dicom_is_decoded_as_a_viewer_shows_it(
    image: NDArray[Any], elements: dict[str, Any], shares: NDArray[Any], tmp_path: Path
) -> None:
    path = write_dicom(tmp_path / "a.dcm", image, **elements)
    decoded = inference.decode(path)
    assert decoded.dtype == np.uint8
    assert decoded.shape == (*shares.shape, 1)
    assert np.abs(decoded[..., 0] - 255 * shares).max() <= 0.501


def test_dicom_with_a_lookup_table(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom", reason="needs pydicom: pip install 'pneumonia[dicom]'")
    table = pydicom.dataset.Dataset()
    table.add_new("LUTDescriptor", "US", [256, 0, 12])
    table.add_new("LUTData", "US", [4095 - 16 * index for index in range(256)])
    path = write_dicom(tmp_path / "a.dcm", GREY, VOILUTSequence=[table], **WINDOW)
    shares = (4095 - 16.0 * GREY) / 4095
    assert np.abs(inference.decode(path)[..., 0] - 255 * shares).max() <= 0.501


def test_colour_dicom(tmp_path: Path) -> None:
    image = pixels(24, 30, 3)
    path = write_dicom(tmp_path / "a.dcm", image)
    np.testing.assert_array_equal(inference.decode(path), image)


@pytest.mark.parametrize(
    ("elements", "fragment"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "of the kind PALETTE COLOR, 8 bits"),
        ({"Rows": 9000, "Columns": 9000}, f"9000 x 9000 pixels; the limit is {MAX_PIXELS:,}"),
        ({"Rows": 4}, "30 x 4 pixels; at least 8"),
        ({"Rows": 60, "Columns": 60}, "cannot be decoded"),
        ({"Rows": None}, "without an image"),
    ],
)
def test_bad_dicom_is_one_line(elements: dict[str, Any], fragment: str, tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", GREY, **elements)
    with pytest.raises(UserError) as caught:
        inference.decode(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dicom_is_known_by_its_content_and_predicted(
    here: Project, model: keras.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dicom(tmp_path / "IM000001", GREY, PhotometricInterpretation="MONOCHROME1")
    write_dicom(tmp_path / "1.2.840.77", GREY)
    (tmp_path / "README").write_text("not looked at")
    (tmp_path / "z.dcm").write_bytes(b"no DICOM")
    assert predict.main([str(tmp_path), "model=classifier.keras", "format=json"]) == 1
    shown = capsys.readouterr()
    first, _ = shown.err.splitlines()
    assert first.startswith(f"{tmp_path}/z.dcm: cannot be decoded (File is missing DICOM")
    found = {
        Path(row["file"]).name: row["probability"] for row in json.loads(shown.out)["predictions"]
    }
    for name, image in {"IM000001": 255 - GREY, "1.2.840.77": GREY}.items():
        alone = model.predict(image[np.newaxis, ..., np.newaxis], verbose=0)[0, 0]
        assert found[name] == pytest.approx(alone, abs=1e-6)


def test_without_pydicom_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dicom, "is_supported", lambda: False)
    write_images(tmp_path)
    (tmp_path / "IM1").write_bytes(bytes(128) + b"DICM")
    assert predict.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"{tmp_path}/IM1: a DICOM file, which needs the package pydicom: "
        "pip install 'pneumonia[dicom]'\n"
    )
