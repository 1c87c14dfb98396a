"""What a fork takes over from the search that it was forked from."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from pneumonia.artifacts import classifier_key
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
