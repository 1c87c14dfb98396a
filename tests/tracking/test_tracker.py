"""The tracking, against real stores, real processes and a real server."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import slow
from services import Server, await_condition, free_port

from pneumonia.cli import ui
from pneumonia.errors import ConfigError
from pneumonia.process import process_start
from pneumonia.storage import offset
from pneumonia.storage.journal import Journal, Place, read, seal
from pneumonia.storage.members import Draw
from pneumonia.storage.offset import Cursor
from pneumonia.tracking.consumer import Consumer
from pneumonia.tracking.mlflow_store import Point, Store, make_ready
from pneumonia.tracking.runs import Runs
from pneumonia.tracking.settings import TrackingSettings, redact
from pneumonia.tracking.sink import Sink
from pneumonia.tracking.tracker import check, fetch_classifier

ROOT = Path(__file__).parents[2]
CLASSIFIER = b"not a real classifier"


@pytest.fixture
def settings(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> TrackingSettings:
    """Settings of a store of its own, in a project folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns").mkdir()
    shutil.copyfile(empty_store, tmp_path / "mlruns" / "mlflow.db")
    return TrackingSettings()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "search"


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    with closing(Journal(folder)) as journal:
        yield journal


@pytest.fixture(scope="session")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of stock layers: uint8 images of any size to a probability."""
    import keras

    images = keras.Input((None, None, None), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.Concatenate()([x, x, x])[..., :3]
    x = keras.layers.Reshape((3,))(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(images, keras.layers.Dense(1, activation="sigmoid")(x))
    path = tmp_path_factory.mktemp("keras") / "classifier.keras"
    model.save(path)
    return path


def start_search(journal: Journal, **fields: Any) -> None:
    data = [
        {"name": "phantom", "split": split, "digest": split * 20, "size": 9, "source": "generated"}
        for split in ("train", "val", "test")
    ]
    tags = {"tuner": "random", "model": "cnn", "dataset": "phantom", "git_commit": "c0ffee"}
    params = {
        "objective.name": "val_auc",
        "dense.units": "choice(1, 2)",
        "seed": 1,
        "augment.name": None,
        "long": "x" * 7000,
    }
    event = {"search_id": "s1", "name": "brave owl", "direction": "max", "tags": tags}
    event |= {"params": params, "datasets": data, "artifacts": ["config.yaml", "missing.yaml"]}
    journal.path.parent.mkdir(parents=True, exist_ok=True)
    (journal.path.parent / "config.yaml").write_text("seed: 1\n")
    journal.append("search_started", **(event | fields))


def start_trial(journal: Journal, number: int) -> str:
    trial_id = f"{number:04d}"
    values = {"dense.units": number, "optimizer.learning_rate": 1e-3}
    tags = {"bracket": 1, "round": 0, "promoted_from": None}
    name = f"trial {number}"
    fields = {"trial_id": trial_id, "number": number, "name": name, "values": values, "tags": tags}
    journal.append("trial_started", **fields)
    return trial_id


def add_epochs(journal: Journal, trial_id: str, epochs: range, **fit: int) -> None:
    for epoch in epochs:
        metrics = {"loss": 1 / epoch, "val_auc": 0.5 + epoch / 100}
        fields = {"trial_id": trial_id, "execution": 0, "epoch": epoch} | fit
        journal.append("epoch_ended", metrics=metrics, **fields)


def end_trial(
    journal: Journal, trial_id: str, score: float, file: Path | None = None, **more: Any
) -> str:
    name = f"trial-{trial_id}.keras"
    path = journal.path.parent / name
    path.write_bytes(CLASSIFIER + trial_id.encode() if file is None else file.read_bytes())
    fields = {"trial_id": trial_id, "status": "COMPLETED", "score": score, "reason": None}
    metrics = {"val_auc": score, "epoch": 2}
    fields |= {"traceback": None, "classifier": name}
    journal.append("trial_ended", **fields, metrics=metrics, **more)
    return name


def fail_trial(journal: Journal, trial_id: str) -> None:
    fields = {"status": "FAILED", "score": None, "metrics": {}, "classifier": None}
    text = "Traceback (most recent call last):\nValueError: no"
    journal.append("trial_ended", trial_id=trial_id, reason="no", traceback=text, **fields)


def end_search(
    journal: Journal, winner: str | None, status: str = "completed", **more: Any
) -> None:
    fields = {"winner": winner, "classifier": f"trial-{winner}.keras" if winner else None}
    fields |= {"metrics": {"test_auc": 0.9}, "artifacts": ["plots/roc.png"], "reason": None}
    (journal.path.parent / "plots").mkdir(exist_ok=True)
    (journal.path.parent / "plots" / "roc.png").write_bytes(b"png")
    journal.append("search_ended", status=status, description="# A search", **(fields | more))


def write_search(folder: Path, scores: tuple[float, ...] = (0.7, 0.9, 0.8)) -> None:
    """Write the journal of a whole search, the best trial of which wins."""
    journal = Journal(folder)
    start_search(journal)
    for number, score in enumerate(scores, 1):
        trial_id = start_trial(journal, number)
        add_epochs(journal, trial_id, range(1, 3))
        end_trial(journal, trial_id, score)
    read = {"searches": 3, "times": 5}
    draws = [Draw("0002", 2, 0.9, 0.3, 0.9, 0.3), Draw("0003", 3, 0.8, 0.4, 0.91, 0.29)]
    more = {"members": [draw.fields() for draw in draws], "test_readings": read}
    end_search(journal, f"{1 + scores.index(max(scores)):04d}", **more)
    journal.close()


def edit_journal(folder: Path, old: str, new: str) -> None:
    """Replace a text in a journal, as if it had been written so."""
    place, lines = Place(), []
    for event in list(read(folder)):
        event.pop("crc", None)
        line, place = seal(json.loads(json.dumps(event).replace(old, new)), place)
        lines.append(line)
    (folder / "journal.jsonl").write_bytes(b"".join(lines))


def track(folder: Path, settings: TrackingSettings) -> None:
    consumer = Consumer(folder, settings)
    assert consumer.close() == 0


def rows(sql: str, path: Path = Path("mlruns/mlflow.db")) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def client(settings: TrackingSettings) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(settings.store_uri, settings.store_uri)


def runs(settings: TrackingSettings, kind: str) -> list[Any]:
    found = client(settings).search_runs(
        [client(settings).get_experiment_by_name("pneumonia").experiment_id],
        f"tags.kind = '{kind}'",
        order_by=["tags.trial_id"],
    )
    return list(found)


def assert_whole(trials: int, epochs: int) -> None:
    """Check in the tables that everything of one search is there, and once."""
    kinds = Counter(row[0] for row in rows("select value from tags where key = 'kind'"))
    assert kinds == {"search": 1, "trial": trials}
    assert rows("select count(*) from runs where status != 'FINISHED'") == [(0,)]
    points = rows("select run_uuid, key, step, count(*) from metrics group by 1, 2, 3")
    assert all(count == 1 for *_, count in points)
    steps = [step for _, key, step, _ in points if key == "loss"]
    assert Counter(steps) == dict.fromkeys(range(1, epochs + 1), trials)
    assert rows("select count(*) from logged_models") == [(trials,)]
    assert rows("select count(*) from inputs where destination_type = 'MODEL_OUTPUT'") == [
        (trials + 1,)
    ]
    assert rows("select count(*) from inputs where source_type = 'DATASET'") == [(3,)]
    assert rows("select count(*) from model_versions") == [(1,)]
    assert rows("select alias from registered_model_aliases") == [("champion",)]
    assert len(list(Path("mlruns/artifacts/models").glob("*/artifacts/data/model.keras"))) == trials


def test_a_search_is_one_run_with_its_facts(settings: TrackingSettings, folder: Path) -> None:
    write_search(folder)
    make_ready(settings)
    track(folder, settings)
    assert_whole(trials=3, epochs=2)
    (run,) = runs(settings, "search")
    assert run.info.run_id == Cursor.read(folder / offset.NAME).run_id
    assert run.info.run_name == "brave owl"
    tags = run.data.tags
    expected = {"tuner": "random", "dataset": "phantom", "status": "completed", "winner": "0002"}
    expected["test_readings"] = "5"
    assert expected.items() <= tags.items()
    assert tags["members"] == "the mean of trials 2 (1/2) and 3 (1/2)"
    picture = f"![plots/roc.png](get-artifact?path=plots/roc.png&run_uuid={run.info.run_id})"
    assert tags["mlflow.note.content"] == f"# A search\n\n{picture}\n"
    assert client(settings).get_experiment("2").tags["mlflow.experimentKind"]
    model = client(settings).get_registered_model("pneumonia-phantom")
    assert "Not for clinical use" in model.description
    version = client(settings).get_model_version("pneumonia-phantom", "1").description
    where = f"(#/experiments/2/runs/{run.info.run_id})"
    assert (
        version
        == f"The final classifier of the search [brave owl]{where}.\n\n# A search\n\n{picture}"
    )
    assert tags["mlflow.source.git.commit"] == "c0ffee"
    assert run.data.params["augment.name"] == "null"
    assert len(run.data.params["long"]) == 6000
    assert run.data.metrics == {"best_score": 0.9, "test_auc": 0.9}
    contexts = {i.tags[0].value: i.dataset.digest for i in run.inputs.dataset_inputs}
    assert set(contexts) == {"training", "validation", "testing"}
    assert contexts["training"] == ("train" * 20)[:32]
    events = list(read(folder))
    assert (run.info.start_time, run.info.end_time) == (events[0]["time"], events[-1]["time"])
    names = {file.path for file in client(settings).list_artifacts(run.info.run_id)}
    assert names == {"config.yaml", "plots"}
    assert not Path("mlflow.db").exists()


def test_a_trial_is_a_child_run_with_its_values(settings: TrackingSettings, folder: Path) -> None:
    write_search(folder)
    track(folder, settings)
    trial = runs(settings, "trial")[1]
    tags = trial.data.tags
    assert tags["mlflow.parentRunId"] == Cursor.read(folder / offset.NAME).run_id
    assert (tags["trial_id"], tags["bracket"], tags["round"]) == ("0002", "1", "0")
    assert "promoted_from" not in tags
    assert trial.data.params == {"dense.units": "2", "optimizer.learning_rate": "0.001"}
    history = client(settings).get_metric_history(trial.info.run_id, "val_auc")
    events = [e for e in read(folder) if e["kind"] == "epoch_ended" and e["trial_id"] == "0002"]
    assert [(m.step, m.value, m.timestamp) for m in history] == [
        (e["epoch"], e["metrics"]["val_auc"], e["time"]) for e in events
    ]
    assert trial.data.metrics["score"] == trial.data.metrics["best_val_auc"] == 0.9


def test_a_failed_trial_shows_its_traceback(
    settings: TrackingSettings, folder: Path, journal: Journal
) -> None:
    start_search(journal)
    fail_trial(journal, start_trial(journal, 1))
    end_search(journal, None, "failed", reason="all trials failed")
    track(folder, settings)
    (trial,) = runs(settings, "trial")
    assert trial.info.status == "FAILED"
    assert trial.data.tags["reason"] == "no"
    path = client(settings).download_artifacts(trial.info.run_id, "traceback.txt")
    assert "ValueError: no" in Path(path).read_text()
    (run,) = runs(settings, "search")
    assert (run.info.status, run.data.tags["status"]) == ("FAILED", "failed")


def test_a_trial_that_lost_a_worker_says_why(
    settings: TrackingSettings, folder: Path, journal: Journal
) -> None:
    start_search(journal)
    trial_id = start_trial(journal, 1)
    journal.append("worker_lost", trial_id=trial_id, reason="its machine is gone")
    end_search(journal, None, "failed", reason="all trials failed")
    track(folder, settings)
    (trial,) = runs(settings, "trial")
    assert trial.data.tags["worker_lost"] == "its machine is gone"


def test_executions_and_repeated_epochs(
    settings: TrackingSettings, folder: Path, journal: Journal
) -> None:
    start_search(journal)
    trial_id = start_trial(journal, 1)
    add_epochs(journal, trial_id, range(1, 4))
    consumer = Consumer(folder, settings)
    consumer.close()
    time.sleep(0.01)
    add_epochs(journal, trial_id, range(2, 6))  # went on from the checkpoint of epoch 1
    add_epochs(journal, trial_id, range(1, 3), execution=1)
    add_epochs(journal, trial_id, range(1, 4), fold=1)
    add_epochs(journal, trial_id, range(1, 2), fold=1, execution=1)
    end_trial(journal, trial_id, 0.8, spread=0.25)
    end_search(journal, trial_id)
    track(folder, settings)
    (trial,) = runs(settings, "trial")
    steps = [m.step for m in client(settings).get_metric_history(trial.info.run_id, "loss")]
    assert steps == [1, 2, 3, 4, 5]
    for name, count in (("execution_2", 2), ("fold_2", 3), ("fold_2/execution_2", 1)):
        again = client(settings).get_metric_history(trial.info.run_id, f"{name}/loss")
        assert [m.step for m in again] == [*range(1, count + 1)]
    assert (trial.data.metrics["score"], trial.data.metrics["val_auc_std"]) == (0.8, 0.25)
    assert trial.info.status == "FINISHED"


def test_a_winner_that_the_budget_has_stopped_has_the_score_that_it_won_with(
    settings: TrackingSettings, folder: Path, journal: Journal
) -> None:
    start_search(journal)
    end_trial(journal, start_trial(journal, 1), 0.51)
    trial_id = start_trial(journal, 2)
    add_epochs(journal, trial_id, range(1, 4))
    end_search(journal, trial_id, classifier=None, metrics={"val_auc": 0.53})
    track(folder, settings)
    expected = {"score": 0.53, "best_epoch": 3, "best_val_auc": 0.53, "best_loss": 1 / 3}
    run = runs(settings, "trial")[1]
    assert run.info.status == "KILLED"
    assert expected.items() <= run.data.metrics.items()

    # With more budget it goes on, and wins as one of a mean with what it has come to then.
    journal.append("search_extended", params={"budget.epochs": 9})
    add_epochs(journal, trial_id, range(4, 5))
    metrics = {"val_auc": 0.9, "best_trial": 0.54}
    end_search(journal, trial_id, classifier=None, metrics=metrics, extension=1)
    track(folder, settings)
    assert runs(settings, "trial")[1].data.metrics["score"] == 0.54
    end_trial(journal, trial_id, 0.52)
    end_search(journal, trial_id, classifier=None, metrics={"val_auc": 0.52}, extension=2)
    for _ in range(2):  # the second time from the beginning, into the same store
        track(folder, settings)
        assert runs(settings, "trial")[1].data.metrics["score"] == 0.52
        points = rows("select run_uuid, key, step, count(*) from metrics group by 1, 2, 3")
        assert all(count == 1 for *_, count in points)
        (folder / offset.NAME).unlink()


def test_events_are_followed_as_they_come(
    settings: TrackingSettings, folder: Path, journal: Journal
) -> None:
    with closing(Consumer(folder, settings)):
        start_search(journal)
        trial_id = start_trial(journal, 1)
        add_epochs(journal, trial_id, range(1, 2))
        await_condition(lambda: rows("select status from runs") == [("RUNNING",)] * 2)
        await_condition(lambda: rows("select count(*) from metrics") == [(2,)])
    # Left without an end: nothing stays running.
    assert rows("select distinct status from runs") == [("KILLED",)]
    (run,) = runs(settings, "search")
    assert run.data.tags["status"] == "interrupted"


def test_an_interrupted_search_goes_on_in_the_same_runs(
    settings: TrackingSettings, folder: Path, journal: Journal
) -> None:
    start_search(journal)
    first = start_trial(journal, 1)
    add_epochs(journal, first, range(1, 2))
    second = start_trial(journal, 2)
    add_epochs(journal, second, range(1, 3))
    name = end_trial(journal, second, 0.6)
    (folder / "final.keras").write_bytes((folder / name).read_bytes())
    end_search(journal, second, "interrupted", classifier="final.keras")
    track(folder, settings)
    statuses = [run.info.status for run in runs(settings, "trial")]
    assert statuses == ["KILLED", "FINISHED"]
    assert runs(settings, "search")[0].info.status == "KILLED"
    assert rows("select count(*) from model_versions") == [(0,)]

    start_search(journal, params={"seed": 1, "executor.workers": 2})
    add_epochs(journal, first, range(2, 3))
    end_trial(journal, first, 0.9)
    end_search(journal, first)
    track(folder, settings)
    assert runs(settings, "search")[0].data.params["executor.workers"] == "2"
    # The classifier that the interrupted search ended with is superseded.
    rest = rows("select lifecycle_stage, count(*) from logged_models group by 1")
    assert sorted(rest) == [("active", 2), ("deleted", 1)]
    assert rows("select distinct status from runs") == [("FINISHED",)]


@pytest.mark.parametrize("log_models", ["all", "best", "none"])
def test_only_wanted_models_stay_on_the_disk(
    settings: TrackingSettings, folder: Path, log_models: Any
) -> None:
    settings = TrackingSettings(log_models=log_models)
    write_search(folder, (0.7, 0.9, 0.8, 0.95))
    track(folder, settings)
    stored = list(Path("mlruns/artifacts").rglob("model.keras"))
    assert len(stored) == (4 if log_models == "all" else 1)
    assert [path.name for path in folder.glob("*.keras")] == ["trial-0004.keras"]
    assert len(list(Path("mlruns/artifacts/models").iterdir())) == len(stored)
    files = [folder / "trial-0004.keras", *stored]
    assert len({path.stat().st_ino for path in files}) == len(stored)  # hard links
    (version,) = client(settings).search_model_versions("name = 'pneumonia-phantom'")
    path = fetch_classifier("models:/pneumonia-phantom@champion", settings)
    assert path.read_bytes() == CLASSIFIER + b"0004"
    assert version.tags["test_auc"] == "0.9"
    assert version.run_id == Cursor.read(folder / offset.NAME).run_id


def test_equal_scores_keep_both_files_until_the_end(
    settings: TrackingSettings, folder: Path, journal: Journal
) -> None:
    start_search(journal, direction="min")
    for number, score in enumerate((0.3, 0.2, 0.2), 1):
        end_trial(journal, start_trial(journal, number), score)
    with closing(Consumer(folder, settings)):
        left = {"trial-0002.keras", "trial-0003.keras"}
        await_condition(lambda: {p.name for p in folder.glob("*.keras")} == left)


@pytest.mark.parametrize("log_models", ["all", slow("none")])
def test_models_open_without_this_package(
    settings: TrackingSettings, folder: Path, journal: Journal, keras_file: Path, log_models: Any
) -> None:
    import keras
    import mlflow

    start_search(journal)
    trial_id = start_trial(journal, 1)
    end_trial(journal, trial_id, 0.8, keras_file)
    end_search(journal, trial_id)
    track(folder, TrackingSettings(log_models=log_models))
    mlflow.set_tracking_uri(settings.store_uri)
    images = np.arange(2 * 6 * 5 * 1, dtype=np.uint8).reshape(2, 6, 5, 1)
    expected = keras.saving.load_model(keras_file).predict(images, verbose=0)
    kind = "trial" if log_models == "all" else "search"
    run_id = runs(settings, kind)[0].info.run_id
    for uri in (f"runs:/{run_id}/classifier", "models:/pneumonia-phantom@champion"):
        loaded = mlflow.pyfunc.load_model(uri)
        np.testing.assert_allclose(loaded.predict(images), expected, rtol=1e-6)
    colour = np.repeat(images, 3, axis=-1)
    model = mlflow.keras.load_model("models:/pneumonia-phantom/1")
    np.testing.assert_allclose(model.predict(colour, verbose=0), expected, rtol=1e-6)
    assert loaded.predict(loaded.input_example).shape == (1, 1)
    assert "float32" in str(loaded.metadata.signature)
    assert isinstance(loaded.get_raw_model(), keras.Model)


def test_the_written_model_is_what_mlflow_would_write(
    settings: TrackingSettings, folder: Path, keras_file: Path, tmp_path: Path
) -> None:
    import keras
    import mlflow
    import yaml
    from mlflow.models import infer_signature

    from pneumonia.tracking.mlflow_model import requirements, write_model

    write_model(tmp_path / "ours", keras_file, model_id="m-1", run_id="r")
    (tmp_path / "theirs").mkdir()
    mlflow.keras.save_model(
        keras.saving.load_model(keras_file),
        str(tmp_path / "theirs"),
        signature=infer_signature(np.zeros((1, 8, 8, 1), np.uint8), np.zeros((1, 1), np.float32)),
        input_example=np.zeros((1, 8, 8, 1), np.uint8),
        pip_requirements=requirements(),
    )
    ours, theirs = (
        {str(p.relative_to(tmp_path / side)) for p in (tmp_path / side).rglob("*")}
        for side in ("ours", "theirs")
    )
    # A loader of our own checks what is asked, which no signature does.
    assert ours - {"code", "code/pneumonia_serving.py"} == theirs
    one, other = (
        yaml.safe_load((tmp_path / s / "MLmodel").read_text()) for s in ("ours", "theirs")
    )
    assert set(theirs_keys := other) <= set(one), theirs_keys
    loading = {"loader_module": "pneumonia_serving", "code": "code"}
    other["flavors"]["python_function"] |= loading
    for key in ("flavors", "saved_input_example_info", "mlflow_version"):
        assert one[key] == other[key]
    assert one["signature"]["outputs"] == other["signature"]["outputs"]


class Faulty:
    """Answers like a client until the connection breaks after some calls, once."""

    def __init__(self, real: Any, calls: int) -> None:
        self._real = real
        self.left = calls

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            answer = getattr(self._real, name)(*args, **kwargs)
            self.left -= 1
            if self.left == 0:
                raise ConnectionError(f"The answer to {name} is lost.")
            return answer

        return call


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_whatever_answer_is_lost_nothing_is_sent_twice(
    settings: TrackingSettings, folder: Path, journal: Journal, step: int
) -> None:
    start_search(journal)
    trial_id = start_trial(journal, 1)
    add_epochs(journal, trial_id, range(1, 3))
    name = end_trial(journal, trial_id, 0.8)
    end_search(journal, trial_id)
    events = list(read(folder))
    for calls in range(1, 100, step):
        shutil.copyfile("mlruns/mlflow.db", "mlruns/before.db")
        (folder / name).write_bytes(CLASSIFIER)
        store = Store(settings)
        faulty = store._client = Faulty(store._client, calls)  # type: ignore[assignment]
        path = folder / offset.NAME
        Cursor("x").save(path)
        for attempt in range(2):
            # As after a crash: the cursor on the disk, not the one in memory.
            part = Sink(store, folder, settings, Cursor.load(path, "x"))
            try:
                part.apply(events, look_up=attempt > 0)
                break
            except ConnectionError:
                assert attempt == 0
        assert_whole(trials=1, epochs=2)
        shutil.rmtree("mlruns/artifacts")
        restore_store()
        if faulty.left > 0:
            assert calls > 15
            return
    pytest.fail("never came to the end")


def restore_store() -> None:
    """Put the tables back as they were, without taking the file from under its connections."""
    with (
        closing(sqlite3.connect("mlruns/before.db")) as before,
        closing(sqlite3.connect("mlruns/mlflow.db")) as now,
    ):
        before.backup(now)


def crash(folder: Path, method: str, calls: int) -> None:
    """Send a search, and die when a method of the store has been called so many times."""
    real = getattr(Store, method)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        answer = real(*args, **kwargs)
        calls -= 1
        if calls == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(Store, method, deadly)
    with closing(Consumer(folder, TrackingSettings())):
        pass


def killed(work: Callable[[], object]) -> None:
    """Do something in a process of its own, and expect that it is killed there."""
    import alembic.command
    import mlflow.store.db.utils  # noqa: F401 - once for all of them

    del alembic
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:  # not back into the tests
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(("method", "calls"), [("log_model", 2), ("create_run", 3)])
def test_a_killed_process_loses_nothing(
    settings: TrackingSettings, folder: Path, method: str, calls: int
) -> None:
    write_search(folder)
    killed(lambda: crash(folder, method, calls))
    assert ("RUNNING",) in rows("select status from runs")
    make_ready(settings)
    assert ("RUNNING",) not in rows("select status from runs")
    (run,) = runs(settings, "search")
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "interrupted")
    track(folder, settings)
    assert_whole(trials=3, epochs=2)


def test_runs_of_a_living_process_are_left_alone(settings: TrackingSettings, folder: Path) -> None:
    store = Store(settings)
    run_id = store.create_run("alive", {"kind": "search"}, time=1)
    assert store.end_orphans() == 0
    store.log(run_id, tags={"pneumonia.process_start": "another"})
    store.log(run_id, points=[Point("loss", 1.0, 5_000)])
    assert store.end_orphans() == 1
    assert rows("select status, end_time from runs") == [("KILLED", 5_000)]
    assert process_start(os.getpid()) is not None
    assert process_start(2**22 + 1) is None


def test_a_lost_store_is_filled_anew(
    settings: TrackingSettings, folder: Path, empty_store: Path
) -> None:
    write_search(folder)
    track(folder, settings)
    (folder / "trial-0001.keras").write_bytes(CLASSIFIER)
    shutil.copyfile(empty_store, "mlruns/other.db")
    other = TrackingSettings(uri="sqlite:///mlruns/other.db", artifacts="mlruns/other")
    track(folder, other)
    assert len(runs(other, "trial")) == 3
    assert rows("select count(*) from logged_models", Path("mlruns/other.db")) == [(2,)]


def test_what_the_store_refuses_is_left_out_with_one_warning(
    settings: TrackingSettings, folder: Path, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    start_search(journal)
    for trial_id in ("nobody", "no one"):
        end_trial(journal, trial_id, 0.9)
    end_trial(journal, start_trial(journal, 1), 0.8)
    end_search(journal, "0001")
    track(folder, settings)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "trial_ended" in caplog.text
    assert {run.info.status for run in runs(settings, "trial")} == {"FINISHED"}
    assert runs(settings, "search")[0].info.status == "FINISHED"


def test_an_unreachable_server_is_one_clear_error(tmp_path: Path) -> None:
    uri = f"http://someone:secret@127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"tracking\.uri.*can be reached.*refused") as caught:
        check(TrackingSettings(uri=uri))
    assert time.monotonic() - started < 10
    assert "secret" not in str(caught.value)
    database = f"postgresql://someone:secret@127.0.0.1:{free_port()}/mlflow"
    with pytest.raises(ConfigError, match="refused"):
        check(TrackingSettings(uri=database))


@pytest.mark.slow  # a server that hangs is in test_tracking_faults
def test_a_search_goes_on_without_its_server(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_search(folder)
    consumer = Consumer(folder, TrackingSettings(uri=f"http://127.0.0.1:{free_port()}"))
    time.sleep(0.5)
    assert consumer.close(timeout=3) == len(list(read(folder)))
    away, left = (record.getMessage() for record in caplog.records)
    assert "cannot be reached" in away
    assert f"`pneumonia resume={folder}` sends them." in left
    assert Cursor.read(folder / offset.NAME).run_id is None


@pytest.fixture
def server(tmp_path: Path, empty_store: Path) -> Iterator[Server]:
    shutil.copyfile(empty_store, tmp_path / "server.db")
    server = Server(tmp_path, free_port())
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
def test_a_server_that_falls_gets_everything_in_the_end(
    server: Server, folder: Path, journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = TrackingSettings(uri=server.uri)
    make_ready(settings)
    with closing(Consumer(folder, settings)) as consumer:
        start_search(journal)
        end_trial(journal, start_trial(journal, 1), 0.7)
        await_condition(lambda: len(runs(settings, "trial")) == 1)
        server.kill()
        trial_id = start_trial(journal, 2)
        add_epochs(journal, trial_id, range(1, 4))
        await_condition(lambda: "cannot be reached" in caplog.text)
        server.start()
        end_trial(journal, trial_id, 0.9)
        end_search(journal, trial_id)
        assert consumer.close() == 0
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1
    assert {r.info.status for r in [*runs(settings, "trial"), *runs(settings, "search")]} == {
        "FINISHED"
    }
    assert len(list((tmp_path / "files").rglob("model.keras"))) == 2
    path = fetch_classifier("models:/pneumonia-phantom@champion", settings)
    assert path.read_bytes() == CLASSIFIER + trial_id.encode()
    # With a server, a sent file is not kept twice.
    assert [p.name for p in folder.glob("*.keras")] == [f"trial-{trial_id}.keras"]


@pytest.mark.slow
def test_a_missing_store_is_built_once_by_parallel_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = "from pneumonia.tracking.tracker import *; check(TrackingSettings()).result()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error:::pneumonia", "-c", code]
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in both] == [b"", b""]
    assert [process.returncode for process in both] == [0, 0]
    experiments = rows("select name, artifact_location from experiments where name != 'Default'")
    assert experiments == [("pneumonia", str(tmp_path / "mlruns" / "artifacts"))]


def test_an_older_store_is_brought_up_to_date(settings: TrackingSettings, folder: Path) -> None:
    from alembic import command
    from mlflow.store.db import utils

    write_search(folder, (0.7,))
    track(folder, settings)
    engine = utils.create_sqlalchemy_engine_with_retry(settings.store_uri)
    newest = rows("select version_num from alembic_version")
    config = utils._get_alembic_config(settings.store_uri)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "-1")
    engine.dispose()
    assert rows("select version_num from alembic_version") != newest
    make_ready(settings)
    assert rows("select version_num from alembic_version") == newest
    assert Path("mlruns/mlflow.db.backup").exists()
    assert_whole(trials=1, epochs=2)


def test_a_store_from_the_future_or_of_another_kind_is_refused(settings: TrackingSettings) -> None:
    with closing(sqlite3.connect("mlruns/mlflow.db")) as connection:
        connection.execute("update alembic_version set version_num = 'future'")
        connection.commit()
    with pytest.raises(ConfigError, match=r"`tracking\.uri`.*this version of MLflow"):
        make_ready(settings)
    Path("notes.txt").write_text("no database, but long enough to be read as one" * 100)
    with pytest.raises(ConfigError, match="SQLite"):
        make_ready(TrackingSettings(uri="sqlite:///notes.txt"))


@pytest.mark.parametrize("option", ["local", "server"])
def test_the_config_group_holds_the_settings(option: str) -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(ROOT / "conf" / "tracking"), version_base="1.3"):
        values = OmegaConf.to_container(compose(option), resolve=True)
    assert isinstance(values, dict)
    settings = TrackingSettings(**values)
    given = settings if option == "local" else TrackingSettings(uri=settings.uri, artifacts=None)
    assert settings == given
    assert settings.store_uri.startswith("sqlite" if option == "local" else "http://127.0.0.1")


# Tells what MLflow's command is given.
STAND_IN = """#!/bin/sh
printf '%s\\n' "$MLFLOW_TRACKING_URI" "$@" > given
"""


@pytest.mark.parametrize("is_real", [slow(True), False])  # MLflow's command takes three seconds
def test_a_deleted_experiment_is_named_with_what_restores_it(
    is_real: bool,
    empty_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = 'it\'s "a" $HOME & more'
    (tmp_path / name / "mlruns").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / name)
    shutil.copyfile(empty_store, "mlruns/mlflow.db")
    settings = TrackingSettings()
    known = Store(settings).experiment_id
    client(settings).delete_experiment(known)
    for use in (make_ready, Runs):
        with pytest.raises(ConfigError, match=r"`tracking\.experiment`.*restore") as caught:
            use(settings)
    assert ui.main([]) == 2
    assert capsys.readouterr().err == f"{caught.value}\n"
    # The command that it names works as it is, in a shell, and makes no other store.
    [restore] = re.findall("Run `([^`]*)`", str(caught.value))
    if not is_real:
        (tmp_path / "mlflow").write_text(STAND_IN)
        (tmp_path / "mlflow").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    subprocess.run(restore, shell=True, check=True, capture_output=True)
    if not is_real:
        given = Path("given").read_text().splitlines()
        Path("given").unlink()
        assert given[1:] == ["experiments", "restore", "-x", known]
        client(TrackingSettings(uri=given[0])).restore_experiment(known)
    assert Store(settings).experiment_id == known
    assert {path.name for path in Path.cwd().iterdir()} == {"mlruns"}


def test_the_environment_names_the_store_unless_the_config_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert TrackingSettings().store_uri == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    assert TrackingSettings().artifact_location == str(tmp_path / "mlruns/artifacts")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert TrackingSettings().store_uri == "http://host:5000"
    assert TrackingSettings().artifact_location is None
    assert TrackingSettings(artifacts="s3://bucket/path").artifact_location == "s3://bucket/path"
    assert TrackingSettings(uri="sqlite:///a.db").store_uri == f"sqlite:///{tmp_path}/a.db"
    assert redact("http://a:b@host/path") == "http://host/path"


def test_importing_the_tracking_does_not_import_mlflow() -> None:
    code = "import sys, pneumonia.tracking.tracker; sys.exit('mlflow' in sys.modules)"
    assert run_python(code).returncode == 0


def test_the_ui_says_when_there_is_nothing_to_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ui.main([]) == 2
    assert "`pneumonia experiment=demo`" in capsys.readouterr().err


def test_the_ui_shows_the_store_that_is_named(
    empty_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given: list[str] = []
    monkeypatch.setattr(os, "execve", lambda program, words, environment: given.extend(words))
    shutil.copyfile(empty_store, "other.db")
    uri, port = f"sqlite:///{tmp_path}/other.db", free_port()
    named = f"tracking.uri={uri}"
    assert ui.main([named, f"port={port}"]) == 0
    assert given[given.index("--backend-store-uri") + 1] == uri
    with socket.create_server(("127.0.0.1", port)):
        assert ui.main([named, f"port={port}"]) == 2
    assert re.search(rf"pneumonia ui port=\d+ {named}$", capsys.readouterr().err.strip())


@pytest.mark.slow
def test_the_ui_shows_the_local_results(settings: TrackingSettings, folder: Path) -> None:
    write_search(folder, (0.7,))
    track(folder, settings)
    port = free_port()
    command = [sys.executable, "-m", "pneumonia", "ui", f"port={port}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with Path("ui.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        query = {"experiment_ids": ["2"], "filter": "tags.kind = 'search'"}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/search",
            json.dumps(query).encode(),
            {"Content-Type": "application/json"},
        )
        await_condition(lambda: is_listening(port), 60)
        # Another address of this machine, at which a server for all would listen too.
        assert not is_listening(port, "127.0.0.2")
        with urllib.request.urlopen(request, timeout=20) as answer:
            found = json.loads(answer.read())["runs"]
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
    assert [run["info"]["run_id"] for run in found] == [Cursor.read(folder / offset.NAME).run_id]
    assert f"http://127.0.0.1:{port}/#/experiments/2/runs?" in Path("ui.log").read_text()


def is_listening(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0
