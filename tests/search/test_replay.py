"""What a fork takes over from the search that it was forked from."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pneumonia.artifacts import classifier_key, state_key
from pneumonia.search.replay import Fork
from pneumonia.search.resume import Origin
from pneumonia.search.trials import Proposal
from pneumonia.storage import offset, provenance
from pneumonia.storage.journal import Journal
from pneumonia.storage.offset import Cursor, TrialRun
from pneumonia.storage.search_record import SearchRecord


def config(**dataset: Any) -> dict[str, Any]:
    groups = ("augment", "model", "dense", "optimizer", "training")
    return {"dataset": dataset, **{name: {} for name in groups}}


def begin(folder: Path, *paths: str, **params: Any) -> None:
    """Write the journal of a search, with a trial for each file of images."""
    with closing(Journal(folder)) as one:
        tags = provenance.provenance()
        one.append("search_started", search_id="s1", tags=tags, params=params, datasets=[])
        for number, path in enumerate(paths, start=1):
            trial_id = f"{number:04d}"
            values = {"dataset.path": path, "epochs": 1}
            one.append("trial_started", trial_id=trial_id, number=number, values=values, tags={})
            score = number / 10
            one.append("trial_ended", trial_id=trial_id, status="COMPLETED", score=score,
                       metrics={}, classifier=classifier_key(trial_id), seconds=1.0,
                       reason="", traceback="")  # fmt: skip


def fork(folder: Path, *searched: str, **more: Any) -> Fork:
    origin = Origin(folder, "s1", searched=frozenset(searched))
    return Fork(origin, SearchRecord(folder.parent / "fork"), more.get("fetch"))


def found(one: Fork, path: str) -> str | None:
    return one.find(Proposal("0007", 7, {}, 1), config(path=path))


def test_images_at_several_places_have_trials_of_their_own(tmp_path: Path) -> None:
    begin(tmp_path / "one", "a.npz", "b.npz")
    over = fork(tmp_path / "one", "dataset.path")
    assert [found(over, path) for path in ("a.npz", "b.npz", "c.npz")] == ["0001", "0002", None]


def test_images_that_were_moved_are_the_same(tmp_path: Path) -> None:
    begin(tmp_path / "one", "a.npz")
    assert found(fork(tmp_path / "one"), "moved.npz") == "0001"


def test_classifiers_come_only_where_they_are_kept(tmp_path: Path) -> None:
    asked: list[str] = []

    def fetch(uri: str) -> Path:
        asked.append(uri)
        return tmp_path / "fetched.keras"

    begin(tmp_path / "one", "a.npz", "b.npz")
    here, own = tmp_path / "one" / classifier_key("0001"), tmp_path / "fork"
    here.parent.mkdir()
    for path in (here, tmp_path / "fetched.keras"):
        path.write_text(path.name)
    sent = {"0002": TrialRun("run", model_id="m-2")}
    Cursor("somewhere", trials=sent).save(tmp_path / "one" / offset.NAME)
    over = fork(tmp_path / "one", fetch=fetch)
    for found in ("0001", "0002"):
        outcome = over.bring(found, found, own, with_classifier=False)
        assert (outcome.score, outcome.classifier) == (int(found) / 10, None)
    assert (asked, [path for path in own.rglob("*") if path.is_file()]) == ([], [])
    for found, name in (("0001", "0001.keras"), ("0002", "fetched.keras")):
        key = over.bring(found, found, own, with_classifier=True).classifier
        assert key is not None
        assert (own / key).read_text() == name
    assert asked == ["models:/m-2"]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on a machine where training again gives something else."""
    monkeypatch.setattr(provenance, "other_machine", lambda tags: "this is another machine")


@pytest.mark.usefixtures("elsewhere")
def test_states_come_from_where_the_machines_of_a_search_kept_them(tmp_path: Path) -> None:
    begin(tmp_path / "one", "a.npz", "b.npz", **{"executor.store": f"file://{tmp_path}/shared/"})
    path = tmp_path / "shared" / "s1" / state_key("0002")
    path.parent.mkdir(parents=True)
    path.write_text("state")
    over = fork(tmp_path / "one", "dataset.path")
    assert [found(over, name) for name in ("a.npz", "b.npz")] == [None, "0002"]
    over.bring("0002", "0005", tmp_path / "fork", with_classifier=False)
    files = [path for path in (tmp_path / "fork").rglob("*") if path.is_file()]
    assert files == [tmp_path / "fork" / state_key("0005")]
    assert files[0].read_text() == path.read_text() == "state"


@pytest.mark.usefixtures("elsewhere")
def test_a_store_that_is_gone_has_no_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pneumonia.artifacts._PAUSES", ())
    begin(tmp_path / "one", "a.npz", **{"executor.store": "gone://nowhere"})
    over = fork(tmp_path / "one")
    assert "not trial 1: its state is gone" in over.opening()
    over.bring("0001", "0001", tmp_path / "fork", with_classifier=False)
    assert not (tmp_path / "fork").exists()
