"""Which model a user means, in a real store, and what is known of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from samples import NAMES, Project, halves, write_images

from pneumonia.cli import predict
from pneumonia.errors import ConfigError
from pneumonia.models.predictor import Predictor

ROOT = Path(__file__).parents[2]
Spawn = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.usefixtures("started")


@pytest.mark.parametrize(
    ("wanted", "found", "names"),
    [
        ("models:/pneumonia-chest@champion", "models:/pneumonia-chest/2", NAMES),
        ("models:/pneumonia-chest/1", "models:/pneumonia-chest/1", ["negative", "positive"]),
        ("models:/pneumonia-chest/latest", "models:/pneumonia-chest/2", NAMES),
        ("last", "models:/pneumonia-chest/2", NAMES),
        ("a", "models:/pneumonia-chest/1", ["negative", "positive"]),
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

    def load(_: Path, **decision: Any) -> Predictor:
        known = Predictor(None, **decision)
        known.__dict__["classify"] = halves
        return known

    monkeypatch.setattr(Predictor, "load", load)
    assert predict.main([str(path), f"model={wanted.format(**ids)}", "format=json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["model"] == found.format(**ids)
    assert shown["class_names"] == names
    assert shown["threshold"] == (0.25 if names == NAMES else 0.5)
    assert shown["note"] == "Not for clinical use."
    origin = {"dataset": "chest", "is_generated": False, "objective": "val_auc"}
    if wanted != "classifier.keras":
        assert origin.items() <= shown["origin"].items()
        assert shown["origin"]["score"] == (0.9 if names == NAMES else 0.8)
        assert shown["origin"]["search"] == ("b" if names == NAMES else "a")
    # The probability is not above 0.5.
    assert shown["predictions"][0]["decision"] == names[names == NAMES]


@pytest.mark.parametrize(
    ("wanted", "fragment"),
    [
        (
            "models:/pneumona-chest@champion",
            "There is models:/pneumonia-chest@champion, models:/pneumonia-chest/",
        ),
        ("models:/pneumonia-chest@best", "models:/pneumonia-chest@champion"),
        ("models:/pneumonia-chest/7", "It is not in sqlite:///"),
        ("models:/m-0123456789abcdef0123456789abcdef", "It is not in sqlite:///"),
        ("0" * 32, "It is not in sqlite:///"),
        ("runs:/" + "0" * 32 + "/model", ""),
        ("champion", "There is models:/pneumonia-chest@champion, models:/pneumonia-chest/"),
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
    client.set_model_version_tag("pneumonia-chest", "2", name, value)
    path = sorted(write_images(tmp_path))[0]
    try:
        assert predict.main([str(path)]) == 2
    finally:
        client.delete_model_version_tag("pneumonia-chest", "2", name)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"models:/pneumonia-chest/2: the tag `{name}` should be")
    assert line.endswith(f"Received: {value!r}.")


def test_there_is_no_last_model_before_the_first(
    empty_store: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = sorted(write_images(tmp_path))[0]
    assert predict.main([str(path), "model=last", f"tracking.uri=sqlite:///{empty_store}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("`model`: expected a model: `last`, ")
    assert "There is no champion yet" in told


def test_a_run_without_a_classifier(here: Project, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(here.settings.store_uri, here.settings.store_uri)
    run_id = client.create_run("0").info.run_id
    path = sorted(write_images(tmp_path))[0]
    with pytest.raises(ConfigError, match="kept no classifier"):
        predict._run([str(path), f"model={run_id}"])
