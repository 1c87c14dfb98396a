"""Tables, commands and the note."""

from __future__ import annotations

import io
import os
import re
import select

import pytest

from pneumonia import tables
from pneumonia.console import summary
from pneumonia.console.summary import Row
from pneumonia.evaluation import metrics
from pneumonia.tables import Table

ROWS = [
    Row(7, 0.98221, {"dense.units": 512, "lr": 0.00123456, "seed": 1}, epoch=6, seconds=41),
    Row(2, 0.97, {"dense.units": 64, "lr": 0.01, "seed": 1}, epoch=12, seconds=3723),
    Row(1, 0.96, {"dense.units": 64, "lr": 0.01, "seed": 1}, epoch=3, seconds=5),
    Row(3, 0.5, {"dense.units": 64, "momentum": 0.9, "seed": 1}, epoch=1, seconds=4),
]
Y, SCORE = [0, 0, 0, 0, 1, 1, 1, 1], [0.1, 0.2, 0.3, 0.9, 0.8, 0.2, 0.7, 0.6]


def test_the_best_trials_as_plain_text() -> None:
    table = summary.best_table(ROWS, objective="val_auc", failed=2)
    assert str(table) == (
        "4 trials by val_auc, the best first\n"
        "\n"
        "trial  val_auc  epoch     time  dense.units        lr  momentum\n"
        "-----  -------  -----  -------  -----------  --------  --------\n"
        "    7   0.9822      6     0:41          512  0.001235         -\n"
        "    2   0.9700     12  1:02:03           64      0.01         -\n"
        "    3   0.5000      1     0:04           64         -       0.9\n"
        "\n"
        "The same in all: seed=1.\n"
        "2 trials came to no score.\n"
    )


def test_what_is_unknown_has_no_column_and_what_is_not_shown_is_counted() -> None:
    rows = [Row(n, 0.9, {"name": f"n{n}"}) for n in range(1, 4)]
    assert str(summary.best_table(rows, objective="val_auc", limit=2)) == (
        "3 trials by val_auc, the best first\n"
        "\n"
        "trial  val_auc  name\n"
        "-----  -------  ----\n"
        "    1   0.9000  n1\n"
        "    2   0.9000  n2\n"
        "\n"
        "1 more trial with other hyperparameters not shown.\n"
    )


def test_a_single_trial_without_hyperparameters_has_a_table() -> None:
    table = summary.best_table([Row(1, 0.9, {})], objective="val_auc")
    assert table.header == ("trial", "val_auc")
    assert table.title == "1 trial by val_auc, the best first"
    assert table.notes == ()


def test_the_scores_with_their_intervals_and_counts() -> None:
    scores = metrics.evaluate(Y, SCORE, seed=1)
    text = str(summary.scores_table(scores))
    low, high = scores.auc.low, scores.auc.high
    assert re.search(rf"^AUC +{scores.auc.value:.3f}  {low:.3f} to {high:.3f}$", text, re.M)
    assert re.search(r"^balanced accuracy +0\.750 ", text, re.M)
    assert "Of 4 positive images, 3 found and 1 missed; " in text
    assert "of 4 negative images, 3 cleared and 1 false alarms." in text
    assert "above 0.5. Intervals: 1,000 bootstrap resamples, stratified by class." in text
    assert "without width" not in text


def test_an_undefined_score_and_an_interval_without_width_are_told() -> None:
    text = str(summary.scores_table(metrics.evaluate([1, 1], [0.9, 0.8], seed=1)))
    assert re.search(r"^AUC +undefined$", text, re.M)
    assert "An interval without width only says" in text


def test_the_next_commands() -> None:
    assert summary.next_commands("outputs/x/best.yaml") == (
        "What comes next\n"
        "\n"
        "  make ui                                   look at the results in a browser\n"
        "  pneumonia predict IMAGE...                get probabilities for image files\n"
        "  pneumonia experiment=outputs/x/best.yaml  train the winner again, to the same score\n"
    )
    given = summary.next_commands("best.yaml", model="models:/m-1")
    assert "pneumonia predict IMAGE... model=models:/m-1 " in given
    assert "predict" not in summary.next_commands("best.yaml", model="")


def test_the_note_has_the_winner_the_scores_and_the_warning() -> None:
    scores = metrics.evaluate(Y, SCORE, seed=1)
    note = summary.description(
        ROWS, summary.scores_table(scores), objective="val_auc", facts={"Dataset": "phantom"}
    )
    assert note.startswith("**Not for clinical use")
    assert "### Winner: trial 7, val_auc 0.9822" in note
    assert "- `lr`: 0.001235" in note
    assert "| score | value | 95 % interval |\n| :--- | ---: | ---: |\n| AUC |" in note
    assert "- Dataset: phantom" in note


def test_a_bar_in_a_cell_does_not_end_it_in_markdown() -> None:
    table = Table("t", ("a", "b"), (("x|y", "1"),), (False, True))
    assert table.markdown().splitlines()[-1] == "| x\\|y | 1 |"


def test_shown_in_a_file_it_is_plain_text() -> None:
    stream = io.StringIO()
    table = summary.best_table(ROWS, objective="val_auc")
    tables.show(table, "text\n", stream=stream)
    assert stream.getvalue() == f"\n{table}\ntext\n"


@pytest.mark.parametrize(("encoding", "rule"), [("utf-8", "─"), ("ascii", "-")])
@pytest.mark.parametrize("columns", [20, 60, 120])
def test_shown_on_a_terminal_it_fits(
    encoding: str, rule: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("pneumonia.terminal.width", lambda _: columns)
    near, far = os.openpty()
    with os.fdopen(far, "w", encoding=encoding) as stream:
        rows = [*ROWS, Row(9, 0.4, {"dense.activation": "[bold]relu[/bold]"})]
        tables.show(summary.best_table(rows, objective="val_auc"), stream=stream)
        data = b""
        while select.select([near], [], [], 0.05)[0]:
            data += os.read(near, 100_000)
    shown = data.decode()
    os.close(near)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert "\x1b[1m" in shown
    assert any(rule * 3 in line for line in lines)
    assert all(len(line) <= columns for line in lines)
    if columns == 120:
        assert "[bold]relu[/bold]" in shown


def test_a_closed_stream_is_no_error() -> None:
    stream = io.StringIO()
    stream.close()
    tables.show("text", stream=stream)
