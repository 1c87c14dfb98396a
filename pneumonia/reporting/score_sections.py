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
from pneumonia.reporting.page import Section
from pneumonia.seeding import BOOTSTRAP, integer
from pneumonia.storage.search_folder import SearchFolder
from pneumonia.storage.search_record import SearchRecord
from pneumonia.tables import Table

SPLITS = ("val", "test")
STANDARD = 0.5
# Draws of all resamples together: a thousand resamples of 20,000 images.
_DRAWS = 20_000_000

Evaluated = Mapping[str, Mapping[float, Scores]]


def thresholds(search: SearchRecord) -> dict[str, float]:
    """Return the thresholds to look at by what they are called: 0.5, and the classifier's own."""
    found = {f"at {STANDARD:g}": STANDARD}
    chosen = search.metrics.get("threshold")
    if chosen is not None and chosen != STANDARD:
        is_rule = isinstance(search.params.get("threshold.rule", ""), str)
        origin = f"chosen {_where(search)}" if is_rule else "as configured"
        found[f"at {chosen:.3g}, {origin}"] = float(chosen)
    return found


def _where(search: SearchRecord) -> str:
    return "out of fold" if search.objective.folds else "on val"


def evaluate(search: SearchRecord) -> Evaluated:
    """Return the scores of each split at each threshold, with their intervals."""
    seed = integer(int(search.params.get("seed") or 0), BOOTSTRAP)
    found: dict[str, dict[float, Scores]] = {}
    for split in SPLITS:
        if (one := search.predictions.get(split)) is not None:
            resamples = max(200, min(1000, _DRAWS // max(1, len(one.labels))))
            found[split] = {
                threshold: metrics.evaluate(one.labels, one.probabilities, seed=seed,
                                            threshold=threshold, resamples=resamples)
                for threshold in thresholds(search).values()
            }  # fmt: skip
    return found


def build(
    search: SearchRecord, evaluated: Evaluated, *, load: worst_errors.Load | None = None
) -> list[Section]:
    """Return the parts on scores, calibration, confusion and errors; `load` as of the report."""
    if not evaluated:
        return [_without_predictions(search)]
    sections = [_scores(search, evaluated), _calibration(search, evaluated)]
    if "test" in evaluated:
        sections += [_confusion(search, evaluated["test"]), _errors(search, load)]
    return sections


def _without_predictions(search: SearchRecord) -> Section:
    """Return the scores that the journal has, where the predictions are not at hand."""
    file = SearchFolder(search.folder).predictions
    text = (
        f"Without {file.name} in the search's folder there are no curves, no calibration, no "
        "confusion matrix and no errors to show: the search was broken off, or is of an older "
        "version."
    )
    rows = tuple(
        (score_name(name), f"{e.value:.3f}", f"{e.low:.3f} to {e.high:.3f}")
        for name, e in recorded(search).items()
    )
    header, is_number = ("score", "value", "95 % interval"), (False, True, True)
    tables = [Table("Scores on the test split", header, rows, is_number)]
    return Section("scores", "Scores", [text], tables=tables)


def recorded(search: SearchRecord) -> dict[str, Estimate]:
    """Return the scores on test, at 0.5, that the end of the search has recorded, by name."""
    known = search.metrics
    return {
        name: Estimate(known[key], known.get(f"{key}_low", known[key]),
                       known.get(f"{key}_high", known[key]))
        for name in NAMES
        if (key := f"test_{name}") in known
    }  # fmt: skip


def _scores(search: SearchRecord, evaluated: Evaluated) -> Section:
    named = thresholds(search)
    predictions = {split: search.predictions[split] for split in evaluated}
    first = next(iter(evaluated.values()))[STANDARD]
    text = (
        "The test split chose nothing: neither the winner, nor its epoch, nor the threshold."
        if "test" in evaluated
        else "The test split was not read."
    )
    text += (
        f" The winner was chosen {_where(search)}: scores on val are therefore a little too good."
    )
    note = (
        f"Intervals: 95 %, {first.resamples:,} bootstrap resamples, stratified by class. They "
        "measure the luck of which images are in the split, not that of training."
    )
    return Section(
        "scores",
        "Scores",
        [text],
        figures=[
            score_figures.roc(predictions, named),
            score_figures.precision_recall(predictions, named),
        ],
        tables=[_scores_table(evaluated, named)],
        notes=[note],
    )


def _scores_table(evaluated: Evaluated, named: Mapping[str, float]) -> Table:
    rows = []
    for name in NAMES:
        for label, threshold in named.items():
            if name in DECIDED or threshold == STANDARD:
                title = score_name(name) + (f" {label}" if name in DECIDED else "")
                found = [scores[threshold].estimates()[name] for scores in evaluated.values()]
                rows.append((title, *map(_cell, found)))
    is_number = (False, *(True for _ in evaluated))
    return Table("Scores with 95 % intervals", ("score", *evaluated), tuple(rows), is_number)


def _cell(estimate: Estimate) -> str:
    return "undefined" if estimate.value != estimate.value else str(estimate)


def _calibration(search: SearchRecord, evaluated: Evaluated) -> Section:
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
        scaled = f"The probabilities are scaled by a temperature of {temperature:.3g}"
        texts.append(f"{scaled}, fitted {_where(search)}.")
    last = list(evaluated)[-1]
    figures = [
        score_figures.reliability(measured),
        score_figures.histogram(search.predictions[last], search.class_names, last),
    ]
    note = (
        "ECE: the expected calibration error over ten bins of equal width. Bars are 95 % Wilson "
        "intervals of the share."
    )
    return Section("calibration", "Calibration", texts, figures=figures, notes=[note])


def _confusion(search: SearchRecord, scores: Mapping[float, Scores]) -> Section:
    matrices = []
    for label, threshold in thresholds(search).items():
        one = scores[threshold].confusion
        negative = (one.true_negatives, one.false_positives)
        positive = (one.false_negatives, one.true_positives)
        matrices.append((f"Test split, {label}", (negative, positive)))
    text = "Positive is a probability above the threshold; shares are of the true class."
    texts = [text, *_decided(search, scores)]
    return Section("confusion", "Confusion", texts, matrices=matrices)


def _decided(search: SearchRecord, scores: Mapping[float, Scores]) -> list[str]:
    """Return how the final classifier decides, as its file says it; nothing without the file."""
    facts = classifier_file.read_facts(search.folder / str(search.ended.get("classifier") or ""))
    names = ("threshold", "rule", "temperature", "statement")
    if not all(name in facts for name in names):
        return []
    decision = Decision(**{name: facts[name] for name in names})
    params = search.params
    chosen = list(thresholds(search).values())[-1]
    told = decided(decision, scores[chosen], prevalence=params.get("threshold.prevalence"))
    if folds := params.get("objective.folds"):
        is_new = params.get("training.retrain")
        what = "was trained again on all" if is_new else f"averages the trainings by {folds} folds"
        told.append(
            f"The final classifier {what} of train and val. Threshold and temperature were found "
            "on what the trainings gave for the fold that each was held out of; so are the "
            "probabilities shown for val."
        )
    elif params.get("training.retrain"):
        told.append(
            "The final classifier was trained again on train and val. Threshold and temperature "
            "are those of the trial before that, and so are the probabilities shown for val."
        )
    return told


def _errors(search: SearchRecord, load: worst_errors.Load | None) -> Section:
    name, threshold = list(thresholds(search).items())[-1]
    pictures: list[worst_errors.WrongImage] = []
    try:
        pictures = worst_errors.draw(search, threshold, load=load)
    except (UserError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        texts = [f"The images are not at hand: {reason}"]
    else:
        texts = _told(pictures, name)
    return Section("errors", "Worst errors", texts, pictures=pictures)


def _told(pictures: list[worst_errors.WrongImage], threshold: str) -> list[str]:
    if not pictures:
        return [f"No image of the test split was wrong {threshold}."]
    heat = "There is no classifier at hand that heat maps could be made with."
    if any(picture.heat for picture in pictures):
        heat = (
            "Beside each image is its Grad-CAM heat map (Selvaraju et al. 2017): what moved the "
            "probability up, as coarse as the backbone's last layer. It does not show where a "
            "disease is."
        )
    first = (
        f"The images of the test split that were most confidently wrong {threshold}: at most "
        f"{worst_errors.MOST} that were missed and {worst_errors.MOST} false alarms."
    )
    return [first, heat]
