"""What a person does in MLflow's UI, as this version has it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote_plus

from browsers import until, wait_for

_CALM = """
localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
"""
_ROWS = """
const rows = {};
for (const row of document.querySelectorAll('.ag-row')) {
  const cells = rows[row.getAttribute('row-index')] ??= {};
  for (const cell of row.querySelectorAll('[col-id]'))
    cells[cell.getAttribute('col-id')] = cell.innerText.trim();
}
return Object.keys(rows).sort((a, b) => a - b).map(one => rows[one]);
"""
_BUTTONS = "return [...document.querySelectorAll('button')].filter(one => one.innerText === "
_AXES = "return [...document.querySelectorAll('.axis-title')].map(one => one.textContent)"
Row = Mapping[str, str]


def keep_calm(browser: Any) -> None:
    """Leave the assistant closed, which opens itself on somebody's first visit."""
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _CALM})


def rows(browser: Any) -> list[Row]:
    """Return the rows of the runs table, as shown."""
    found: list[Row] = browser.execute_script(_ROWS)
    return found


def name(row: Row) -> str:
    """Return the name of a row's run."""
    return row.get("attributes.`Run Name`", "").splitlines()[-1:][0].strip() if row else ""


def open_runs(browser: Any, link: str) -> list[Row]:
    """Open the link that `make ui` prints; return the rows, when they are there."""
    browser.get(link)
    wait_for(browser, "return document.querySelector('.ag-row [col-id^=params]') !== null")
    return rows(browser)


def make_room(browser: Any) -> None:
    """Close what is said of a view that was shared, and the menu at the side."""
    for label in ("Hide banner", "Toggle sidebar"):
        browser.execute_script(f"document.querySelector('[aria-label=\"{label}\"]').click()")


def expand(browser: Any) -> list[Row]:
    """Click on the `+` of the first search; return the rows, its trials among them."""
    before = len(rows(browser))
    browser.execute_script(
        "document.querySelector('.ag-row [data-component-id*=runnamecellrenderer]').click()"
    )
    until(lambda: len(rows(browser)) > before, lambda: str(rows(browser)))
    return rows(browser)


def search(browser: Any, words: str) -> list[Row]:
    """Type into the search field of a sorted table; return the rows that are left.

    One that is not sorted shows the searches of what is left, with that nested in them.
    """
    from selenium.webdriver.common.keys import Keys

    field = browser.find_element("css selector", "input[placeholder*='metrics.rmse']")
    field.send_keys(words, Keys.ENTER)
    until(lambda: "searchFilter=" + quote_plus(words[:6]) in browser.current_url, lambda: words)
    return _settled(browser)


def sort(browser: Any, column: str) -> list[Row]:
    """Click on the heading of a column; return the rows, in their new order."""
    wait_for(browser, f"return document.querySelector('[data-testid=\"sort-header-{column}\"]')")
    browser.find_element("css selector", f"[data-testid='sort-header-{column}']").click()
    until(lambda: "orderByKey=metrics" in browser.current_url, lambda: browser.current_url)
    return _settled(browser)


def compare_all(browser: Any) -> list[str]:
    """Tick all the runs and click on `Compare`; return the axes of the parallel coordinates."""
    boxes = "[...document.querySelectorAll('.ag-header input[type=checkbox]')]"
    browser.execute_script(f"{boxes}.find(one => one.offsetParent !== null).click()")
    wait_for(browser, f"{_BUTTONS} 'Compare').length > 0")
    browser.execute_script(f"{_BUTTONS} 'Compare')[0].click()")
    wait_for(browser, "return document.querySelectorAll('.axis-title').length > 1")
    return axes(browser)


def axes(browser: Any) -> list[str]:
    """Return the names of the axes of the parallel coordinates."""
    found: list[str] = browser.execute_script(_AXES)
    return found


def choose_axes(browser: Any, params: Sequence[str], metrics: Sequence[str]) -> None:
    """Show other params and metrics in the parallel coordinates."""
    from selenium.webdriver.common.keys import Keys

    browser.execute_script(f"{_BUTTONS} 'Clear All')[0].click()")
    for index, names in enumerate((params, metrics)):
        for one in names:
            field = browser.find_elements("css selector", "input[role=combobox]")[index]
            field.send_keys(one)
            wait_for(browser, f"return document.querySelector('[title={json.dumps(one)}]')")
            field.send_keys(Keys.ENTER)
        field.send_keys(Keys.ESCAPE)
    browser.execute_script("document.activeElement.blur()")
    until(lambda: set(axes(browser)) == {*params, *metrics}, lambda: str(axes(browser)))


def run_link(link: str, run_id: str) -> str:
    """Return the link to a run's page, of that to the runs."""
    return re.sub(r"/runs\?", f"/runs/{run_id}?", link)


def pictures(browser: Any) -> list[int]:
    """Return the width in pixels of each picture of a description, when all are there."""
    images = "[...document.querySelectorAll('img')].filter(one => one.src.includes('get-artifact'))"
    wait_for(browser, f"const a = {images}; return a.length && a.every(one => one.complete)")
    found: list[int] = browser.execute_script(f"return {images}.map(one => one.naturalWidth)")
    return found


def _settled(browser: Any) -> list[Row]:
    """Return the rows once they are as many as the table says, and have stopped changing."""
    count = "return (document.body.innerText.match(/(\\d+) matching run/) || [0, -1])[1]"
    seen: list[list[Row]] = [[]]

    def is_still() -> bool:
        seen.append(rows(browser))
        whole = all(name(row) for row in seen[-1])
        return (
            seen[-1] == seen[-2] and whole and len(seen[-1]) == int(browser.execute_script(count))
        )

    until(is_still, lambda: str(seen[-1]))
    return seen[-1]
