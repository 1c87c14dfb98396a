"""The pages: what they hold, what they cannot be made to do, and the command that writes them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made import RANGES, Made, finished

from pneumonia.errors import UserError
from pneumonia.evaluation.thresholds import Decision
from pneumonia.reporting import page, report, score_sections
from pneumonia.shell import shown
from pneumonia.storage import search_record
from pneumonia.storage.members import Draw

SECTIONS = (
    *("summary", "trials", "importance", "course", "hyperband", "learning", "scores"),
    *("calibration", "confusion", "errors", "data", "time", "failures", "provenance"),
)
NASTY = '</script><img src=x onerror="window.pwned=1"><b>&'


class Page(HTMLParser):
    """What a browser would make of a page: elements, and the text without the scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, Mapping[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[Mapping[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def whole(folder: Path) -> Page:
    return Page(report.write(folder))


def test_every_part_is_there_and_in_the_contents(whole: Page) -> None:
    assert tuple(one["id"] for one in whole.all("section")) == SECTIONS
    links = [one["href"] for one in whole.all("a")]
    assert [f"#{key}" for key in SECTIONS] == links[1:]
    assert len(whole.all("h1")) == 1


def test_it_says_twice_that_it_is_not_for_clinical_use(whole: Page) -> None:
    assert whole.text.count("Not for clinical use.") == 2


def test_winner_scores_commands_and_data(folder: Path, whole: Page) -> None:
    winner = search_record.read(folder).winner()
    assert winner is not None
    for text in (
        f"Trial {winner.number} won with val_auc {winner.score:.4f}",
        *RANGES,
        *("pneumonia predict IMAGE...", "Brier score", "ECE", "(R² out of bag)"),
        *("3 in train and val", f"{400:064x}", "28 by 28 by 1", "No trial failed."),
        *("Test split, at 0.5", "Test split, at 0.62, chosen on val", "c0ffee", "3.15.0"),
        "choice(64, 128, 256)",
        "The test split has been read by 3 searches (5 times): its scores flatter",
    ):
        assert text in whole.text, text


def test_a_mean_tells_what_each_member_adds(folder: Path, tmp_path: Path) -> None:
    draws = [Draw("0012", 13, 0.91, 0.31, 0.91, 0.31), Draw("0001", 2, 0.9, 0.33, 0.9273, 0.2956)]
    ended = search_record.read(folder).ended
    ending = {**ended, "members": [one.fields() for one in (*draws, draws[0])]}
    text = Page(report.write(folder, ending=ending, output=tmp_path / "report.html")).text
    assert "The final classifier is the mean of trials 13 (2/3) and 2 (1/3)." in text
    assert "0.9273" in text
    assert "0.2956" in text


def test_nothing_is_fetched_and_nothing_else_may_run(folder: Path, whole: Page) -> None:
    for name, attributes in whole.elements:
        for key in ("src", "href", "srcset", "action", "data"):
            address = attributes.get(key) or ""
            assert not address or address.startswith(("#", "data:")), (name, address)
    policy = next(one["content"] for one in whole.all("meta") if one.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "'unsafe-inline'" not in policy.partition("style-src")[0]
    assert "@import" not in (folder / report.NAME).read_text()


def test_every_picture_and_plot_is_told_in_words(whole: Page) -> None:
    plots = [one for one in whole.all("div") if one.get("class") == "plot"]
    assert len(plots) == 13
    assert all(one["role"] == "img" and one["aria-label"] for one in plots)
    assert all(one["alt"] for one in whole.all("img"))


def test_the_size_is_that_of_the_library_and_little_more(folder: Path) -> None:
    size = (folder / report.NAME).stat().st_size
    assert size < 5_600_000
    assert (folder / report.NAME).read_text().count("plotly.js v") == 1


@pytest.mark.slow
def test_a_large_search_stays_within_bounds(tmp_path: Path) -> None:
    made = Made(tmp_path)
    for _ in range(2500):
        made.train(made.start(made.draw(), epochs=2), 1, 2)
    made.predict()
    made.end()
    path = report.write(tmp_path)
    assert path.stat().st_size < page.MOST_BYTES
    assert "2,200 more trials are not shown." in Page(path).text


def test_what_others_have_named_stays_text(tmp_path: Path) -> None:
    made = Made(tmp_path, class_names=(NASTY, "'\"><svg onload=alert(1)>"))
    made.hyperband()
    made.fail(NASTY, traceback=f"Traceback {NASTY}")
    made.predict(names=NASTY + "{index}")
    made.end()
    found = Page(report.write(tmp_path))
    assert NASTY in found.text
    tags = Counter(name for name, _ in found.elements)
    assert tags["script"] == 13 + 2
    assert {"img", "svg"} & set(tags) == set()
    for _, attributes in found.elements:
        assert not [key for key in attributes if key.startswith("on")]
    scripts = [one for one in found.all("script") if one.get("type") != "application/json"]
    assert len(scripts) == 2


def test_a_name_that_is_no_text_is_no_fault(tmp_path: Path) -> None:
    finished(tmp_path)
    path = tmp_path / "predictions.csv"
    path.write_bytes(path.read_bytes().replace(b"test/", b"te\xffst/"))
    assert "Calibration" in Page(report.write(tmp_path)).text


@pytest.mark.parametrize(
    ("rule", "folds", "origin"),
    [
        (0.62, None, "as configured"),
        ("youden", None, "chosen on val"),
        ("youden", 3, "chosen out of fold"),
    ],
)
def test_a_threshold_says_where_it_comes_from(
    rule: object, folds: int | None, origin: str, tmp_path: Path
) -> None:
    search = search_record.read(finished(tmp_path))
    search.params |= {"threshold.rule": rule, "objective.folds": folds}
    assert list(score_sections.thresholds(search)) == ["at 0.5", f"at 0.62, {origin}"]


def test_how_the_classifier_decides_is_told_by_its_file(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    facts = Decision(0.62, "youden", 1.3, "the greatest sum on val").facts(("well", "ill"))
    with zipfile.ZipFile(folder / "a.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"pneumonia": facts}))
    ending = {**search_record.read(folder).ended, "classifier": "a.keras"}
    text = Page(report.write(folder, ending=ending)).text
    assert "The classifier's own threshold is 0.62: the greatest sum on val." in text
    assert "Its logits are divided by 1.3" in text
    assert "own threshold is" not in Page(report.write(folder)).text


def test_commands_can_be_copied_and_name_this_search(tmp_path: Path) -> None:
    folder = finished(tmp_path / "a b", config_dir="my conf")
    for name in ("best.yaml", "a.keras"):
        (folder / name).touch()
    ending = {**search_record.read(folder).ended, "classifier": "a.keras"}
    text = Page(report.write(folder, ending=ending)).text
    file = shown(folder / "best.yaml")
    assert f"pneumonia --config-dir 'my conf' experiment='{file}'" in text
    assert f"pneumonia predict IMAGE... model='{shown(folder / 'a.keras')}'" in text
    text = Page(report.write(folder, ending={**ending, "status": "interrupted"})).text
    assert "pneumonia predict" not in text


def test_an_export_is_told_with_sizes_and_latencies(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    assert 'id="export"' not in report.write(folder).read_text()
    facts = {"model": "models:/a/1", "format": "litert", "file": "a.tflite", "bytes": 2_000_000,
             "classifier_bytes": 9_000_000, "images": 16, "largest_difference": 2e-7,
             "timed_shape": [1, 40, 30, 1], "latency_ms": {"classifier": 8.25, "export": 1.5},
             "machine": "x86_64, 2 processors"}  # fmt: skip
    (folder / "export.json").write_text(json.dumps(facts))
    page = report.write(folder).read_text()
    told = page[page.index('id="export"') :]
    for text in ("a.tflite", "2.0", "9.0", "1.5", "8.2", "30 by 40 pixels", "at most 2e-07"):
        assert text in told
    (folder / "export.json").write_text("[]")
    assert 'id="export"' not in report.write(folder).read_text()


def test_an_old_search_without_predictions_says_so(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.hyperband()
    made.end()
    found = Page(report.write(tmp_path))
    assert "Without predictions.csv in the search's folder" in found.text
    assert "0.850 to 0.940" in found.text


def test_a_search_that_was_broken_off(tmp_path: Path) -> None:
    made = Made(tmp_path)
    for _ in range(3):
        made.train(made.start(made.draw(), epochs=2), 1, 2)
    made.start(made.draw(), epochs=2)
    ending = {"status": "interrupted", "reason": "the budget of 10 min is used up"}
    found = Page(report.write(tmp_path, ending=ending))
    for text in (
        "This search was interrupted.",
        "the budget of 10 min is used up",
        "Too few trials to tell: 3 different settings",
        "Without an end in the journal: trial 4.",
    ):
        assert text in found.text


def test_a_search_in_which_all_failed(tmp_path: Path) -> None:
    made = Made(tmp_path)
    for number in range(3):
        made.fail(f"out of memory {number}", traceback="Traceback: there")
    made.end("failed")
    found = Page(report.write(tmp_path))
    assert "No trial came to a score, so there is no winner." in found.text
    assert "out of memory 2" in found.text
    assert "Traceback: there" in found.text


def test_workers_that_were_lost_are_told(tmp_path: Path) -> None:
    made = Made(tmp_path)
    trial_id = made.start(made.draw(), epochs=2)
    made.event("worker_lost", trial_id=trial_id, reason="its machine is gone")
    made.train(trial_id, 1, 2)
    made.end()
    found = Page(report.write(tmp_path))
    assert "No trial failed." in found.text
    assert "Trial 1 has lost a worker: its machine is gone." in found.text


def test_a_single_training_has_a_report(tmp_path: Path) -> None:
    made = Made(tmp_path)
    (tmp_path / "config.yaml").write_text("dense: {units: 64}\n")
    made.train(made.start(made.draw(), epochs=2), 1, 2)
    made.end()
    assert "Parallel coordinates need two trials" in Page(report.write(tmp_path)).text


def test_a_fault_of_the_report_is_told_and_ends_no_search(tmp_path: Path) -> None:
    said: list[str] = []
    assert report.attempt(tmp_path / "none", {}, load=None, say=said.append) == []
    assert said[0].startswith("warning: there is no report: UserError: ")


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """The folder of a multirun of two searches, of which the second has no report of its own."""
    report.write(finished(tmp_path / "sweep" / "0", model="cnn"))
    finished(tmp_path / "sweep" / "1", seed=1, model="inception<v3>")
    return tmp_path / "sweep"


def test_several_searches_are_compared(two: Path) -> None:
    path = report.write_overview([two], two / report.NAME)
    found = Page(path)
    keys = ("summary", "searches", "scores", "course", "differences")
    assert tuple(one["id"] for one in found.all("section")) == keys
    assert "0: model=cnn" in found.text
    assert "1: model=inception<v3>" in found.text
    addresses = [one["href"] for one in found.all("a")]
    assert addresses[-1] == "0/report.html"
    assert (path.parent / addresses[-1]).exists()
    assert "1/report.html" not in addresses
    assert re.search(r"\d\.\d{3} \(\d\.\d{3} to \d\.\d{3}\)", found.text)
    assert path.stat().st_size < 5_600_000


def test_searches_in_folders_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    for parent in ("a", "b"):
        report.write(finished(tmp_path / parent / "0"))
    found = Page(report.write_overview([tmp_path], tmp_path / report.NAME))
    addresses = [one["href"] for one in found.all("a")]
    assert addresses[-2:] == ["a/0/report.html", "b/0/report.html"]


def test_scores_of_different_objectives_are_named(two: Path) -> None:
    journal = two / "1" / "journal.jsonl"
    name = '"objective.name": "val_auc"'
    assert name in journal.read_text()
    journal.write_text(journal.read_text().replace(name, name.replace("val_auc", "val_f1")))
    text = Page(report.write_overview([two], two / report.NAME)).text
    assert re.search(r"val_auc 0\.\d{4} ", text)
    assert re.search(r"val_f1 0\.\d{4} ", text)


def test_no_search(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected the folder of a search"):
        report.write(tmp_path)


@pytest.mark.slow
def test_tensorflow_is_imported_for_heat_maps_only(folder: Path) -> None:
    code = (
        "import sys; from pneumonia.reporting import report as reporting; "
        f"reporting.write(__import__('pathlib').Path({str(folder)!r})); "
        "heavy = {'tensorflow', 'keras', 'mlflow'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_config_that_cannot_be_read_is_no_fault(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "config.yaml").write_text("[")
    found = Page(report.write(tmp_path))
    assert "The images are not at hand: The configuration of the search" in found.text
