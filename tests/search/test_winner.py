"""The winner may be the mean of several trials, and is one classifier all the same."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import slow
from omegaconf import OmegaConf
from test_loop import GRID, Doing, Saying, composed, here, lose_all, of, run

from pneumonia.datasets.cache import load_data
from pneumonia.models import classifier_file
from pneumonia.models.predictor import Predictor
from pneumonia.search import crown
from pneumonia.search.trials import Proposal
from pneumonia.storage import members, predictions, search_record
from pneumonia.training import ensemble
from pneumonia.training.trial import Outcome

__all__ = ["here"]  # a fixture

LARGER = ("winner.image_size=48", "model.pooling=avg")
FITS = 'training.executions_per_trial="choice(1, 2)"'
BEST, GREEDY = ({"members": 2, "selection": name} for name in ("best", "greedy"))


def ranked(*values: dict[str, Any]) -> list[tuple[Proposal, Outcome]]:
    return [
        (Proposal(str(number), number, given, 2), Outcome(str(number), score=1 - number / 100))
        for number, given in enumerate(values, start=1)
    ]


def test_candidates_differ_and_have_the_images_of_the_best() -> None:
    values = [{"a": 1, "dataset.b": 2}, {"dataset.b": 2, "a": 1}, {"a": 1, "dataset.b": 3}]
    values += [{"a": number, "dataset.b": 2} for number in range(2, 9)]
    trials = ranked(*values)

    def found(section: dict[str, Any]) -> list[int]:
        return [proposal.number for proposal, _ in crown.candidates(trials, section)]

    assert found({"members": 1, "selection": "greedy"}) == [1]
    assert found(BEST) == [1, 4]
    assert found(GREEDY) == [1, 4, 5, 6, 7, 8] == found(BEST | {"members": 6})
    assert crown.candidates([], BEST) == []
    assert crown.shortfall(trials[:2], BEST) == ""
    assert "winner.members is 2, but only 1" in crown.shortfall(trials[:1], BEST)


@pytest.mark.parametrize(
    "more",
    [
        slow(()),
        ("winner.selection=greedy", "threshold.calibrate=true", *LARGER),
        slow(("training.retrain=true", "winner.flips=true")),
        slow(("training.retrain=true", "winner.flips=true", *LARGER)),
        slow(("objective.folds=2", "winner.flips=true", *LARGER)),
        slow(("objective.folds=2",)),
        slow(
            (
                "objective.folds=2",
                "winner.selection=greedy",
                "threshold.calibrate=true",
                "winner.flips=true",
            )
        ),
        slow(("objective.folds=2", "training.retrain=true", FITS)),
    ],
)
def test_the_best_trials_become_one_classifier(more: tuple[str, ...], here: Path) -> None:
    several, folder, saying = (*GRID, "winner.members=4", *more), here / "a", Saying()
    events = run(folder, *several, callbacks=[saying])
    (end,) = of(events, "search_ended")
    draws = members.of_event(end)
    is_greedy, has_folds = "winner.selection=greedy" in more, "objective.folds=2" in more
    assert 0 < len(draws) <= 4
    assert len(draws) == 3 or is_greedy
    assert "only 3 of the trials" in " ".join(saying.lines)
    assert of(events, "training_repeated") == []
    scores = {event["trial_id"]: event["score"] for event in of(events, "trial_ended")}
    best = max(scores.values())
    # A trial's own is the mean of its fits, on whole images.
    if FITS not in more and not {"flips", "image_size"} & {
        re.split("[.=]", one)[1] for one in more
    }:
        assert {one.trial_id: one.score for one in draws} == pytest.approx(
            {one.trial_id: scores[one.trial_id] for one in draws}
        )
    assert end["metrics"]["val_auc"] == draws[-1].joined_score
    assert end["metrics"]["best_trial"] == best
    assert "val_auc_std" not in end["metrics"]
    assert ("best_trial_std" in end["metrics"]) == has_folds
    told = members.told(draws)
    assert end["classifier"] == "classifier.keras"
    facts = classifier_file.read_facts(folder / "classifier.keras")
    assert facts["members"] == told
    assert ("shown images of 48 pixels" in told) == ("winner.image_size=48" in more)
    preset = (folder / "best.yaml").read_text()
    assert f"# The final classifier of the search is {told}." in preset
    assert ("flips: true" in preset) == ("winner.flips=true" in more)
    assert ("  image_size: 4" in preset) == any("winner.image_size" in one for one in more)
    # What the file gives is what was written of it.
    section = OmegaConf.to_container(composed(several).dataset, resolve=True)
    data, predictor = load_data({"dataset": section}), Predictor.load(folder / "classifier.keras")
    written = predictions.read(folder / "predictions.csv")
    is_held_out = has_folds or "training.retrain=true" in more
    for split in (data.test, *(() if is_held_out else (data.val,))):
        found = predictor.predict(list(split.images.read(np.arange(20))))
        np.testing.assert_allclose(found, written[split.name].probabilities, atol=1e-5)
    assert predictor.temperature == end["metrics"]["temperature"]
    assert (predictor.temperature != 1) == is_greedy
    assert search_record.read(folder).winner().score == best  # type: ignore[union-attr]


@pytest.mark.parametrize("more", [(), slow(("objective.folds=2", "winner.flips=true"))])
def test_lost_states_are_made_again_to_the_same(more: tuple[str, ...], here: Path) -> None:
    several = (*GRID, "winner.members=2", *more)
    whole = run(here / "a", *several)
    again = run(here / "b", *several, callbacks=[Doing(lose_all)])
    draws = members.of_event(whole[-1])
    assert members.of_event(again[-1]) == draws
    assert [e["trial_id"] for e in of(again, "training_repeated")] == [d.trial_id for d in draws]
    one, other = ((here / name / "predictions.csv").read_bytes() for name in "ab")
    assert one == other


@pytest.mark.parametrize(("limit", "fits"), [slow(1, 1), (3, 1), slow(5, 2)])
def test_the_preset_of_what_was_stopped_trains_what_its_score_is_of(
    limit: int, fits: int, here: Path
) -> None:
    more = (*GRID[:-1], "training.executions_per_trial=3", "dense.dropout=0.1")
    (end,) = of(run(here / "a", *more, f"budget.epochs={limit}"), "search_ended")
    preset = OmegaConf.load(here / "a" / "best.yaml")
    assert preset.training.executions_per_trial == fits
    assert preset.tuner.max_epochs == min(limit, 2)
    more = (f"training.executions_per_trial={fits}", f"tuner.max_epochs={min(limit, 2)}")
    (again,) = of(run(here / "b", *GRID[:-1], "dense.dropout=0.1", *more), "search_ended")
    assert again["metrics"]["val_auc"] == end["metrics"]["val_auc"]


def test_one_trial_is_the_mean_of_its_trainings() -> None:
    one = members.Draw("3", 3, 0.9, 0.1, 0.9, 0.1)
    assert members.told([one, one]) == "trial 3 alone"
    seen = members.told([replace(one, views=2, image_size=48)])
    assert seen == "trial 3 alone, over 2 views of an image, shown images of 48 pixels"
    several = replace(one, trainings=5)
    assert members.told([several, several]) == "the mean of the 5 trainings of trial 3"
    other = replace(several, number=4)
    assert members.told([several, other]) == "the mean of trials 3 (1/2) and 4 (1/2)"
    table = members.table([several], objective="val_auc over 5 folds")
    assert table.notes[0].startswith("It is the mean of the 5 trainings of trial 3.")


def test_a_mean_that_is_no_gain_is_told() -> None:
    config = {"objective": {"name": "val_loss", "direction": "min"}}
    draw = members.Draw("3", 3, 0.5, 0.5, 0.3, 0.3, image_size=48)
    best = crown.Crowned(config, (), None, np.zeros(1), (draw,))  # type: ignore[arg-type]
    assert crown.setback(Outcome("3", score=0.4), best) == ""
    told = crown.setback(Outcome("3", score=0.2), best)
    assert told.startswith("the final classifier, trial 3 alone, shown images of 48 pixels, comes")
    assert told.endswith(
        "to val_loss 0.3000; the best trial alone, shown what it was trained on, to 0.2000"
    )
    assert crown.setback(Outcome("3", score=0.2), replace(best, draws=())) == ""


def test_trials_count_alike_however_often_each_was_trained() -> None:
    assert ensemble.even([2, 1, 1], [4, 6, 4]) == [6, 2, 3]
    assert ensemble.even([2, 1], [5, 5]) == [2, 1]
