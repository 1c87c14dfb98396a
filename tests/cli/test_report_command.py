"""The command that writes reports again."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import finished

from pneumonia.cli import report
from pneumonia.storage.search_folder import SearchFolder


def test_the_command_writes_a_report_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished(tmp_path / "search")
    assert report.main([str(folder)]) == 0
    assert Path(capsys.readouterr().out.strip()) == folder / "report.html"
    monkeypatch.chdir(tmp_path)
    assert report.main([str(folder), "output=~x.html"]) == 0
    assert (tmp_path / "~x.html").exists()


def test_the_last_search_or_one_by_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = finished(Path("outputs") / "a")
    for name in ("last", str(SearchFolder(folder).first_event()["search_id"])):
        assert report.main([name]) == 0
        assert Path(capsys.readouterr().out.strip()) == folder / "report.html"


def test_the_command_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        (finished(Path("sweep") / str(seed), seed=seed) / "report.html").touch()
    assert report.main(["sweep"]) == 0
    assert report.main(["sweep/0", "sweep/1"]) == 0
    assert capsys.readouterr().out == "sweep/report.html\ncomparison.html\n"
    assert '<a href="sweep/0/report.html">' in Path("comparison.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "No search is named"),
        (
            ["nowhere"],
            "nowhere: expected the folder of a search, the id of one under outputs, or `last`.",
        ),
        (["."], "expected a search in it, a folder with a journal.jsonl"),
        ([".", "out=x"], "`out`: expected one of the keys output. Received: 'out=x'."),
        *(
            ([name, f"output={output}"], "`output`: expected a file in an existing folder.")
            for name in ("search", ".")
            for output in ("nodir/x.html", "search")
        ),
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
    if any("output=" in argument for argument in arguments):
        finished(tmp_path / "search")
    assert report.main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--help"]) == 0
    assert "pneumonia report SEARCH..." in capsys.readouterr().out
