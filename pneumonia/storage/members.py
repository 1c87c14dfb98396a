"""What the final classifier of a search is the mean of, where that is more than one trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pneumonia.tables import Table

BEST_TRIAL = "best_trial"
"""The metric that says what the best trial alone comes to by the objective."""


@dataclass(frozen=True, slots=True)
class Draw:
    """A trial in the order in which it came into the mean; it may come more than once.

    Attributes:
        trial_id: Its name within the search.
        number: Its number within the search, from 1.
        score: What it comes to alone, by the objective: on val, or over the folds.
        log_loss: What it comes to alone, by the log loss there, weighted as in training.
        joined_score: What the mean comes to with it, by the objective.
        joined_log_loss: Likewise by the log loss.
        trainings: Of how many trainings it is the mean itself.
        views: Of how many views of an image.
        image_size: Height and width in pixels of what it looks at; None is what it was trained on.
    """

    trial_id: str
    number: int
    score: float
    log_loss: float
    joined_score: float
    joined_log_loss: float
    trainings: int = 1
    views: int = 1
    image_size: int | None = None

    def fields(self) -> dict[str, Any]:
        """Return it as the journal has it."""
        return asdict(self)


def of_event(event: Mapping[str, Any]) -> tuple[Draw, ...]:
    """Return the members that the end of a search tells of; none where there is one winner."""
    return tuple(Draw(**row) for row in event.get("members") or ())


def told(draws: Sequence[Draw]) -> str:
    """Say what the final classifier is, as `the mean of trials 2 (3/4) and 5 (1/4)`.

    Nothing without draws.
    """
    if not draws:
        return ""
    views, size = draws[0].views, draws[0].image_size
    seen = f", over {views} views of an image" if views > 1 else ""
    return _told(draws) + seen + (f", shown images of {size} pixels" if size else "")


def _told(draws: Sequence[Draw]) -> str:
    counts, first = Counter(draw.number for draw in draws), draws[0]
    if len(counts) < 2 and first.trainings > 1:
        return f"the mean of the {first.trainings} trainings of trial {first.number}"
    if len(counts) < 2:
        return f"trial {first.number} alone"
    *parts, last = (f"{number} ({count}/{len(draws)})" for number, count in counts.items())
    return f"the mean of trials {', '.join(parts)} and {last}"


def table(draws: Sequence[Draw], *, objective: str) -> Table:
    """Return the table of what each member adds."""
    rows = tuple(
        (
            str(draw.number),
            *(f"{value:.4f}" for value in (draw.score, draw.joined_score)),
            *(f"{value:.4f}" for value in (draw.log_loss, draw.joined_log_loss)),
        )
        for draw in draws
    )
    return Table(
        title="Members of the final classifier, in their order",
        header=("trial", f"{objective} alone", "joined", "log loss alone", "joined"),
        rows=rows,
        is_number=(True,) * 5,
        notes=(
            f"It is {told(draws)}. Joined: the mean with those above.",
            "They were chosen by these scores, which are a little too good for that; the log loss "
            "is weighted as in training.",
        ),
    )
