"""Which search makes the champion, in real stores; and which one a prediction takes."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from families import quick, slow
from test_tracker import (
    CLASSIFIER,
    client,
    end_search,
    end_trial,
    killed,
    rows,
    settings,
    start_search,
    start_trial,
)

from pneumonia.cli import promote
from pneumonia.datasets.chest_phantom import phantom
from pneumonia.errors import ConfigError
from pneumonia.storage import offset
from pneumonia.storage.journal import Journal
from pneumonia.storage.offset import Cursor
from pneumonia.tracking import registry
from pneumonia.tracking.consumer import Consumer
from pneumonia.tracking.mlflow_store import make_ready
from pneumonia.tracking.model_lookup import find_model
from pneumonia.tracking.settings import TrackingSettings
from pneumonia.tracking.tracker import Tracker

__all__ = ["settings"]

PHANTOM = phantom(train=2, val=2, test=2, image_size=32).source


def write(
    folder: Path,
    score: float,
    *,
    dataset: str = "chest",
    digest: str = "d1",
    objective: str = "val_auc",
    direction: str = "max",
    source: str = "files",
    folds: int | None = None,
    train: str = "t1",
) -> Path:
    """Write the journal of a search of one trial."""
    digests = {"train": train, "val": digest}
    data = [{"name": "x", "split": split, "digest": one, "size": 9, "source": source}
            for split, one in digests.items()]  # fmt: skip
    with closing(Journal(folder)) as journal:
        start_search(
            journal,
            search_id=folder.name,
            name=folder.name,
            direction=direction,
            datasets=data,
            params={"objective.name": objective, "objective.folds": folds, "seed": 1},
            tags={"dataset": dataset},
        )
        trial_id = start_trial(journal, 1)
        end_trial(journal, trial_id, score)
        end_search(journal, trial_id, metrics={objective: score})
    return folder


def send(folder: Path, settings: TrackingSettings) -> str:
    """Send a search; return what was decided."""
    with closing(Consumer(folder, settings)) as consumer:
        assert consumer.close() == 0
    return Tracker(folder, settings).decision()


def champions(settings: TrackingSettings) -> dict[str, str]:
    """Return the search of each champion, by registered model."""
    found = registry.champions(client(settings))
    return {str(one.name): str(one.tags[registry.SEARCH_ID]) for one in found}


def test_every_dataset_has_a_champion_of_its_own(
    settings: TrackingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "PAGE", 1)  # however many answers a list comes in
    make_ready(settings)
    send(write(tmp_path / "a", 0.7, dataset="clinic/one"), settings)
    told = send(write(tmp_path / "b", 0.9, dataset="phantom", source=PHANTOM), settings)
    assert told == "models:/pneumonia-phantom/1 takes the alias champion: no version had it."
    assert champions(settings) == {"pneumonia-clinic-one": "a", "pneumonia-phantom": "b"}
    # The one of phantoms does not count.
    found = find_model(None, settings)
    assert found.uri == "models:/pneumonia-clinic-one/1"
    today = time.strftime("%Y-%m-%d")
    assert str(found.origin) == f"trained on clinic/one, val_auc 0.7000, search a, {today}"
    send(write(tmp_path / "c", 0.8, dataset="other"), settings)
    with pytest.raises(ConfigError, match="one of several champions") as caught:
        find_model(None, settings)
    for name in ("clinic-one", "other"):
        assert f"`model=models:/pneumonia-{name}@champion`" in str(caught.value)
    assert find_model("models:/pneumonia-other@champion", settings).origin.score == 0.8
    with pytest.raises(ConfigError, match="There is models:/pneumonia-other@champion"):
        find_model("models:/pneumonia-other@champoin", settings)


def test_a_champion_of_phantoms_is_taken_only_where_it_is_named(
    settings: TrackingSettings, tmp_path: Path
) -> None:
    make_ready(settings)
    folder = write(tmp_path / "a", 0.7, dataset="mine", source=PHANTOM)
    send(folder, settings)
    with pytest.raises(ConfigError, match="trained on generated phantoms") as caught:
        find_model(None, settings)
    assert "`model=models:/pneumonia-mine@champion`" in str(caught.value)
    found = find_model("models:/pneumonia-mine@champion", settings).origin
    assert str(found).startswith("trained on generated phantoms, val_auc 0.7000, search a, ")
    # By its run, and by its file, as much is known.
    run_id = Cursor.read(folder / offset.NAME).run_id
    assert find_model(run_id, settings).origin == found
    beside = find_model(str(folder / "trial-0001.keras"), settings).origin
    assert beside == found
    alone = tmp_path / "alone.keras"
    alone.write_bytes(CLASSIFIER)
    origin = find_model(str(alone), settings).origin
    assert str(origin) == "not known what it was trained on"


SECOND = {
    "better": (0.8, {}, True, "val_auc 0.8, 0.7 of models:/pneumonia-chest/1, on the same val"),
    "equal": (0.7, {}, False, "val_auc 0.7, 0.7 of models:/pneumonia-chest/1, on the same val"),
    "worse": (0.6, {}, False, "val_auc 0.6, 0.7 of"),
    "other val": (0.9, {"digest": "d2"}, False, "was scored on another val split"),
    "other name": (0.9, {"objective": "val_f1"}, False, "another objective, val_auc"),
    "other direction": (0.9, {"direction": "min"}, False, "another objective, val_auc"),
    "no score": (float("nan"), {}, False, "cannot be compared"),
}


@pytest.mark.parametrize("second", quick(SECOND, "better", "equal", "other val"))
def test_only_a_better_one_on_the_same_val_split_takes_the_alias(
    settings: TrackingSettings, tmp_path: Path, second: str
) -> None:
    make_ready(settings)
    score, fields, takes, why = SECOND[second]
    send(write(tmp_path / "a", 0.7), settings)
    told = send(write(tmp_path / "b", score, **fields), settings)
    assert champions(settings) == {"pneumonia-chest": "b" if takes else "a"}
    assert rows("select count(*) from model_versions") == [(2,)]
    assert why in told
    assert ("To promote it: `pneumonia promote b`" in told) is not takes


def test_less_is_better_where_the_objective_says_so(
    settings: TrackingSettings, tmp_path: Path
) -> None:
    make_ready(settings)
    loss: dict[str, Any] = {"objective": "val_loss", "direction": "min"}
    for name, score in (("a", 0.5), ("b", 0.6), ("c", 0.4)):
        send(write(tmp_path / name, score, **loss), settings)
    assert champions(settings) == {"pneumonia-chest": "c"}


def test_scores_of_other_folds_do_not_compare(settings: TrackingSettings, tmp_path: Path) -> None:
    make_ready(settings)
    send(write(tmp_path / "a", 0.5), settings)
    assert "was scored on val alone" in send(write(tmp_path / "b", 0.9, folds=5), settings)
    promote.main(["b", f"tracking.uri={settings.store_uri}"])
    for name, more in {"c": {}, "d": {"folds": 4}, "e": {"folds": 5, "train": "t2"}}.items():
        told = send(write(tmp_path / name, 0.95, **more), settings)
        assert f"was scored on {'other folds' if 'folds' in more else 'folds'}" in told
    told = send(write(tmp_path / "f", 0.91, folds=5), settings)
    assert "val_auc 0.91, 0.9 of models:/pneumonia-chest/2, on the same folds" in told
    assert champions(settings) == {"pneumonia-chest": "f"}


def test_always_and_never(settings: TrackingSettings, tmp_path: Path) -> None:
    make_ready(settings)
    never, always = TrackingSettings(promote="never"), TrackingSettings(promote="always")
    assert "does not take the alias champion: tracking.promote=never." in send(
        write(tmp_path / "a", 0.9), never
    )
    assert champions(settings) == {}
    with pytest.raises(ConfigError, match=r"`pneumonia promote last` makes one.*chest/1"):
        find_model(None, settings)
    send(write(tmp_path / "b", 0.5), settings)
    send(write(tmp_path / "c", 0.4, digest="d2"), always)
    assert champions(settings) == {"pneumonia-chest": "c"}
    send(write(tmp_path / "d", 0.9, digest="d2"), never)
    assert champions(settings) == {"pneumonia-chest": "c"}


def test_what_was_decided_is_not_decided_again(settings: TrackingSettings, tmp_path: Path) -> None:
    make_ready(settings)
    always = TrackingSettings(promote="always")
    told = {name: send(write(tmp_path / name, 0.7), always) for name in ("a", "b")}
    registry.promote("b", settings)
    (tmp_path / "a" / offset.NAME).write_text("damaged")
    assert send(tmp_path / "a", always) == told["a"]
    assert champions(settings) == {"pneumonia-chest": "b"}


def extend(folder: Path, score: float, extension: int) -> None:
    """Give a search another trial, which wins."""
    with closing(Journal(folder)) as journal:
        journal.append("search_extended", params={"tuner.max_trials": 3})
        trial_id = start_trial(journal, 1 + extension)
        end_trial(journal, trial_id, score)
        end_search(journal, trial_id, metrics={"val_auc": score}, extension=extension)


@pytest.mark.slow
def test_a_search_with_more_budget_hands_its_alias_on_or_takes_it(
    settings: TrackingSettings, tmp_path: Path
) -> None:
    make_ready(settings)
    for name, score in (("a", 0.7), ("b", 0.6)):
        send(write(tmp_path / name, score), settings)
    extend(tmp_path / "a", 0.75, 1)
    told = send(tmp_path / "a", TrackingSettings(promote="never"))
    assert "takes the alias champion: its search has it already." in told
    extend(tmp_path / "b", 0.9, 1)
    assert "val_auc 0.9, 0.75 of models:/pneumonia-chest/3" in send(tmp_path / "b", settings)
    assert champions(settings) == {"pneumonia-chest": "b"}
    # All of both comes again: nothing is registered twice, and nothing decided otherwise.
    for name in ("a", "b"):
        (tmp_path / name / offset.NAME).unlink()
        send(tmp_path / name, settings)
    assert champions(settings) == {"pneumonia-chest": "b"}
    assert rows("select count(*) from model_versions") == [(4,)]


def crash(folder: Path, method: str) -> None:
    """Send a search, and die where a method of MLflow's client is called."""
    from mlflow import MlflowClient

    setattr(MlflowClient, method, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    with closing(Consumer(folder, TrackingSettings())):
        pass


@pytest.mark.parametrize("method", ["set_registered_model_alias", slow("set_model_version_tag")])
def test_a_crash_before_or_after_the_alias_leaves_one_decision(
    settings: TrackingSettings, tmp_path: Path, method: str
) -> None:
    make_ready(settings)
    send(write(tmp_path / "a", 0.7), settings)
    second = write(tmp_path / "b", 0.8)
    killed(lambda: crash(second, method))
    assert rows("select count(*) from model_versions") == [(2,)]
    assert "takes the alias champion" in send(tmp_path / "b", settings)
    assert champions(settings) == {"pneumonia-chest": "b"}
    assert rows("select count(*) from model_versions") == [(2,)]


def test_the_best_of_searches_that_end_at_once_is_the_champion(
    settings: TrackingSettings, tmp_path: Path
) -> None:
    make_ready(settings)
    scores = {"a": 0.6, "b": 0.9, "c": 0.7, "d": 0.8}
    folders = [write(tmp_path / name, score) for name, score in scores.items()]
    threads = [threading.Thread(target=send, args=(one, settings)) for one in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert champions(settings) == {"pneumonia-chest": "b"}
    assert rows("select count(*) from model_versions") == [(4,)]


def test_name_and_alias_may_be_others(
    settings: TrackingSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = TrackingSettings(registered_model="lungs", alias="best")
    make_ready(own)
    send(write(tmp_path / "a", 0.7), own)
    told = send(write(tmp_path / "b", 0.6), own)
    assert told.startswith("models:/lungs/2 does not take the alias best: ")
    assert told.endswith("`pneumonia promote b tracking.alias=best`")
    capsys.readouterr()
    assert promote.main(["b", "tracking.alias=best"]) == 0
    assert (
        capsys.readouterr().out
        == "models:/lungs/2 has the alias best, taken from models:/lungs/1.\n"
    )
    assert client(own).get_model_version_by_alias("lungs", "best").tags["dataset"] == "chest"


def test_the_end_of_a_search_tells_what_was_decided(
    settings: TrackingSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, score in (("a", 0.7), ("b", 0.6)):
        with Tracker(write(tmp_path / name, score), settings):
            pass
    first, second = capsys.readouterr().out.strip().split("\n\n")
    assert first == "models:/pneumonia-chest/1 takes the alias champion: no version had it."
    assert second.endswith("To promote it: `pneumonia promote b`")


def test_a_name_for_any_dataset() -> None:
    assert registry.model_name("pneumonia_mnist") == "pneumonia-pneumonia_mnist"
    assert registry.model_name("a/b c:d@e'f") == "pneumonia-a-b-c-d-e-f"
    assert registry.model_name("") == "pneumonia"
    assert len(registry.model_name("x" * 300)) == 256


def test_an_older_champion_keeps_its_alias_and_can_be_taken(
    settings: TrackingSettings, tmp_path: Path
) -> None:
    """As earlier versions registered it: without what it was scored on."""
    old = TrackingSettings(registered_model="pneumonia")
    make_ready(old)
    send(write(tmp_path / "a", 0.7, dataset="phantom"), old)
    for tag in ("score", "val_digest", registry.DECISION):
        client(old).delete_model_version_tag("pneumonia", "1", tag)
    with pytest.raises(ConfigError, match="trained on generated phantoms"):
        find_model(None, old)
    assert "cannot be compared" in send(write(tmp_path / "b", 0.9), old)
    client(old).set_model_version_tag("pneumonia", "1", "dataset", "chest")
    assert find_model(None, old).uri == "models:/pneumonia/1"


def test_a_decision_that_a_user_has_edited_is_made_again(
    settings: TrackingSettings, tmp_path: Path
) -> None:
    make_ready(settings)
    told = send(write(tmp_path / "a", 0.7), settings)
    for text in ("", "[]", "{}", '{"completion": 0}'):
        client(settings).set_model_version_tag("pneumonia-chest", "1", registry.DECISION, text)
        (tmp_path / "a" / offset.NAME).unlink()
        assert send(tmp_path / "a", settings) == told.replace(
            "no version had it", "its search has it already"
        )
