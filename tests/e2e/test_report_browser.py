"""The pages in a real browser: the plots are drawn, nothing fails, nothing leaves the page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import chromium, complaints, missing, open_report, requests, resize
from made import Made, finished, write_images
from omegaconf import OmegaConf

from pneumonia.reporting import report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}"),
]

NASTY = '</script><img src=x onerror="window.pwned=1"><a href="https://example.org">x</a>'
Open = Callable[..., None]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driving:
        yield driving


@pytest.fixture
def show(browser: Any) -> Open:
    """Return what opens a page of a width in light or dark, and waits for its plots."""

    def call(path: Path, *, width: int = 1280, theme: str = "light") -> None:
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        resize(browser, width, 900, theme=theme)
        open_report(browser, path)

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = finished(tmp_path_factory.mktemp("search"))
    write_images(folder)
    report.write(folder)
    return folder


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_is_drawn_and_nothing_is_fetched(
    theme: str, folder: Path, browser: Any, show: Open
) -> None:
    show(folder / report.NAME, theme=theme)
    plots = browser.execute_script(
        "return [...document.querySelectorAll('.plot')].map(one => [one.id, one.dataset.drawn,"
        " one.querySelectorAll('.main-svg').length, one.getBoundingClientRect().width])"
    )
    assert len(plots) == 13
    assert all(drawn == "yes" and layers and width > 200 for _, drawn, layers, width in plots)
    lines = (
        "return document.querySelectorAll('#plot-best-epochs .scatterlayer path.js-line').length"
    )
    assert browser.execute_script(lines) >= 1
    assert browser.execute_script("return document.querySelectorAll('#errors img').length") >= 2
    assert complaints(browser) == []
    assert requests(browser, "file:") == []


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_no_width_needs_scrolling_sideways(
    width: int, folder: Path, browser: Any, show: Open
) -> None:
    show(folder / report.NAME, width=width)
    whole = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    content, window = browser.execute_script(whole)
    assert content <= window


def test_plots_follow_light_and_dark(folder: Path, browser: Any, show: Open) -> None:
    colour = "return getComputedStyle(document.querySelector('#plot-roc .xtick text')).fill"
    show(folder / report.NAME, theme="light")
    before = browser.execute_script(colour)
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    until = time.monotonic() + 20
    while browser.execute_script(colour) == before and time.monotonic() < until:
        time.sleep(0.1)
    assert browser.execute_script(colour) != before


def test_a_table_sorts_by_its_headings(folder: Path, browser: Any, show: Open) -> None:
    show(folder / report.NAME)
    column = (
        "return [...document.querySelectorAll('#trials tbody tr')].map(one => "
        "Number(one.cells[1].textContent))"
    )
    button = "document.querySelectorAll('#trials th button')[1].click();"
    assert browser.execute_script(button + column) == sorted(range(1, 22))
    assert browser.execute_script(button + column) == sorted(range(1, 22), reverse=True)


def test_what_others_have_named_does_nothing(tmp_path: Path, browser: Any, show: Open) -> None:
    made = Made(tmp_path, class_names=(NASTY, "${1}"))
    made.hyperband()
    made.fail(NASTY, traceback=NASTY)
    made.predict(names=NASTY + "{index}")
    made.end()
    config = OmegaConf.load(tmp_path / "config.yaml")
    config.model.layer = f"choice(low, high, '{NASTY}')"
    OmegaConf.save(config, tmp_path / "config.yaml")
    show(report.write(tmp_path))
    assert browser.execute_script("return window.pwned") is None
    found = "return document.querySelectorAll('a[href*=\"example.org\"], img[src=x]').length"
    assert browser.execute_script(found) == 0
    assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"
    assert complaints(browser) == []
    assert requests(browser, "file:") == []


def test_a_script_that_got_in_would_not_run(tmp_path: Path, browser: Any, show: Open) -> None:
    path = report.write(finished(tmp_path))
    path.write_text(path.read_text().replace("</h1>", "</h1><script>window.pwned = 1</script>"))
    show(path)
    assert browser.execute_script("return window.pwned") is None
    assert "Content Security Policy" in complaints(browser)[0]


def test_searches_are_compared(tmp_path: Path, browser: Any, show: Open) -> None:
    for number, model in enumerate(("cnn", "inception_v3", "efficientnet_lite0")):
        report.write(finished(tmp_path / str(number), seed=number, model=model))
    show(report.write_overview([tmp_path], tmp_path / report.NAME), width=390)
    drawn = "return [...document.querySelectorAll('.plot')].map(one => one.dataset.drawn)"
    assert set(browser.execute_script(drawn)) == {"yes"}
    assert complaints(browser) == []
    browser.execute_script("document.querySelector('#searches a').click()")
    assert browser.current_url.endswith("0/report.html")
