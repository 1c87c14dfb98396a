"""Hosts that may not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable


def within(seconds: float, ask: Callable[[], object]) -> None:
    """Ask a host, and give up on it in time.

    Raises:
        TimeoutError: Where it takes longer.
        OSError: What asking has raised.
    """
    failures: list[OSError] = []

    def run() -> None:
        try:
            ask()
        except OSError as error:
            failures.append(error)

    # Looking up a name has no time limit of its own: hence a thread that is left behind.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer in {seconds:.0f} s")
    if failures:
        raise failures[0]
