"""Make the pictures of the README again: of one real search, in a real browser.

    make docs-pictures              # generated chest phantoms, into docs/pictures
    make docs-pictures DATA=folder  # PneumoniaMNIST's images, into outputs/pictures

The latter stay out of the repository.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import mlflow_pages
from browsers import chromium, mlflow_ui, open_report, resize, run_module, wait_for
from omegaconf import OmegaConf
from PIL import Image
from terminal import play, svg

from pneumonia.datasets.cache import load_data
from pneumonia.models.gradcam import SUFFIX
from pneumonia.storage import journal, search_folder

SEARCHED = ("dense.units", "dense.dropout", "optimizer.learning_rate")
SIDE, GAP, SHOWN = 192, 8, 4
ROOT = Path(__file__).parents[2]


def main() -> None:
    """Run the search in a folder of its own, and picture what it leaves."""
    given = os.environ.get("DATA")
    target = ROOT / ("outputs/pictures" if given else "docs/pictures")
    target.mkdir(parents=True, exist_ok=True)
    options = ["experiment=demo"]
    if given:
        options = ["experiment=quick", f"dataset.manual_dir={Path(given).resolve()}"]
    with tempfile.TemporaryDirectory() as name:
        project = Path(name)
        run_module(project, "pneumonia", *options)
        (found,) = (project / "outputs").rglob(journal.NAME)
        text = svg(play(found.parent), f"pneumonia {options[0]}")
        (target / "terminal.svg").write_text(text, encoding="utf-8")
        picture_heat_maps(project, found.parent, target / "heatmaps.png")
        with chromium() as browser:
            picture_report(browser, found.parent / "report.html", target)
            with mlflow_ui(project) as link:
                picture_mlflow(browser, link, target)
    print(f"The pictures are in {target.relative_to(ROOT)}.")


def picture_report(browser: Any, report: Path, target: Path) -> None:
    """Picture the trials as the report shows them."""
    resize(browser, 1180, 950)
    open_report(browser, report)
    browser.execute_script(
        "document.documentElement.style.scrollPaddingTop = '8px';"
        "document.querySelector('#trials').scrollIntoView({behavior: 'instant'})"
    )
    wait_for(browser, "return document.querySelector('nav [aria-current]').hash === '#trials'")
    save(browser, target / "report.png")


def picture_mlflow(browser: Any, link: str, target: Path) -> None:
    """Picture the table of the trials, the best first, and their parallel coordinates."""
    mlflow_pages.keep_calm(browser)
    resize(browser, 1280, 640)
    mlflow_pages.open_runs(browser, link)
    mlflow_pages.make_room(browser)
    mlflow_pages.expand(browser)
    save(browser, target / "mlflow_runs.png")
    mlflow_pages.sort(browser, "score")
    mlflow_pages.search(browser, "tags.kind = 'trial'")
    mlflow_pages.compare_all(browser)
    mlflow_pages.choose_axes(browser, SEARCHED, ["score"])
    save(browser, target / "mlflow_compare.png")


def picture_heat_maps(project: Path, folder: Path, path: Path) -> None:
    """Picture some positive test images, and below them what spoke for the positive class."""
    config: Any = OmegaConf.to_container(
        OmegaConf.load(folder / search_folder.CONFIG), resolve=True
    )
    test = load_data(config).test
    positive = [index for index, label in enumerate(test.labels) if label][:SHOWN]
    scans = project / "scans"
    scans.mkdir()
    for index, image in zip(positive, test.images.read(positive), strict=True):
        Image.fromarray(image.squeeze()).save(scans / f"{index}.png")
    run_module(project, "pneumonia", "predict", "scans", "heatmaps=maps")
    step = SIDE + GAP
    sheet = Image.new("RGB", (SHOWN * step - GAP, 2 * step - GAP), "white")
    for column, index in enumerate(positive):
        rows = (scans / f"{index}.png", project / "maps" / f"{index}.png{SUFFIX}")
        for row, one in enumerate(rows):
            with Image.open(one) as image:
                side = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)
            sheet.paste(side, (column * step, row * step))
    sheet.save(path, optimize=True)


def save(browser: Any, path: Path) -> None:
    """Picture what the browser shows, in 256 colours, which take a third of the space."""
    browser.save_screenshot(str(path))
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


if __name__ == "__main__":
    main()
