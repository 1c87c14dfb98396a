"""A picture of the live display, of a real search: its journal is played again up to a moment.

    PYTHONPATH=. python docs/pictures/terminal.py FOLDER PICTURE.svg [TITLE]

`make docs-pictures` calls it.
"""

from __future__ import annotations

import io
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pneumonia.config.search_space import find
from pneumonia.console.live import Scene, head, table
from pneumonia.console.progress import Progress
from pneumonia.storage import journal
from pneumonia.storage.search_folder import SearchFolder

COLUMNS, ROWS = 100, 24


def play(folder: Path, share: float = 0.6) -> Scene:
    """Return what a terminal showed of a completed search when it had run a share of its epochs.

    Args:
        folder: The folder of the search, with its journal and its configuration.
        share: From 0 to 1.
    """
    events = list(journal.read(folder))
    cfg: Any = OmegaConf.load(SearchFolder(folder).config)
    names = [item.path for item in find(cfg)]
    starts = {event["trial_id"]: event for event in events if event["kind"] == "trial_started"}
    planned = {name: _planned(starts, name) for name in starts}
    executions = int(cfg.training.executions_per_trial)
    clock = _Clock(events[0]["time"])
    progress = Progress(
        cfg.objective.name, cfg.objective.direction, stream=io.StringIO(), clock=clock
    )
    progress.start(len(starts), executions * sum(planned.values()))
    left = math.ceil(share * sum(event["kind"] == "epoch_ended" for event in events))
    for event in events:
        clock.now = event["time"] / 1000
        match event["kind"]:
            case "trial_started":
                values = {name: event["values"][name] for name in names if name in event["values"]}
                of = event["values"]["epochs"]
                progress.trial(event["number"], len(starts), values, epochs=of, fits=executions)
            case "epoch_ended":
                of = starts[event["trial_id"]]["values"]["epochs"]
                progress.epoch(event["epoch"], of, event["metrics"])
                left -= 1
                if not left:
                    break
            case "trial_ended":
                progress.trial_end(event["score"], failure=event["reason"] or "")
    return progress.scene()


def svg(scene: Scene, title: str = "pneumonia") -> str:
    """Return a scene as an SVG picture of a terminal."""
    from rich.console import Console

    console = Console(
        record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor",
        width=COLUMNS, height=ROWS, highlight=False, legacy_windows=False,
    )  # fmt: skip
    for text in (
        *head(scene, COLUMNS - 1),
        "",
        *table(scene.header, scene.rows, COLUMNS - 1, ROWS),
    ):
        console.print(text, no_wrap=True)
    # rich would have fonts fetched from another machine.
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=title), flags=re.DOTALL)


def _planned(starts: Mapping[str, Mapping[str, Any]], name: str) -> int:
    """Return how many epochs a trial was to train itself."""
    event = starts[name]
    parent = starts.get(event["tags"].get("promoted_from", ""))
    return int(event["values"]["epochs"] - (parent["values"]["epochs"] if parent else 0))


class _Clock:
    def __init__(self, milliseconds: int) -> None:
        self.now = milliseconds / 1000

    def __call__(self) -> float:
        return self.now


if __name__ == "__main__":
    folder, target, *title = sys.argv[1:]
    Path(target).write_text(svg(play(Path(folder)), *title), encoding="utf-8")
