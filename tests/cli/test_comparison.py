"""Two searches' predictions of one test split, from files of the form that a search logs."""

from __future__ import annotations

import csv
import io
import json
import shlex
from dataclasses import replace

import numpy as np
import pytest

from pneumonia import files
from pneumonia.cli import comparison
from pneumonia.errors import UserError
from pneumonia.evaluation.significance import delong, mcnemar
from pneumonia.tracking.runs import Run

LABELS = np.arange(200) % 5 < 3


def run(name: str, *, digest: str = "d", **metrics: float) -> Run:
    return Run(name * 32, f"search {name}", "FINISHED", 0, 1.0, {}, metrics, {}, {"test": digest})


def predictions(seed: int, strength: float, *, labels: np.ndarray = LABELS) -> str:
    rng = np.random.default_rng(seed)
    values = 1 / (1 + np.exp(-rng.normal(size=len(labels)) - strength * (labels - 0.5)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("split", "name", "label", "probability"))
    writer.writerow(("val", "test/0.png", 1, 0.5))
    for number, (label, value) in enumerate(zip(labels, values, strict=True)):
        writer.writerow(("test", f"test/{number}.png", int(label), np.float32(value)))
    return text.getvalue()


def test_a_comparison_is_the_two_tests_of_what_was_read() -> None:
    texts = predictions(0, 4.0), predictions(1, 1.0)
    # The order of the lines does not matter.
    head, *lines = texts[1].splitlines()
    shuffled = "\n".join([head, *reversed(lines)])
    first = comparison.read(texts[0], run("a"))
    second = comparison.read(shuffled, run("b", threshold=0.4))
    found = comparison.compare(first, second)
    rows = list(csv.DictReader(io.StringIO(texts[0])))[1:]
    order = np.argsort([row["name"] for row in rows])
    values = [
        np.array([float(row["probability"]) for row in csv.DictReader(io.StringIO(text))][1:])
        for text in texts
    ]
    positive = LABELS[order]
    assert found.scores["AUC"] == delong(positive, values[0][order], values[1][order])
    right = [(values[0] > 0.5) == LABELS, (values[1] > 0.4) == LABELS]
    assert found.scores["accuracy"] == mcnemar(right[0][order], right[1][order])
    text = str(comparison.render(found, "table"))
    assert text.startswith("bbbbbbbb against aaaaaaaa on 200 test images, 120 positive\n")
    assert "The AUC differs beyond chance (p < 0.001)." in text
    assert "Positive is a probability above 0.5 and 0.4." in text
    body = json.loads(comparison.render(found, "json"))
    assert body["auc"]["p"] == found.scores["AUC"].p
    assert body["accuracy"]["interval"] == [
        found.scores["accuracy"].low,
        found.scores["accuracy"].high,
    ]
    text = comparison.render(found, "csv")
    (line,) = [one for one in text.splitlines() if one.startswith("auc,")]
    assert float(line.split(",")[3]) == found.scores["AUC"].value


def test_a_threshold_for_both_and_no_difference() -> None:
    text = predictions(0, 4.0)
    first, second = (
        comparison.read(text, run(name, threshold=0.1), threshold=0.7) for name in "ab"
    )
    found = comparison.compare(first, second)
    assert (found.scores["AUC"].p, found.scores["accuracy"].p) == (1.0, 1.0)
    shown = str(comparison.render(found, "table"))
    assert "The AUC does not differ beyond chance (p = 1.000 >= 0.05)." in shown
    assert "above 0.7 and 0.7" in shown


def test_what_is_undefined_is_null_in_json() -> None:
    text = predictions(0, 4.0, labels=np.ones(9, bool))
    first, second = (comparison.read(text, run(name)) for name in "ab")
    body = json.loads(comparison.render(comparison.compare(first, second), "json"))
    assert body["auc"]["p"] is None
    assert body["auc"]["interval"] == [None, None]
    assert body["accuracy"]["p"] == 1.0


def test_other_data_other_images_or_other_labels_do_not_compare() -> None:
    first = comparison.read(predictions(0, 1.0), run("a"))
    with pytest.raises(UserError, match=r"same test split.*digests d and e"):
        comparison.compare(first, replace(first, digest="e"))
    with pytest.raises(UserError, match="same images"):
        comparison.compare(first, replace(first, names=(*first.names[:-1], "x")))
    with pytest.raises(UserError, match="same images with the same labels"):
        comparison.compare(first, replace(first, positive=~first.positive))


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n", "split,name,label,probability\nval,a,1,0.5\n",
     "split,name,label,probability\ntest,a,1,many\n",
     "split,name,label,probability\ntest,a,1,nan\n",
     "split,name,label,probability\ntest,a,1\n"],
)  # fmt: skip
def test_a_file_that_is_something_else(text: str) -> None:
    with pytest.raises(UserError, match=r"predictions.csv of the search aaaaaaaa cannot be read"):
        comparison.read(text, run("a"))


def test_a_search_without_predictions_says_how_to_get_them() -> None:
    message = str(comparison.missing(run("a"), ("last", "b")))
    assert "`pneumonia compare export=aaaaaaaa output=again.yaml`" in message
    store = ("tracking.uri=sqlite:///a b.db", "tracking.experiment=it's")
    export, train = comparison.commands_again(run("a"), "last/7", "it.yaml", store)
    assert shlex.split(export) == [
        "pneumonia",
        "compare",
        "export=last/7",
        "output=it.yaml",
        *store,
    ]
    assert shlex.split(train) == ["pneumonia", "experiment=it.yaml", *store]


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.5, "0.500"), (0.0391, "0.039"), (0.00049, "< 0.001"), (float("nan"), "undefined")],
)
def test_p_values(p: float, text: str) -> None:
    assert comparison.p_text(p) == text


def test_names_that_look_like_formulas_or_hold_line_ends_are_read_as_they_are() -> None:
    names = ["=a/1.png", "'-b/1.png", "c\rd.png", "e\r\nf.png"]
    rows = [("test", name, n % 2, 0.1 * n) for n, name in enumerate(names)]
    text = files.as_csv([("split", "name", "label", "probability"), *rows])
    assert comparison.read(text, run("a")).names == tuple(sorted(names))
