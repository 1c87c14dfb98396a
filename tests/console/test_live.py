"""The picture at all sizes, without a terminal."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from rich.cells import cell_len

from pneumonia.console.live import Picture, Scene, head, sparkline, table

NAMES = ("dense.units", "dense.dropout", "optimizer.learning_rate")
SCENE = Scene(
    line="trial 14 of 23 · epoch 7/20 · val_auc 0.9731 · best 0.9822 · about 0:08 left",
    trial="trial 14 of 23",
    share=138 / 226,
    times=("about 0:08 left", "0:12 elapsed", "138 of 226 epochs"),
    state=("epoch 7/20", "val_auc 0.9731", "best 0.9822"),
    curve=(0.8, 0.9, 0.95, 0.94, 0.96, 0.97, 0.9731),
    values=("dense.units=512", "dense.dropout=0.3", "optimizer.learning_rate=0.001235"),
    header=("trial", "val_auc", "epoch", "time", *NAMES),
    rows=tuple(
        (str(n), f"0.98{9 - n}0", "12", "0:03", "512", "0.3", "0.001235") for n in range(1, 6)
    ),
)


@pytest.fixture(autouse=True)
def _term(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def plain(lines: list[str]) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


def test_at_eighty_columns() -> None:
    assert plain(Picture().lines(SCENE, 80, 24)) == [
        "",
        "trial 14 of 23 ━━━━━━━━━━━━━━━╸──────────  61% · about 0:08 left · 0:12 elapsed",
        "epoch 7/20 · val_auc 0.9731 · best 0.9822  ▁▅▇▇███",
        "dense.units=512 dense.dropout=0.3 optimizer.learning_rate=0.001235",
        "",
        "                             dense.   dense.     optimizer.",
        "trial  val_auc  epoch  time   units  dropout  learning_rate",
        "    1   0.9880     12  0:03     512      0.3       0.001235",
        "    2   0.9870     12  0:03     512      0.3       0.001235",
        "    3   0.9860     12  0:03     512      0.3       0.001235",
        "    4   0.9850     12  0:03     512      0.3       0.001235",
        "    5   0.9840     12  0:03     512      0.3       0.001235",
    ]


def test_at_sixty_columns_nothing_that_matters_is_lost() -> None:
    lines = plain(Picture().lines(SCENE, 60, 24))
    assert lines[1] == "trial 14 of 23 ━━━━━━━━━━━━╸────────  61% · about 0:08 left"
    assert lines[3].endswith("optimizer.learning_rate=…")
    assert lines[6] == "trial  val_auc  epoch  time   units  dropout  learning_rate"


def test_a_wide_terminal_has_room_for_whole_names_and_the_epochs() -> None:
    lines = plain(Picture().lines(SCENE, 140, 24))
    assert lines[1].endswith("0:12 elapsed · 138 of 226 epochs")
    assert lines[5].endswith("dense.units  dense.dropout  optimizer.learning_rate")


@pytest.mark.parametrize("columns", [1, 2, 10, 39, 40, 47, 60, 80, 81, 200])
@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 11, 12, 13, 50])
def test_it_never_fills_the_terminal(columns: int, rows: int) -> None:
    wide = replace(SCENE, values=("model.name=肺炎" * 40,), rows=(("肺" * 30,) * 7,))
    for scene in (SCENE, wide, Scene(), replace(SCENE, share=None), replace(SCENE, share=1.7)):
        lines = plain(Picture().lines(scene, columns, rows))
        assert all(cell_len(line) < max(2, columns) for line in lines)
        assert len(lines) < max(2, rows)


def test_colors_are_left_out_where_nobody_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    colored = re.compile(r"\x1b\[[0-9;]*3[0-7]")
    assert colored.search("".join(Picture().lines(SCENE, 80, 24)))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colored.search("".join(Picture().lines(SCENE, 80, 24)))


def test_what_would_move_the_cursor_is_replaced() -> None:
    scene = replace(SCENE, state=("a\x1b[2Jb\nc\td",), line="a\x1b[2J")
    assert [text.plain for text in head(scene, 200)][1].startswith("a?[2Jb?c?d")
    assert plain(Picture().lines(scene, 20, 5)) == ["a?[2J"]


def test_columns_that_have_no_room_are_left_out_from_the_end() -> None:
    lines = [text.plain for text in table(SCENE, 45, 10)]
    assert lines[1] == "trial  val_auc  epoch  time   units  dropout"
    assert [text.plain for text in table(SCENE, 10, 10)][1] == "trial  va…"


@pytest.mark.parametrize(
    ("values", "most", "expected"),
    [
        ([], 5, ""),
        ([0.5], 5, "▄"),
        ([0.5, 0.5], 5, "▄▄"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([1, float("nan"), 0, float("inf")], 5, "█ ▁ "),
        ([float("nan")], 5, ""),
        (list(range(100)), 4, "▁▃▆█"),
        ([3, 1], 1, "▄"),
        ([3, 1], 0, ""),
        ([3, 1], -1, ""),
    ],
)
def test_sparkline(values: list[float], most: int, expected: str) -> None:
    assert sparkline(values, most) == expected
