"""`pneumonia report`: a page again, or one that compares."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import finished

from pneumonia.cli import report
from pneumonia.reporting.report import NAME


def test_the_command_writes_a_report_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = finished(tmp_path / "a")
    assert report.main([str(folder)]) == 0
    assert Path(capsys.readouterr().out.strip()) == Path("a") / NAME
    assert report.main([str(folder), "output=~x.html"]) == 0
    assert (tmp_path / "~x.html").exists()


def test_the_command_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("0", "1"):
        finished(tmp_path / "sweep" / name)
    assert report.main(["sweep"]) == 0
    assert report.main(["sweep/0", "sweep/1"]) == 0
    assert capsys.readouterr().out == "sweep/report.html\ncomparison.html\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "No folder is named"),
        (["nowhere"], "nowhere: expected the folder of a search. Received: no folder."),
        (["."], "expected a search in it, a folder with a journal.jsonl"),
        ([".", "out=x"], "`out`: expected one of the keys output. Received: 'out=x'."),
        ([".", "--output=x"], "Keys are written without dashes: output=x."),
    ],
)
def test_mistakes_in_the_command(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert report.main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
