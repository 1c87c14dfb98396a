"""A whole search, in processes of its own: what it leaves, again, broken off and gone on with."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bare
import numpy as np
import pytest
import yaml
from chaos import moments
from omegaconf import OmegaConf
from PIL import Image

from pneumonia import files
from pneumonia.cli import main
from pneumonia.config.search_space import GROUPS
from pneumonia.config.validate import flatten
from pneumonia.datasets.chest_phantom import phantom
from pneumonia.evaluation.metrics import balanced_accuracy, roc_auc
from pneumonia.models import classifier, classifier_file
from pneumonia.storage import journal
from pneumonia.storage.journal import NAME, Event
from pneumonia.tracking.settings import prepare_environment

ROOT = Path(__file__).parents[2]
# Small, so that a trial takes a tenth of a second.
SMALL = (
    *("dataset=phantom", "dataset.train=120", "dataset.val=60", "dataset.test=60"),
    *("dataset.image_size=32", "model.image_size=32", "model.layer=block2b_add", "dense.units=8"),
)
SEARCH = (
    *SMALL,
    *(
        'dense.dropout="choice(0.1, 0.3, 0.5)"',
        "tuner.max_epochs=4",
        "training.jit=false",
        "callbacks=[default,tensorboard]",
    ),
)
TRAIN = (
    *SMALL,
    "training.jit=false",
    "dense.dropout=0.2",
    "optimizer.learning_rate=0.003",
    "tuner.max_epochs=2",
)
NETWORK = ("model=cnn", "model.layer=null", "model.blocks=1", "model.filters=8")
GRID = (*TRAIN, "tuner=grid", "tuner.max_trials=4")
DIVERGING = (*GRID, "optimizer=sgd", "dense.activation=linear")
PICTURES = (
    *("calibration", "confusion_matrix", "errors"),
    *("learning_curves", "precision_recall", "roc"),
)

SECRETS = {
    name: f"hush-{name}"
    for name in ("AWS_SECRET_ACCESS_KEY", "API_TOKEN", "MLFLOW_TRACKING_PASSWORD")
}

# Kills itself, as the system would, after an epoch of a promoted trial; before, some events are
# sent to MLflow.
KILLED = """
import json, os, signal, sys, time
from pneumonia import startup
from pneumonia.cli import main as cli
startup.foresee = lambda: None  # what the end needs, which does not come
from pneumonia.storage import journal
append, promoted = journal.Journal.append, set()
def append_and_die(self, kind, /, **fields):
    event = append(self, kind, **fields)
    if "promoted_from" in fields.get("tags", {}):
        promoted.add(fields["trial_id"])
    if kind == "epoch_ended" and fields["trial_id"] in promoted:
        sent = self.path.with_name("tracking.json")
        while not sent.exists() or json.loads(sent.read_text())["next"] < event["n"] // 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGKILL)
    return event
journal.Journal.append = append_and_die
sys.exit(cli.main())
"""


@dataclass(frozen=True)
class Ran:
    """A command that ran in a project folder, and the folder of the search that it ran last."""

    project: Path
    folder: Path
    status: int
    stdout: str = ""
    stderr: str = ""

    @property
    def events(self) -> list[Event]:
        return list(journal.read(self.folder))

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["kind"] == kind]

    @property
    def end(self) -> Event:
        return self.of("search_ended")[-1]

    @property
    def store(self) -> Store:
        return Store(self.project)

    @property
    def parent(self) -> Any:
        """The search's run in MLflow."""
        search_id = self.events[0]["search_id"]
        (run,) = self.store.runs("search", f"tags.`pneumonia.search_id` = '{search_id}'")
        return run

    @property
    def children(self) -> dict[str, Any]:
        """The trials' runs in MLflow, by the trial."""
        words = f"tags.`mlflow.parentRunId` = '{self.parent.info.run_id}'"
        runs = self.store.runs("trial", words)
        rows = {run.data.tags["trial_id"]: run for run in runs}
        assert len(rows) == len(runs)
        return rows


class Store:
    """What MLflow knows, asked as a user would."""

    def __init__(self, project: Path) -> None:
        prepare_environment()
        import mlflow

        self.path = project / "mlruns" / "mlflow.db"
        uri = f"sqlite:///{self.path}"
        mlflow.set_tracking_uri(uri)
        self.client = mlflow.MlflowClient(uri)

    def runs(self, kind: str, words: str = "") -> list[Any]:
        """Return runs, the earliest first."""
        experiment = self.client.get_experiment_by_name("pneumonia")
        every = " and ".join(filter(None, [f"tags.kind = '{kind}'", words]))
        order = ["attributes.start_time", "tags.trial_id"]
        return list(self.client.search_runs([experiment.experiment_id], every, order_by=order))

    def points(self) -> list[tuple[str, str, int, float]]:
        """Return all that is stored of metrics: run, key, step, value."""
        with closing(sqlite3.connect(self.path)) as base:
            return base.execute("select run_uuid, key, step, value from metrics").fetchall()

    def steps(self, run: Any, key: str) -> list[int]:
        return [one.step for one in self.client.get_metric_history(run.info.run_id, key)]

    def files(self, run: Any, folder: str | None = None) -> set[str]:
        return {one.path for one in self.client.list_artifacts(run.info.run_id, folder)}

    def models(self) -> list[Any]:
        experiment = self.client.get_experiment_by_name("pneumonia")
        return list(self.client.search_logged_models([experiment.experiment_id]))

    def champion(self) -> Any:
        """Return the registered version."""
        return self.client.get_model_version_by_alias("pneumonia-phantom", "champion")

    def version(self, run: Any) -> Any:
        """Return the version that a search registered last."""
        found = self.client.search_model_versions(f"run_id = '{run.info.run_id}'")
        return max(found, key=lambda one: int(one.version))

    def champion_id(self) -> str:
        """Return the id of the logged model that it is."""
        return self.model_id(self.champion())

    def model_id(self, version: Any) -> str:
        """Return the id of the logged model of a version."""
        source = version.source
        (model,) = [one for one in self.models() if one.artifact_location == source]
        return str(model.model_id)


def searches(project: Path) -> list[Path]:
    """Return the folders of all searches, the earliest first."""
    found = [path.parent for path in files.below(project / "outputs", NAME)]
    return sorted(found, key=lambda folder: next(journal.read(folder))["time"])


def with_store(project: Path, empty_store: Path) -> Path:
    """Give a project folder a store, which takes two seconds to make."""
    (project / "mlruns").mkdir(parents=True)
    shutil.copyfile(empty_store, project / "mlruns" / "mlflow.db")
    return project


def start(project: Path, *arguments: str, code: str = "") -> subprocess.Popen[str]:
    """Begin a command in a process of its own."""
    project.mkdir(exist_ok=True)
    how = ["-c", code] if code else ["-m", "pneumonia"]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "MLFLOW"))}
    return subprocess.Popen(
        [sys.executable, *how, *arguments],
        cwd=project,
        env={**inherited, **SECRETS, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], project: Path) -> Ran:
    stdout, stderr = process.communicate(timeout=180)
    return Ran(project, searches(project)[-1], process.returncode, stdout, stderr)


def run_here(project: Path, *arguments: str) -> Ran:
    """Run a command in this process: it starts in no time."""
    project.mkdir(exist_ok=True)
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.chdir(project)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name, secret in SECRETS.items():
            patch.setenv(name, secret)
        of_a_process(patch, *arguments)
        status = main.main()
    return Ran(project, searches(project)[-1], status, out.getvalue(), err.getvalue())


def of_a_process(patch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Set what the command finds, and leaves, in a process that is its own."""
    patch.setenv("HYDRA_FULL_ERROR", "1")
    patch.setattr(sys, "path", [path for path in sys.path if path])
    patch.setattr(sys, "argv", ["pneumonia", *arguments])


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> tuple[Ran, Ran]:
    """The search, and in another process the same one, killed in a trial."""
    folders = [tmp_path_factory.mktemp(name) / "project" for name in ("whole", "killed")]
    with_store(folders[1], empty_store)
    process = start(folders[1], *SEARCH, code=KILLED)
    whole = run_here(folders[0], *SEARCH)
    killed = finish(process, folders[1])
    assert (whole.status, killed.status) == (0, -signal.SIGKILL), whole.stderr + killed.stderr
    return whole, killed


@pytest.fixture(scope="module")
def ran(both: tuple[Ran, Ran]) -> Ran:
    return both[0]


@pytest.fixture(scope="module")
def killed(both: tuple[Ran, Ran]) -> Ran:
    return both[1]


@pytest.fixture
def drawn() -> None:
    """Let a test's searches draw their pictures, and write their reports."""


@pytest.fixture
def command(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Ran]:
    """Return the command as a function, in this process: it starts in no time."""
    if "drawn" not in request.fixturenames:
        bare.leave_out(monkeypatch)

    def call(project: Path, *arguments: str) -> Ran:
        monkeypatch.chdir(project)
        of_a_process(monkeypatch, *arguments)
        status, said = main.main(), capsys.readouterr()
        assert searches(project), said.err
        return Ran(project, searches(project)[-1], status, said.out, said.err)

    return call


@pytest.fixture
def here(command: Callable[..., Ran], tmp_path: Path, empty_store: Path) -> Callable[..., Ran]:
    """Return the command as a function, in an empty project folder."""
    return functools.partial(command, with_store(tmp_path, empty_store))


# What a search leaves.


def test_output_is_the_tables_and_the_commands_that_come_next(ran: Ran) -> None:
    preset = ran.folder.relative_to(ran.project) / "best.yaml"
    for text in (
        f"{len(ran.of('trial_ended'))} trials by val_auc, the best first",
        "Scores on the test split",
        "95 % interval",
        "What comes next",
        "look at the results in a browser",
        "pneumonia predict IMAGE",
        f"pneumonia experiment={preset}",
    ):
        assert text in ran.stdout
    best = f"{ran.end['metrics']['val_auc']:.4f}"
    assert best in ran.stdout.split("\n\n")[1].splitlines()[2]
    assert "\r" not in ran.stderr
    assert "\x1b" not in ran.stdout + ran.stderr


def test_standard_error_is_the_progress_and_nothing_else(ran: Ran) -> None:
    lines = ran.stderr.splitlines()
    count = len(ran.of("trial_ended"))
    assert sum(line.startswith("trial ") for line in lines) == count
    known = (
        *("trial ", "reading the images", "features of ", "phantom: 120 train, 60 val, 60 test"),
        *(f"hyperband over efficientnet_lite0: {count} trials", "takes up to", "results go to"),
        *("evaluating the winner",),
    )
    assert [line for line in lines if not line.startswith(known)] == []


def test_folder_holds_what_is_to_be_kept(ran: Ran) -> None:
    names = {path.relative_to(ran.folder).as_posix() for path in ran.folder.rglob("*")}
    names = {name for name in names if not name.startswith((".hydra", "tensorboard"))}
    assert names == {
        *("best.yaml", "config.yaml", "journal.jsonl", "tracking.json", "plots", "classifiers"),
        "report.html",
        "predictions.csv",
        *(f"plots/{name}.png" for name in PICTURES),
        ran.end["classifier"],
    }
    assert {path.name for path in ran.project.iterdir()} == {"outputs", "mlruns"}


def test_predictions_of_the_winner(ran: Ran) -> None:
    data = phantom(train=120, val=60, test=60, image_size=32)
    with (ran.folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["split", "name", "label", "probability"]
    model = classifier.load(ran.folder / ran.end["classifier"])
    for split, key in ((data.val, "val_auc"), (data.test, "test_auc")):
        own = [row for row in rows if row["split"] == split.name]
        assert [row["name"] for row in own] == list(split.names)
        assert [int(row["label"]) for row in own] == split.labels.tolist()
        given = np.array([row["probability"] for row in own], np.float32)
        assert roc_auc(split.labels, given) == ran.end["metrics"][key]
        served = model.predict(split.images.read(np.arange(len(split))), verbose=0)[:, 0]
        np.testing.assert_allclose(given, served, atol=1e-5)


def test_the_threshold_is_in_the_file_the_journal_and_the_registry(ran: Ran) -> None:
    facts = classifier_file.read_facts(ran.folder / ran.end["classifier"])
    assert facts["class_names"] == ["normal", "pneumonia"]
    assert (facts["rule"], facts["threshold"], facts["temperature"]) == ("fixed", 0.5, 1.0)
    metrics = ran.end["metrics"]
    assert (metrics["threshold"], metrics["temperature"]) == (0.5, 1.0)
    assert metrics["test_at_threshold_sensitivity"] == metrics["test_sensitivity"]
    assert ran.store.champion().tags["threshold"] == "0.5"
    described = Path(ran.store.champion().source.removeprefix("file://")) / "MLmodel"
    assert yaml.safe_load(described.read_text())["metadata"] == {"pneumonia": facts}


def test_nothing_of_the_environment_is_written(ran: Ran) -> None:
    files = [path for path in ran.project.rglob("*") if path.is_file()]
    assert ran.project / "mlruns" / "mlflow.db" in files
    assert [path for path in files if b"hush-" in path.read_bytes()] == []


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_show_something(name: str, ran: Ran) -> None:
    with Image.open(ran.folder / "plots" / f"{name}.png") as picture:
        pixels = np.asarray(picture.convert("L"), dtype=float)
    assert min(pixels.shape) > 200
    assert pixels.std() > 5


def test_journal_tells_the_trials_of_hyperband(ran: Ran) -> None:
    started = {event["trial_id"]: event for event in ran.of("trial_started")}
    ended = {event["trial_id"]: event for event in ran.of("trial_ended")}
    assert [event["n"] for event in ran.events] == list(range(len(ran.events)))
    assert [event["number"] for event in started.values()] == list(range(1, len(started) + 1))
    assert started.keys() == ended.keys()
    promoted = 0
    for trial_id, event in started.items():
        epochs = [e["epoch"] for e in ran.of("epoch_ended") if e["trial_id"] == trial_id]
        parent, first = event["tags"].get("promoted_from"), 1
        if parent is not None:
            promoted += 1
            first = started[parent]["values"]["epochs"] + 1
            changed = {"epochs": event["values"]["epochs"]}
            assert event["values"] == started[parent]["values"] | changed
            assert int(event["tags"]["round"]) == int(started[parent]["tags"]["round"]) + 1
        assert epochs == list(range(first, event["values"]["epochs"] + 1))
        assert ended[trial_id]["status"] == "COMPLETED"
    assert promoted >= 2
    assert len({event["tags"]["bracket"] for event in started.values()}) == 2


def test_winner_is_the_best_epoch_of_the_best_trial(ran: Ran) -> None:
    scores = {event["trial_id"]: event["score"] for event in ran.of("trial_ended")}
    best = [event["metrics"]["val_auc"] for event in ran.of("epoch_ended")]
    assert ran.end["metrics"]["val_auc"] == scores[ran.end["winner"]] == max(best)
    assert ran.end["status"] == "completed"
    assert ran.end["metrics"]["trials"] == len(scores)
    assert ran.end["metrics"]["epochs"] == len(best)


# What it leaves in MLflow.


def test_parent_run(ran: Ran) -> None:
    store, parent = ran.store, ran.parent
    tags, metrics = parent.data.tags, parent.data.metrics
    assert len(store.runs("search")) == 1
    assert parent.info.status == "FINISHED"
    named = {"tuner": "hyperband", "model": "efficientnet_lite0", "dataset": "phantom"}
    expected = {"kind": "search", "status": "completed", **named, "winner": ran.end["winner"]}
    assert {key: tags[key] for key in expected} == expected
    assert {"python", "version.keras", "version.tensorflow", "version.mlflow"} <= tags.keys()
    assert tags["command"].startswith("pneumonia dataset=phantom")
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", tags["git_commit"])
    assert "Not for clinical use" in tags["mlflow.note.content"]
    for name, value in ran.end["metrics"].items():
        assert metrics[name] == pytest.approx(value, nan_ok=True)
    assert {
        "test_auc",
        "test_auc_low",
        "test_auc_high",
        "test_accuracy",
        "test_accuracy_low",
    } < set(metrics)
    assert {"seconds_preparation", "seconds_trials", "seconds_evaluation"} <= metrics.keys()
    config = OmegaConf.load(ran.folder / "config.yaml")
    assert parent.data.params.keys() == flatten(config).keys()
    assert parent.data.params["dense.dropout"] == "choice(0.1, 0.3, 0.5)"


def test_parent_artifacts_and_datasets(ran: Ran) -> None:
    store, parent = ran.store, ran.parent
    pictures = {f"plots/{name}.png" for name in PICTURES}
    assert store.files(parent) == {
        "best.yaml",
        "config.yaml",
        "plots",
        "predictions.csv",
        "report.html",
    }
    assert store.files(parent, "plots") == pictures
    folder = Path(parent.info.artifact_uri.removeprefix("file://"))
    for name in ("best.yaml", "config.yaml", "predictions.csv", *pictures):
        assert (folder / name).read_bytes() == (ran.folder / name).read_bytes()
    found = {row.tags[0].value: row.dataset for row in parent.inputs.dataset_inputs}
    data = phantom(train=120, val=60, test=60, image_size=32)
    for split, context in zip((data.train, data.val, data.test), found, strict=True):
        assert split.digest.startswith(found[context].digest)
        assert json.loads(found[context].profile)["images"] == len(split)
    assert found.keys() == {"training", "validation", "testing"}


def test_children_are_the_trials_with_every_hyperparameter(ran: Ran) -> None:
    children = ran.children
    assert list(children) == [event["trial_id"] for event in ran.of("trial_started")]
    config = yaml.safe_load((ran.folder / "best.yaml").read_text())
    names = flatten({group: config[group] for group in GROUPS}).keys() | {"epochs"}
    for event in ran.of("trial_started"):
        run = children[event["trial_id"]]
        tags = {"kind": "trial", "trial_id": event["trial_id"], **event["tags"]}
        assert {key: run.data.tags.get(key) for key in tags} == tags
        assert ("promoted_from" in run.data.tags) == ("promoted_from" in event["tags"])
        assert run.data.params.keys() == names
        for name in ("dense.units", "dense.dropout", "optimizer.learning_rate", "epochs"):
            assert float(run.data.params[name]) == event["values"][name]
        assert run.info.status == "FINISHED"
        assert run.info.end_time >= run.info.start_time


def test_metrics_stand_at_absolute_epochs_once(ran: Ran) -> None:
    store, children = ran.store, ran.children
    for trial_id, run in children.items():
        epochs = [event for event in ran.of("epoch_ended") if event["trial_id"] == trial_id]
        for name in ("loss", "val_loss", "auc", "val_auc", "accuracy", "val_accuracy"):
            history = store.client.get_metric_history(run.info.run_id, name)
            found = {point.step: point.value for point in history}
            assert len(found) == len(history)
            assert found == {e["epoch"]: pytest.approx(e["metrics"][name]) for e in epochs}
        parent = children.get(run.data.tags.get("promoted_from", ""))
        if parent is not None:
            last = max(store.steps(parent, "val_auc"))
            assert min(store.steps(run, "val_auc")) == last + 1
    assert_nothing_repeats_or_runs(store)


def assert_nothing_repeats_or_runs(store: Store) -> None:
    counts = Counter((run, key, step) for run, key, step, _ in store.points())
    assert [point for point, count in counts.items() if count > 1] == []
    runs = [*store.runs("search"), *store.runs("trial")]
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED", "KILLED"}


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_every_trial_has_a_classifier_that_works_alone(step: int, ran: Ran) -> None:
    import mlflow

    images = phantom(train=120, val=60, test=60, image_size=32).test.images.read(np.arange(12))
    assert images.dtype == np.uint8
    store = ran.store
    given = []
    outputs = [run.outputs.model_outputs for run in ran.children.values()]
    assert [len(own) for own in outputs] == [1] * len(store.models())
    for (output,) in outputs[::step]:
        model = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
        probabilities = np.asarray(model.predict(images))
        assert probabilities.shape == (12, 1)
        assert ((probabilities > 0) & (probabilities < 1)).all()
        assert model.metadata.signature is not None
        assert model.input_example is not None
        given.append(probabilities.tobytes())
    assert len(set(given)) > len(given) / 2


def test_champion_is_the_winner_and_scores_as_reported(ran: Ran) -> None:
    import mlflow

    store = ran.store
    (output,) = ran.children[ran.end["winner"]].outputs.model_outputs
    assert store.champion_id() == output.model_id
    assert store.champion().run_id == ran.parent.info.run_id
    split = phantom(train=120, val=60, test=60, image_size=32).test
    model = mlflow.pyfunc.load_model("models:/pneumonia-phantom@champion")
    given = np.asarray(model.predict(split.images.read(np.arange(60))))[:, 0]
    metrics = ran.parent.data.metrics
    assert roc_auc(split.labels, given) == pytest.approx(metrics["test_auc"], abs=1e-6)
    assert ((given > 0.5) == split.labels).mean() == pytest.approx(metrics["test_accuracy"])
    for name in ("auc", "accuracy"):
        low, high = metrics[f"test_{name}_low"], metrics[f"test_{name}_high"]
        assert 0 <= low <= metrics[f"test_{name}"] <= high <= 1
        assert low < high


def test_tensorboard_logs_hold_every_epoch(ran: Ran) -> None:
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for started in ran.of("trial_started"):
        trial_id = started["trial_id"]
        (path,) = (ran.folder / "tensorboard" / trial_id).iterdir()
        found: dict[int, dict[str, float]] = {}
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(event.step, {})[value.tag] = float(tf.make_ndarray(value.tensor))
        epochs = [event for event in ran.of("epoch_ended") if event["trial_id"] == trial_id]
        assert found == {event["epoch"]: pytest.approx(event["metrics"]) for event in epochs}


# The same again.


def comparable(ran: Ran) -> list[Event]:
    """Return the events without what may differ: times, ids, paths."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, dict):
            # How often the test split was read by then depends on what ran before.
            other = ("seconds", "time", "test_readings")
            kept = {k: v for k, v in value.items() if not k.startswith(other)}
            return {key: cleaned(item) for key, item in kept.items()} | {
                key: None for key in kept if key in ("search_id", "n", "command")
            }
        if isinstance(value, list):
            return [cleaned(item) for item in value]
        return value.replace(ran.folder.name, "") if isinstance(value, str) else value

    # nan is not equal to itself, its text is.
    return [json.loads(json.dumps(cleaned(event)), parse_constant=str) for event in ran.events]


def assert_same_weights(one: Ran, other: Ran) -> None:
    models = [classifier.load(ran.folder / ran.end["classifier"]) for ran in (one, other)]
    weights = [model.get_weights() for model in models]
    assert len(weights[0]) > 10
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow  # one that was killed came to the same, in another process, too
@pytest.mark.usefixtures("drawn")
def test_same_seed_same_search_in_another_process(ran: Ran, here: Callable[..., Ran]) -> None:
    other = here(*SEARCH)
    assert other.status == 0
    assert other.folder != ran.folder
    assert comparable(other) == comparable(ran)
    assert_same_weights(other, ran)


def test_best_yaml_trains_the_winner_again_to_the_same_scores(
    ran: Ran, command: Callable[..., Ran]
) -> None:
    again = command(ran.project, f"experiment={ran.folder.relative_to(ran.project)}/best.yaml")
    assert again.status == 0
    assert searches(ran.project) == [ran.folder, again.folder]
    (trial,) = again.of("trial_started")
    assert "promoted_from" not in trial["tags"]
    for name, value in ran.end["metrics"].items():
        if name == "val_auc" or name.startswith("test_"):
            assert again.end["metrics"][name] == pytest.approx(value, rel=0, abs=0, nan_ok=True)
    assert_same_weights(ran, again)
    assert "1 trial by val_auc" in again.stdout
    assert "The test split has been read by 2 searches: its scores" in again.stdout
    assert list(again.children) == [again.end["winner"]]
    # As good as the champion on the same val split is not better.
    assert again.store.champion().run_id == ran.parent.info.run_id
    assert "does not take the alias champion: val_auc " in again.stdout
    search_id = again.events[0]["search_id"]
    assert f"To promote it: `pneumonia promote {search_id}" in again.stdout.splitlines()[-1]


@pytest.mark.usefixtures("drawn")
def test_a_killed_search_goes_on_to_the_same_end(
    ran: Ran, killed: Ran, command: Callable[..., Ran]
) -> None:
    assert 0 < len(killed.of("trial_ended")) < len(ran.of("trial_ended"))
    assert_goes_on_to_the_same_end(ran, killed, command)


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_a_search_killed_in_its_evaluation_goes_on_to_the_same_end(
    ran: Ran, command: Callable[..., Ran], tmp_path: Path, empty_store: Path
) -> None:
    """It was killed in a trial before."""
    project = with_store(tmp_path / "project", empty_store)
    assert finish(start(project, *SEARCH, code=KILLED), project).status == -signal.SIGKILL
    sign, text = moments.ENDINGS[0]
    moment = moments.Moment("evaluation", text, sign, victim=moments.BOTH)
    with start(project, "resume=last") as again:
        assert moments.kill(again, project, moment), finish(again, project).stderr
    killed = Ran(project, searches(project)[-1], -signal.SIGKILL)
    assert len(killed.of("trial_ended")) == len(ran.of("trial_ended"))
    assert_goes_on_to_the_same_end(ran, killed, command)


def assert_goes_on_to_the_same_end(ran: Ran, killed: Ran, command: Callable[..., Ran]) -> None:
    before = killed.events
    project = killed.project
    resumed = command(project, "resume=last")
    assert resumed.status == 0, resumed.stderr
    assert resumed.folder == killed.folder
    assert resumed.events[: len(before)] == before
    assert comparable(resumed) == comparable(ran)
    assert_same_weights(resumed, ran)
    for name in PICTURES:
        picture = f"plots/{name}.png"
        assert (resumed.folder / picture).read_bytes() == (ran.folder / picture).read_bytes()
    assert resumed.stdout.splitlines()[:4] == ran.stdout.splitlines()[:4]
    store = resumed.store
    assert len(store.runs("search")) == 1
    assert resumed.children.keys() == ran.children.keys()
    assert_nothing_repeats_or_runs(store)
    values = {
        (run.data.tags["trial_id"], key): value
        for search in (resumed, ran)
        for run in search.children.values()
        for key, value in run.data.metrics.items()
    }
    for run in resumed.children.values():
        assert run.info.status == "FINISHED"
        for key, value in run.data.metrics.items():
            assert values[run.data.tags["trial_id"], key] == value
    assert {path.parent for path in project.rglob("tracking.json")} == {resumed.folder}
    # What goes on needs no folder of its own.
    assert [path.parent for path in (project / "outputs").rglob(".hydra")] == [resumed.folder]


# Other ways through.


@pytest.mark.slow
def test_no_range_is_one_training_and_leaves_nothing_to_go_on_with(
    here: Callable[..., Ran],
) -> None:
    ran = here(*TRAIN)
    assert ran.status == 0
    assert "nothing to search: one training of at most 2 epochs" in ran.stderr
    (started,), (ended,) = ran.of("trial_started"), ran.of("trial_ended")
    assert started["tags"] == {}
    assert len(ran.of("epoch_ended")) == started["values"]["epochs"] == 2
    assert ran.end["winner"] == ended["trial_id"]
    assert ran.store.champion().run_id == ran.parent.info.run_id
    refused = here("resume=nothing")
    assert refused.status == 2
    assert "`resume`: expected" in refused.stderr
    before = ran.events
    again = here("resume=last")
    assert again.status == 0
    assert again.events == before
    # What it says can be done, can be.
    fork = again.stderr.splitlines()[-1].rpartition(": ")[2]
    assert fork == f"pneumonia resume={before[0]['search_id']} resume.fork=true"
    assert here(*shlex.split(fork)[1:], "--dry-run").status == 0
    assert searches(ran.project) == [ran.folder]


@pytest.mark.slow
def test_a_completed_search_only_sends_what_mlflow_has_not_taken(here: Callable[..., Ran]) -> None:
    ran = here(*TRAIN)
    before = ran.events
    ran.store.client.delete_run(ran.parent.info.run_id)
    (ran.folder / "tracking.json").unlink()
    again = here(f"resume={before[0]['search_id']}")
    assert again.status == 0, again.stderr
    assert ran.events == before
    assert ran.parent.info.status == "FINISHED"
    assert ran.parent.data.metrics["test_auc"] == pytest.approx(ran.end["metrics"]["test_auc"])


WIDE = 'dense.dropout="choice(0.1, 0.2, 0.3)"'


@pytest.mark.slow
def test_more_budget_and_then_a_fork(
    here: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    from pneumonia.training import trial

    run = trial._run

    def counted(task: trial.Task, *rest: Any) -> trial.Outcome:
        trained.append(task.trial_id)
        return run(task, *rest)

    monkeypatch.setattr(trial, "_run", counted)
    whole = here(*GRID, WIDE, "tuner.max_trials=3")
    ran = here(*GRID, WIDE, "tuner.max_trials=2")
    name, trained[:] = ran.events[0]["search_id"], []
    refused = here(f"resume={name}", "dense.units=9", "tuner.max_trials=1")
    assert refused.status == 2
    assert "\n  dense.units: 8 → 9\n" in refused.stderr
    assert "\n  tuner.max_trials: 2 → 1\n" in refused.stderr

    more = here("resume=last", "tuner.max_trials=3")
    assert (more.status, more.folder, trained) == (0, ran.folder, ["0002"]), more.stderr
    assert scores(more) == scores(whole)
    assert more.end["winner"] == whole.end["winner"]
    assert_same_weights(more, whole)
    assert len(more.children) == 3
    assert (more.parent.info.status, more.parent.data.metrics["trials"]) == ("FINISHED", 3)
    assert more.store.champion().run_id == whole.parent.info.run_id
    # The final classifier, too, is that of the last end.
    (model,) = more.children[more.end["winner"]].outputs.model_outputs
    assert more.store.model_id(more.store.version(more.parent)) == model.model_id
    assert not (more.folder / "trials").exists()

    before = {path: path.read_bytes() for path in ran.folder.rglob("*") if path.is_file()}
    fork = here("resume=last", "resume.fork=true", 'dense.dropout="choice(0.3, 0.4, 0.1)"')
    assert (fork.status, trained) == (0, ["0002", "0001"]), fork.stderr
    assert fork.folder not in (ran.folder, whole.folder)
    others = {values["dense.dropout"]: (score, at) for _, values, score, at in scores(whole)}
    found = {values["dense.dropout"]: (score, at) for _, values, score, at in scores(fork)}
    assert list(found) == [0.3, 0.4, 0.1]
    assert (found[0.3], found[0.1]) == (others[0.3], others[0.1])
    assert f"fork of {name}: 3 of its 3 finished trials can be taken over" in fork.stderr
    assert f"taken over from {name}: 2 finished trials\n  not trial 2: this search" in fork.stderr
    tags = [event["tags"].get("taken_over_from") for event in fork.of("trial_started")]
    assert tags == [f"{name}/0002", None, f"{name}/0000"]
    assert fork.parent.data.tags["forked_from"] == name
    for child in fork.children.values():
        assert child.info.status == "FINISHED"
        assert len(child.outputs.model_outputs) == 1
        assert fork.store.steps(child, "val_auc") == [1, 2]
    assert_nothing_repeats_or_runs(fork.store)
    assert {path: path.read_bytes() for path in before} == before


def scores(ran: Ran) -> list[tuple[Any, ...]]:
    """Return what the trials of a search came to."""
    values = {event["trial_id"]: event["values"] for event in ran.of("trial_started")}
    return [
        (event["trial_id"], values[event["trial_id"]], event["score"], event["metrics"])
        for event in ran.of("trial_ended")
    ]


def test_a_failed_trial_is_told_and_the_search_goes_on(here: Callable[..., Ran]) -> None:
    ran = here(*DIVERGING, 'optimizer.learning_rate="choice(1e-3, 1e30, 1e-2)"')
    assert ran.status == 0
    assert "1 trial came to no score" in ran.stdout
    statuses = [event["status"] for event in ran.of("trial_ended")]
    assert statuses == ["COMPLETED", "FAILED", "COMPLETED"]
    (failed,) = [run for run in ran.children.values() if run.info.status == "FAILED"]
    assert float(failed.data.params["optimizer.learning_rate"]) == 1e30
    assert "diverged" in failed.data.tags["reason"]
    assert failed.data.tags["reason"] in ran.stderr
    assert not failed.outputs or not failed.outputs.model_outputs
    assert ran.end["winner"] != failed.data.tags["trial_id"]
    assert ran.parent.data.metrics["failed_trials"] == 1
    assert ran.parent.info.status == "FINISHED"


def test_a_wrong_value_in_a_choice_is_told_before_the_first_trial(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [*GRID, 'model.layer="choice(block2b_add, nothing)"']
    monkeypatch.setattr(sys, "argv", ["pneumonia", *arguments])
    assert main.main() == 2
    assert "`model.layer`: expected the name of a layer" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_search_is_tracked_where_it_was(here: Callable[..., Ran], tmp_path: Path) -> None:
    elsewhere = f"tracking.uri=sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"
    ran = here(*TRAIN, elsewhere, "tracking.experiment=other", "tracking.log_models=none")
    name = ran.events[0]["search_id"]
    again = here(f"resume={name}")
    assert again.status == 0, again.stderr
    own = OmegaConf.load(ran.folder / "config.yaml")
    assert (own.tracking.experiment, own.tracking.log_models) == ("other", "none")
    assert ran.store.client.get_experiment_by_name("pneumonia") is None
    elsewhere = here(f"resume={name}", "tracking.experiment=pneumonia")
    assert elsewhere.status == 0, elsewhere.stderr
    assert len(ran.store.runs("search")) == 1


def test_nothing_stops_a_search_that_has_no_trial_left(here: Callable[..., Ran]) -> None:
    rates = 'optimizer.learning_rate="choice(1e-3, 1e30, 2e30)"'
    ran = here(*DIVERGING, rates, "tuner.max_consecutive_failures=2")
    assert ran.status == 0, ran.stderr
    assert [e["status"] for e in ran.of("trial_ended")] == ["COMPLETED", "FAILED", "FAILED"]
    assert ran.end["status"] == "completed"


def test_too_many_failures_in_a_row_stop_the_search(here: Callable[..., Ran]) -> None:
    rates = 'optimizer.learning_rate="choice(1e-3, 1e30, 2e30, 3e30)"'
    ran = here(*DIVERGING, rates, "tuner.max_consecutive_failures=2")
    assert ran.status == 2
    assert "2 trials failed one after the other" in ran.stderr
    assert "tuner.max_consecutive_failures" in ran.stderr
    assert ran.stderr.count("diverged") >= 2
    assert "Traceback" not in ran.stderr
    assert [e["status"] for e in ran.of("trial_ended")] == ["COMPLETED", "FAILED", "FAILED"]
    assert ran.end["status"] == "failed"
    assert (ran.parent.info.status, ran.parent.data.tags["status"]) == ("FAILED", "failed")
    assert "trials failed" in ran.parent.data.tags["reason"]
    assert_nothing_repeats_or_runs(ran.store)
    told = ran.stderr.splitlines()[-1].rpartition(": ")[2]
    search_id = ran.events[0]["search_id"]
    assert told == f"pneumonia resume={search_id} tuner.max_consecutive_failures=4"
    again = here(*shlex.split(told)[1:])
    assert again.status == 0, again.stderr
    assert again.end["status"] == "completed"
    assert len(again.of("trial_ended")) == 4


def test_a_broken_trial_and_an_interruption(
    here: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pneumonia.training import trial

    run = trial._run

    def disturb(task: trial.Task, *rest: Any) -> trial.Outcome:
        if task.trial_id.endswith("1"):
            raise MemoryError("out of memory")
        if task.trial_id.endswith("2"):
            raise KeyboardInterrupt
        return run(task, *rest)

    monkeypatch.setattr(trial, "_run", disturb)
    ran = here(*GRID, 'dense.dropout="choice(0.1, 0.2, 0.3)"')
    assert ran.status == 130
    assert (ran.parent.info.status, ran.parent.data.tags["status"]) == ("KILLED", "interrupted")
    assert [one.info.status for one in ran.children.values()] == ["FINISHED", "FAILED", "KILLED"]
    failed = list(ran.children.values())[1]
    assert failed.data.tags["reason"] == "MemoryError: out of memory"
    assert ran.store.files(failed) == {"traceback.txt"}
    path = Path(failed.info.artifact_uri.removeprefix("file://")) / "traceback.txt"
    assert "disturb" in path.read_text()

    monkeypatch.setattr(trial, "_run", run)
    again = here("resume=" + ran.parent.info.run_id)
    assert (again.status, again.folder) == (0, ran.folder)
    assert [one.info.status for one in ran.children.values()] == ["FINISHED", "FAILED", "FINISHED"]
    assert (ran.parent.info.status, ran.parent.data.tags["status"]) == ("FINISHED", "completed")
    assert not ran.parent.data.tags.get("reason")
    assert len(ran.store.runs("search")) == 1


@pytest.mark.slow  # as in test_winner
def test_retraining_gives_another_classifier_which_is_the_champion(
    here: Callable[..., Ran],
) -> None:
    decided = ("threshold.rule=youden", "threshold.calibrate=true")
    again = ("augment=blog", "augment.views=online", "training.retrain=true")
    ran = here(*TRAIN, *NETWORK, *again, *decided)
    assert ran.status == 0
    store = ran.store
    (trial,) = ran.children.values()
    (own,) = trial.outputs.model_outputs
    (final,) = ran.parent.outputs.model_outputs
    assert own.model_id != final.model_id == store.champion_id()
    assert len(store.models()) == 2
    paths = [store.client.get_logged_model(one.model_id).artifact_location for one in (own, final)]
    one, other = (
        classifier.load(Path(path.removeprefix("file://")) / "data" / "model.keras")
        for path in paths
    )
    for a, b in zip(one.trainable_weights, other.trainable_weights, strict=True):
        assert a.path == b.path
        assert not np.array_equal(a, b)
    split = phantom(train=120, val=60, test=60, image_size=32).test
    given = other.predict(split.images.read(np.arange(60)), verbose=0)[:, 0]
    metrics = ran.parent.data.metrics
    assert roc_auc(split.labels, given) == pytest.approx(metrics["test_auc"], abs=1e-6)
    # Temperature and threshold are those of the trial, which val was held out from.
    facts, known = (
        classifier_file.read_facts(Path(path.removeprefix("file://")) / "data" / "model.keras")
        for path in paths
    )
    assert facts == known
    assert facts["temperature"] == metrics["temperature"] != 1
    assert store.champion().tags["threshold"] == json.dumps(facts["threshold"])
    at = balanced_accuracy(split.labels, given, threshold=facts["threshold"])
    assert at == pytest.approx(metrics["test_at_threshold_balanced_accuracy"])
    for text in (f"above {facts['threshold']:.4g}", "The classifier's own threshold is", "divided"):
        assert text in ran.stdout
    assert "before it was trained on val" in " ".join(ran.stdout.split())


def assert_one_model_is_left(ran: Ran) -> None:
    (model,) = [one for one in ran.store.models() if one.source_run_id in run_ids(ran)]
    assert len(list(ran.folder.rglob("*.keras"))) == 1
    path = Path(model.artifact_location.removeprefix("file://"))
    assert len(list(path.rglob("*.keras"))) == 1


def run_ids(ran: Ran) -> set[str]:
    return {run.info.run_id for run in (ran.parent, *ran.children.values())}


@pytest.mark.slow  # as in cli/test_main
def test_a_multirun_is_several_searches_that_compare(here: Callable[..., Ran]) -> None:
    many = ("-m", *TRAIN, "tuner=random,grid", "tuner.max_trials=2", "tracking.log_models=best")
    ran = here(*many, "dense.dropout='choice(0.1, 0.3)'")
    assert ran.status == 0
    parents = ran.store.runs("search")
    assert [run.data.tags["tuner"] for run in parents] == ["random", "grid"]
    assert [run.info.status for run in parents] == ["FINISHED"] * 2
    assert parents[0].data.params.keys() == parents[1].data.params.keys()
    assert parents[0].data.metrics.keys() == parents[1].data.metrics.keys()
    both = [replace(ran, folder=folder) for folder in searches(ran.project)]
    assert [one.parent.info.run_id for one in both] == [run.info.run_id for run in parents]
    for one in both:
        assert len(one.children) == 2
        assert_one_model_is_left(one)
    assert len(ran.store.models()) == len(list((ran.project / "mlruns").rglob("*.keras"))) == 2


@pytest.mark.slow
def test_without_the_trials_models_the_final_one_is_kept(here: Callable[..., Ran]) -> None:
    ran = here(*TRAIN, "tracking.log_models=none")
    assert ran.status == 0
    assert_one_model_is_left(ran)
    (model,) = ran.store.models()
    assert ran.store.champion_id() == model.model_id
    assert model.source_run_id == ran.parent.info.run_id


@pytest.mark.slow
def test_ranges_of_optimizers_and_image_sizes_and_conditions(here: Callable[..., Ran]) -> None:
    ran = here(
        *(*TRAIN, *NETWORK, "optimizer=any", "tuner=random", "tuner.max_trials=2", "seed=2"),
        *('model.image_size="choice(32, 40)"', 'optimizer.name="choice(adam, sgd)"'),
    )
    assert ran.status == 0
    assert len(ran.children) == 2
    every = [run.data.params for run in ran.children.values()]
    assert {params["optimizer.name"] for params in every} == {"adam", "sgd"}
    assert {params["model.image_size"] for params in every} == {"32", "40"}
    for params in every:
        assert ("optimizer.momentum" in params) == (params["optimizer.name"] == "sgd")
        if "optimizer.momentum" in params:
            assert 0 <= float(params["optimizer.momentum"]) <= 0.99
    assert ran.store.champion().run_id == ran.parent.info.run_id
