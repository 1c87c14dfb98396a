"""The figures, rendered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from families import slow
from matplotlib.figure import Figure
from PIL import Image

from pneumonia.evaluation import metrics, plots
from pneumonia.evaluation.plots import LearningCurve

CLASSES = ("normal", "pneumonia")


def sample(size: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(size) % 3 > 0
    return y.astype(np.int64), (1 / (1 + np.exp(-(rng.normal(size=size) + 2 * y - 1)))).astype("f4")


def rendered(figure: Figure, folder: Path) -> np.ndarray:
    with Image.open(plots.save(figure, folder / "figure.png")) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def texts(figure: Figure) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize(
    "draw",
    [
        lambda y, s, scores: plots.confusion_matrix(scores, CLASSES),
        plots.roc,
        plots.precision_recall,
        plots.calibration,
    ],
    ids=["confusion_matrix", "roc", "precision_recall", "calibration"],
)
@pytest.mark.parametrize("kind", ["usual", slow("perfect"), "one class", "nan", slow("constant")])
def test_figures_of_scores_are_drawn_whatever_the_scores(draw, kind: str, tmp_path: Path) -> None:
    y, score = sample()
    if kind == "perfect":
        score = y.astype(np.float32)
    if kind == "one class":
        y = np.ones_like(y)
    if kind == "nan":
        score[3] = np.nan
    if kind == "constant":
        score[:] = 0.2
    scores = metrics.evaluate(y, score, seed=1, resamples=20)
    pixels = rendered(draw(y, score, scores), tmp_path)
    assert pixels.shape[0] >= 600
    assert pixels.shape[1] >= 600
    assert 0.005 < (pixels < 200).any(axis=2).mean() < 0.9


def test_the_confusion_matrix_tells_counts_shares_and_intervals() -> None:
    y, score = [0, 0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.9, 0.8, 0.2]
    scores = metrics.evaluate(y, score, seed=1)
    shown = texts(plots.confusion_matrix(scores, CLASSES))
    for text in ("normal", "pneumonia", "3", "75.0%", "25.0%", "50.0%", "threshold 0.5"):
        assert text in shown
    assert f"({scores.specificity.low:.1%} to {scores.specificity.high:.1%})" in shown


def test_the_roc_curve_ends_at_both_corners_and_passes_through_the_threshold() -> None:
    y, score = sample()
    scores = metrics.evaluate(y, score, seed=1)
    axes = plots.roc(y, score, scores).axes[0]
    curve = axes.get_lines()[1].get_xydata()
    assert curve[0].tolist() == [0, 0]
    assert curve[-1].tolist() == [1, 1]
    point = [1 - scores.specificity.value, scores.sensitivity.value]
    assert np.abs(curve - point).sum(axis=1).min() < 1e-12
    assert f"AUC {scores.auc}" in texts(axes.figure)


def test_the_area_under_the_drawn_precision_is_the_average_precision() -> None:
    y, score = sample()
    scores = metrics.evaluate(y, score, seed=1)
    recall, precision = plots.precision_recall(y, score, scores).axes[0].get_lines()[1].get_data()
    area = (np.diff(recall) * precision[1:]).sum()
    assert area == pytest.approx(scores.average_precision.value)


def test_calibration_shows_the_share_of_positives_in_each_bin() -> None:
    y, score = [0, 1, 1, 1], [0.12, 0.18, 0.95, 1.0]
    figure = plots.calibration(y, score, metrics.evaluate(y, score, seed=1))
    points = figure.axes[0].get_lines()[-1].get_xydata()
    np.testing.assert_allclose(points, [[0.15, 0.5], [0.975, 1.0]])
    assert [bar.get_height() for bar in figure.axes[1].patches] == [0, 2, 0, 0, 0, 0, 0, 0, 0, 2]


def histories(count: int) -> list[LearningCurve]:
    epochs = [1, 2, 3]
    values = {"auc": [0.8, 0.9, 0.95], "val_auc": [0.7, 0.8, 0.85]}
    losses = {"loss": [0.6, 0.5, 0.4], "val_loss": [0.7, 0.6, 0.5]}
    return [LearningCurve(f"trial {n}", epochs, values | losses) for n in range(1, count + 1)]


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, 1), (3, 3), (9, 6)])
def test_learning_curves_show_the_best_trials(count: int, shown: int, tmp_path: Path) -> None:
    figure = plots.learning_curves(histories(count))
    assert [axes.get_ylabel() for axes in figure.axes] == ["val_auc", "val_loss"][: 1 + bool(count)]
    assert all(len(axes.get_lines()) == 2 * shown for axes in figure.axes)
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert labels == [f"trial {n}" for n in range(1, shown + 1)]
    assert rendered(figure, tmp_path).min() < 100


def test_learning_curves_of_a_loss_have_one_panel() -> None:
    assert len(plots.learning_curves(histories(2), "val_loss").axes) == 1


def images(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(28, 28, 1), (40, 90, 3), (120, 30, 1), (30, 30)]
    return [rng.integers(0, 256, shapes[n % 4], dtype=np.uint8) for n in range(count)]


@pytest.mark.parametrize("count", [1, 5, 6, 13])
def test_the_error_sheet_shows_every_image(count: int, tmp_path: Path) -> None:
    labels, scores = np.arange(count) % 2, np.linspace(0, 1, count)
    names = [f"test/{n}" for n in range(count)]
    sheet = plots.error_sheet(images(count), labels, scores, names, class_names=CLASSES)
    assert sum(len(axes.get_images()) for axes in sheet.axes) == count
    assert sheet.axes[0].get_title(loc="left") == "normal\np = 0.000\ntest/0"
    pixels = rendered(sheet, tmp_path)
    assert pixels.shape[0] > 300 * -(-count // 6)
    assert pixels.std() > 30


def test_the_error_sheet_says_where_there_is_nothing_to_show(tmp_path: Path) -> None:
    sheet = plots.error_sheet([], [], [], [], class_names=CLASSES)
    assert "No image was wrong." in texts(sheet)
    assert rendered(sheet, tmp_path).min() < 100


@pytest.mark.parametrize("name", ["$x$_y$", "a\\frac{", "肺炎.png", "x" * 80, "tab\t.png", "a\nb"])
def test_any_name_can_be_drawn(name: str, tmp_path: Path) -> None:
    y, score = sample(20)
    sheet = plots.error_sheet(images(1), [1], [0.1], [name], class_names=(name, name))
    matrix = plots.confusion_matrix(metrics.evaluate(y, score, seed=1), (name, name))
    rendered(sheet, tmp_path)
    rendered(matrix, tmp_path)


def test_saving_leaves_the_old_file_and_no_other_where_drawing_fails(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    figure = Figure()
    figure.text(0.5, 0.5, "$\\nonsense$")
    with pytest.raises(ValueError, match="nonsense"):
        plots.save(figure, path)
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]
    assert path.read_bytes() == b"old"


def test_saving_makes_the_folder_and_a_file_that_others_can_read(tmp_path: Path) -> None:
    path = plots.save(plots.learning_curves(histories(1)), tmp_path / "plots" / "curves.png")
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in path.parent.iterdir()] == ["curves.png"]


def test_pyplot_and_its_global_state_are_not_imported() -> None:
    code = "import sys, pneumonia.evaluation.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
