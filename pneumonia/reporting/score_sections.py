"""The parts of a report that tell how good the final classifier is."""

from __future__ import annotations

from collections.abc import Mapping

from pneumonia.errors import UserError
from pneumonia.evaluation import metrics
from pneumonia.evaluation.bootstrap import NAMES
from pneumonia.evaluation.metrics import DECIDED, Estimate, Scores, score_name
from pneumonia.evaluation.thresholds import Decision, decided
from pneumonia.models import classifier_file
from pneumonia.reporting import score_figures, worst_errors
from pneumonia.reporting.page import Matrix, Section
from pneumonia.seeding import BOOTSTRAP, integer
from pneumonia.storage.history import PREDICTIONS
from pneumonia.storage.search_record import Chronicle, Predictions
from pneumonia.tables import Table

SPLITS = ("val", "test")
STANDARD = 0.5
# Draws of all resamples together: a thousand resamples of 20,000 images.
_DRAWS = 20_000_000

Evaluated = Mapping[str, Mapping[float, Scores]]


def thresholds(search: Chronicle) -> dict[str, float]:
    """Return the thresholds to look at by what they are called: 0.5, and the classifier's own."""
    found = {f"at {STANDARD:g}": STANDARD}
    chosen = search.metrics.get("threshold")
    if chosen is not None and chosen != STANDARD:
        rule = (search.started.get("params") or {}).get("threshold.rule", "")
        origin = "chosen on val" if isinstance(rule, str) else "as configured"
        found[f"at {chosen:.3g}, {origin}"] = float(chosen)
    return found


def evaluate(search: Chronicle) -> Evaluated:
    """Return the scores of each split at each threshold, with their intervals."""
    seed = integer(int((search.started.get("params") or {}).get("seed") or 0), BOOTSTRAP)
    found: dict[str, dict[float, Scores]] = {}
    for split in SPLITS:
        one = search.predictions.get(split)
        if one is not None:
            found[split] = {
                threshold: _evaluate(one, threshold, seed)
                for threshold in thresholds(search).values()
            }
    return found


def _evaluate(predictions: Predictions, threshold: float, seed: int) -> Scores:
    resamples = max(200, min(1000, _DRAWS // max(1, len(predictions.labels))))
    labels, p = predictions.labels, predictions.probabilities
    return metrics.evaluate(labels, p, seed=seed, threshold=threshold, resamples=resamples)


def build(
    search: Chronicle, evaluated: Evaluated, *, load: worst_errors.Load | None = None
) -> list[Section]:
    """Return the parts on scores, calibration, confusion and errors.

    Args:
        search: The search.
        evaluated: What `evaluate` gave of it.
        load: Gives the final classifier for heat maps; by default it is read from its file.
    """
    if not evaluated:
        return [_without_predictions(search)]
    sections = [_scores(search, evaluated), _calibration(search, evaluated)]
    if "test" in evaluated:
        sections += [_confusion(search, evaluated["test"]), _errors(search, load)]
    return sections


def _without_predictions(search: Chronicle) -> Section:
    """Return the scores that the journal has, where the predictions are not at hand."""
    text = (
        f"Without {PREDICTIONS} in the search's folder there are no curves, no calibration, no "
        "confusion matrix and no errors to show: the search was broken off, or is of an older "
        "version."
    )
    rows = [
        (score_name(name), f"{e.value:.3f}", f"{e.low:.3f} to {e.high:.3f}")
        for name, e in recorded(search).items()
    ]
    table = Table("Scores on the test split", ("score", "value", "95 % interval"), tuple(rows),
                  (False, True, True))  # fmt: skip
    return Section("scores", "Scores", (text,), tables=(table,) if rows else ())


def recorded(search: Chronicle) -> dict[str, Estimate]:
    """Return the scores on test, at 0.5, that the end of the search has recorded, by name."""
    known = search.metrics
    return {
        name: Estimate(known[key], known.get(f"{key}_low", known[key]),
                       known.get(f"{key}_high", known[key]))
        for name in NAMES
        if (key := f"test_{name}") in known
    }  # fmt: skip


def _scores(search: Chronicle, evaluated: Evaluated) -> Section:
    named = thresholds(search)
    predictions = {split: search.predictions[split] for split in evaluated}
    first = next(iter(evaluated.values()))[STANDARD]
    text = (
        "The test split chose nothing: neither the winner, nor its epoch, nor the threshold. The "
        "winner was chosen by val, whose scores are therefore a little too good."
    )
    note = (
        f"Intervals: 95 %, {first.resamples:,} bootstrap resamples, stratified by class. They "
        "measure the luck of which images are in the split, not that of training."
    )
    return Section(
        "scores",
        "Scores",
        (text,),
        figures=(
            score_figures.roc(predictions, named),
            score_figures.precision_recall(predictions, named),
        ),
        tables=(_scores_table(evaluated, named),),
        notes=(note,),
    )


def _scores_table(evaluated: Evaluated, named: Mapping[str, float]) -> Table:
    rows = []
    for name in NAMES:
        for label, threshold in named.items():
            if name in DECIDED or threshold == STANDARD:
                title = score_name(name) + (f" {label}" if name in DECIDED else "")
                cells = [
                    _cell(scores[threshold].estimates()[name]) for scores in evaluated.values()
                ]
                rows.append((title, *cells))
    columns = tuple(evaluated)
    return Table("Scores with 95 % intervals", ("score", *columns), tuple(rows),
                 (False, *(True for _ in columns)))  # fmt: skip


def _cell(estimate: Estimate) -> str:
    return "undefined" if estimate.value != estimate.value else str(estimate)


def _calibration(search: Chronicle, evaluated: Evaluated) -> Section:
    measured = {
        split: metrics.measure_reliability(one.labels, one.probabilities)
        for split, one in ((split, search.predictions[split]) for split in evaluated)
    }
    briers = {split: scores[STANDARD].brier for split, scores in evaluated.items()}
    told = "; ".join(
        f"on {split}, Brier score {briers[split]}, ECE {one.ece:.3f}"
        for split, one in measured.items()
    )
    texts = [f"{told[:1].upper()}{told[1:]}."]
    temperature = search.metrics.get("temperature")
    if temperature is not None and temperature != 1:
        texts.append(f"The probabilities are scaled by a temperature of {temperature:.3g}, "
                     "fitted on val.")  # fmt: skip
    last = list(evaluated)[-1]
    return Section(
        "calibration",
        "Calibration",
        tuple(texts),
        figures=(
            score_figures.reliability(measured),
            score_figures.histogram(search.predictions[last], search.class_names, last),
        ),
        notes=(
            "ECE: the expected calibration error over ten bins of equal width. Bars are 95 % "
            "Wilson intervals of the share.",
        ),
    )


def _confusion(search: Chronicle, scores: Mapping[float, Scores]) -> Section:
    matrices = []
    for label, threshold in thresholds(search).items():
        counts = scores[threshold].confusion
        cells = (
            (counts.true_negatives, counts.false_positives),
            (counts.false_negatives, counts.true_positives),
        )
        matrices.append(Matrix(f"Test split, {label}", search.class_names, cells))
    text = "Positive is a probability above the threshold; shares are of the true class."
    texts = (text, *_decided(search, scores))
    return Section("confusion", "Confusion", texts, matrices=tuple(matrices))


def _decided(search: Chronicle, scores: Mapping[float, Scores]) -> list[str]:
    """Return how the final classifier decides, as its file says it; nothing without the file."""
    facts = classifier_file.read_facts(search.folder / str(search.ended.get("classifier") or ""))
    names = ("threshold", "rule", "temperature", "statement")
    if not all(name in facts for name in names):
        return []
    decision = Decision(**{name: facts[name] for name in names})
    params = search.started.get("params") or {}
    chosen = list(thresholds(search).values())[-1]
    told = decided(decision, scores[chosen], prevalence=params.get("threshold.prevalence"))
    if params.get("training.retrain"):
        told.append(
            "The final classifier was trained again on train and val. Threshold and temperature "
            "are those of the trial before that, and so are the probabilities shown for val."
        )
    return told


def _errors(search: Chronicle, load: worst_errors.Load | None) -> Section:
    name, threshold = list(thresholds(search).items())[-1]
    title = "Worst errors"
    try:
        pictures = worst_errors.draw(search, threshold, load=load)
    except (UserError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Section("errors", title, (f"The images are not at hand: {reason}",))
    if not pictures:
        return Section("errors", title, (f"No image of the test split was wrong {name}.",))
    texts = [
        f"The images of the test split that were most confidently wrong {name}: at most "
        f"{worst_errors.MOST} that were missed and {worst_errors.MOST} false alarms."
    ]
    if any(picture.heat for picture in pictures):
        texts.append(
            "Beside each image is its Grad-CAM heat map (Selvaraju et al. 2017): what moved the "
            "probability up, as coarse as the backbone's last layer. It does not show where a "
            "disease is."
        )
    else:
        texts.append("There is no classifier at hand that heat maps could be made with.")
    return Section("errors", title, tuple(texts), pictures=tuple(pictures))
