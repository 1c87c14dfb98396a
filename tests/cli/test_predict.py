"""`pneumonia predict`: real files through a real classifier from a real MLflow store."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from families import slow
from numpy.typing import NDArray
from PIL import Image
from samples import NAMES, Project, expected, pixels, write_images

from pneumonia.cli import predict
from pneumonia.datasets import decode
from pneumonia.evaluation.thresholds import Decision
from pneumonia.models import classifier_file
from pneumonia.models.predictor import Predictor

ROOT = Path(__file__).parents[2]
Spawn = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.usefixtures("started")


@pytest.mark.parametrize("is_alone", [pytest.param(True, marks=pytest.mark.slow), False])
def test_the_champion_predicts_all_formats_beside_damaged_files(
    is_alone: bool,
    here: Project,
    model: keras.Model,
    tmp_path: Path,
    spawn: Spawn,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = sorted(write_images(tmp_path / "scans"))
    (tmp_path / "scans" / "broken.png").write_bytes(paths[0].read_bytes()[:60])
    (tmp_path / "scans" / "text.jpg").write_text("no image")
    (tmp_path / "scans" / "notes.txt").write_text("not looked at")
    scans = str(tmp_path / "scans")
    if is_alone:  # in a process of its own
        ran = spawn("pneumonia", "predict", scans, "threshold=0.5", folder=here.folder)
        status, out, err = ran.returncode, ran.stdout, ran.stderr
    else:
        status = predict.main([scans, "threshold=0.5"])
        out, err = capsys.readouterr()
    assert status == 1
    errors = err.splitlines()
    assert len(errors) == 4
    assert errors[0].startswith(f"{tmp_path}/scans/broken.png: cannot be decoded")
    assert errors[1] == f"{tmp_path}/scans/text.jpg: not a PNG, JPEG, BMP, TIFF or WebP image."
    today = time.strftime("%Y-%m-%d")
    assert errors[2] == (
        f"models:/pneumonia-chest/2: trained on chest, val_auc 0.9000, search b, {today}."
    )
    assert errors[3] == (
        "models:/pneumonia-chest/2: the probability is that of pneumonia, decided for above 0.5. "
        "Not for clinical use."
    )
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["file", "probability", "decision"]
    assert [row[0] for row in rows[1:]] == [str(path) for path in paths]
    values = expected(model, paths)
    assert max(values) - min(values) > 0.01
    assert [row[1] for row in rows[1:]] == [f"{value:.4f}" for value in values]
    assert [row[2] for row in rows[1:]] == [NAMES[value > 0.5] for value in values]
    assert len({line.rindex("  ") for line in out.splitlines()}) == 1


@pytest.mark.slow  # as of the other commands, in test_startup
@pytest.mark.parametrize("has_store", [slow(False), True])
def test_without_a_champion_tensorflow_is_not_imported(
    has_store: bool, tmp_path: Path, empty_store: Path
) -> None:
    write_images(tmp_path)
    if has_store:
        (tmp_path / "mlruns").mkdir()
        shutil.copyfile(empty_store, tmp_path / "mlruns" / "mlflow.db")
    code = (
        "import sys; from pneumonia.cli.predict import main; status = main(['a.png']); "
        "print(status, [name for name in ('tensorflow', 'keras') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "2 []\n"
    (line,) = ran.stderr.splitlines()
    if has_store:
        assert line.startswith("`model`: expected a model")
        assert "Received: None. There is no champion yet" in line
    else:
        assert line.startswith("`tracking.uri`: expected an MLflow store that exists.")
    assert "`pneumonia experiment=demo`" in line
    assert (tmp_path / "mlruns").exists() == has_store


def test_an_interrupt_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(names: Sequence[str], **options: object) -> list[Path]:
        raise KeyboardInterrupt

    monkeypatch.setattr(decode, "find_files", interrupt)
    assert predict.main(["a.png"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ([], ["Which images?", "--help"]),
        (["treshold=0.5", "a.png"], ["`treshold`: expected one of", "nearest is `threshold`"]),
        (["a.png", "threshold=2"], ["`threshold`: expected a number from 0 to 1"]),
        (["a.png", "threshold=nan"], ["`threshold`: expected a number from 0 to 1"]),
        (["a.png", "batch_size=0"], ["`batch_size`: expected a positive integer"]),
        (["a.png", "format=xml"], ["`format`: expected one of table, csv, json"]),
        (["a.png", "model="], ["`model`: expected a value"]),
        (["a.png", "--model"], ["`arguments`: expected an image", "'--model'"]),
        (["a.png", "none.png"], ["none.png: no such file or folder."]),
        (["none/*.png"], ["none/*.png: the pattern matches no file."]),
        (["empty"], ["empty: no image in this folder."]),
        (["a.png", "heatmaps=a.png"], ["`heatmaps`: expected a folder that can be written"]),
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
    monkeypatch.setattr(Predictor, "load", lambda *_, **__: pytest.fail("loaded"))
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

    def nothing(self: Predictor, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return np.full(len(images), np.nan, np.float32)

    monkeypatch.setattr(Predictor, "predict", nothing)
    assert predict.main([str(path), "model=classifier.keras"]) == 2
    assert f"the classifier gives nan for {path}" in capsys.readouterr().err


def test_names_that_a_terminal_or_csv_must_not_take_literally(
    here: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [
        "new\nline\x1b[2J.png",
        "\rback.png",
        "肺.png",
        'a,"b".png',
        os.fsdecode(b"latin-\xe9.png"),
    ]
    for name in names:
        Image.fromarray(pixels(16, 16)).save(tmp_path / "x.png")
        (tmp_path / "x.png").rename(tmp_path / name)
    assert predict.main([str(tmp_path), "model=classifier.keras"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 6
    assert "\x1b" not in out
    output = tmp_path / "p.csv"
    assert predict.main([str(tmp_path), "model=classifier.keras", f"output={output}"]) == 0
    text = output.read_bytes().decode("utf-8", "surrogateescape")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert sorted(row[0] for row in rows[1:]) == sorted(str(tmp_path / name) for name in names)


def test_names_and_classes_that_a_spreadsheet_takes_for_formulas(
    here: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["=1+1.png", "+a.png", "-a.png", "@a.png", "\ra.png"]
    for name in names:
        Image.fromarray(pixels(16, 16)).save(tmp_path / "x.png")
        (tmp_path / "x.png").rename(tmp_path / name)
    file = told_otherwise(here, tmp_path, Decision(0.5).facts(("@none", "=cmd|' /C calc'!A0")))
    monkeypatch.chdir(tmp_path)
    assert predict.main(["./*.png", f"model={file}", "output=p.csv"]) == 0
    rows = list(csv.reader(io.StringIO(Path("p.csv").read_bytes().decode(), newline="")))[1:]
    assert [row[0] for row in rows] == [f"'{name}" for name in sorted(names)]
    assert {row[2] for row in rows} <= {"'@none", "'=cmd|' /C calc'!A0"}


def told_otherwise(here: Project, folder: Path, facts: dict[str, Any]) -> Path:
    """Return a copy of the classifier whose file says this of it."""
    file = folder / "own.keras"
    shutil.copyfile(here.classifier, file)
    classifier_file.write_facts(file, facts)
    return file


def test_class_names_of_others_do_not_move_the_cursor(
    here: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sorted(write_images(tmp_path))[0]
    file = told_otherwise(here, tmp_path, Decision().facts(("\x1b[2Jwell", "\x1b[2Jill")))
    assert predict.main([str(path), f"model={file}"]) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert "the probability is that of ?[2Jill" in shown.err


def test_a_file_tells_its_own_class_names_and_threshold(
    here: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sorted(write_images(tmp_path))[0]
    file = told_otherwise(here, tmp_path, Decision(0.0625, "youden").facts(("well", "ill")))
    assert predict.main([str(path), f"model={file}", "format=json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    (row,) = shown["predictions"]
    assert (shown["threshold"], shown["class_names"]) == (0.0625, ["well", "ill"])
    assert row["decision"] == ["well", "ill"][row["probability"] > 0.0625]
    assert predict.main([str(path), f"model={file}", "format=json", "threshold=1"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["threshold"], shown["predictions"][0]["decision"]) == (1.0, "well")


def test_heat_maps_in_a_folder_and_beside_the_images(
    here: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = tmp_path / "scans"
    paths = sorted(write_images(scans / "a"))
    write_images(scans / "b")
    (scans / "a" / "broken.png").write_bytes(b"")
    command = [str(scans), "model=classifier.keras", "format=csv"]
    assert predict.main(command) == 1
    plain = capsys.readouterr().out
    assert predict.main([*command, f"heatmaps={tmp_path}/maps/new"]) == 1
    assert capsys.readouterr().out == plain
    maps = {
        path.relative_to(tmp_path / "maps" / "new").as_posix()
        for path in tmp_path.glob("maps/new/*/*")
    }
    assert maps == {f"{part}/{path.name}.heatmap.png" for part in "ab" for path in paths}
    colours = []
    for path in paths:
        drawn, own = (
            np.asarray(Image.open(one))
            for one in (tmp_path / f"maps/new/a/{path.name}.heatmap.png", path)
        )
        assert drawn.shape == (*own.shape[:2], 3)
        colours.append(np.ptp(drawn, axis=-1).max())
    assert max(colours) > 50  # grey all over where nothing spoke for the positive class
    (scans / "a" / "broken.png").unlink()
    for _ in range(2):  # what is written beside the images is no image the next time
        assert predict.main([*command, "heatmaps=true"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1 + 2 * len(paths)
    beside = scans / "a" / f"{paths[0].name}.heatmap.png"
    assert (
        beside.read_bytes() == (tmp_path / f"maps/new/a/{paths[0].name}.heatmap.png").read_bytes()
    )
    assert len(list(scans.rglob("*"))) == 2 + 4 * len(paths)


@pytest.mark.slow
def test_a_thousand_images_take_the_memory_of_a_batch(here: Project, tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pneumonia.cli.predict import main; "
        "status = main(sys.argv[1:]); "
        "print(status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    Image.fromarray(pixels(512, 512)).save(tmp_path / "one.png")
    peaks = []
    for count in (64, 1000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for index in range(count):
            os.link(tmp_path / "one.png", folder / f"{index}.png")
        arguments = [str(folder), "model=classifier.keras", f"output={tmp_path}/{count}.csv"]
        ran = subprocess.run(
            [sys.executable, "-c", code, *arguments, "heatmaps=" + str(tmp_path / f"maps{count}")],
            cwd=here.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        status, peak = ran.stdout.split()
        assert status == "0"
        assert len((tmp_path / f"{count}.csv").read_text().splitlines()) == count + 1
        assert len(list((tmp_path / f"maps{count}").iterdir())) == count
        peaks.append(int(peak))
    assert peaks[1] < peaks[0] + 150, peaks
