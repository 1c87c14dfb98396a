"""What happens at the end of a Hydra multirun: a page that compares its searches."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class Compare(Callback):
    """Writes the page into the multirun's folder; `conf/config.yaml` names it.

    It must not import anything heavy before there is something to compare: Hydra makes one for
    every command.
    """

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compare the searches that have left a journal."""
        from pneumonia import reporting, shell, terminal

        folder = Path(config.hydra.sweep.dir)
        if reporting.find_searches(folder):
            path = reporting.write_overview([folder], folder / reporting.NAME)
            terminal.write(f"\nThe searches compared: {shell.shown(path)}\n", sys.stdout)
