"""Start TensorFlow quietly, and so that the same seed gives the same result."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

_STDERR = 2


@cache
def start() -> None:
    """Import TensorFlow and Keras; the first call takes seconds, further ones nothing."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with _quiet_stderr(), _without("pandas", "matplotlib.pyplot", "sklearn"):
        import tensorflow as tf
        from keras_tuner.src.tuners import bayesian

        if bayesian.sklearn is None:
            bayesian.sklearn = _Later("sklearn")
        # What it warns of, such as tracing, is for those who write programs, not for users.
        tf.get_logger().setLevel("ERROR")
        tf.config.experimental.enable_op_determinism()
        tf.config.list_logical_devices()  # looks for a GPU now, and complains of none now
    # A million objects that live as long as the process: looking through them for garbage takes
    # time all along, and more than a second at the end.
    gc.freeze()
    atexit.register(gc.freeze)


def foresee() -> None:
    """Import what the end of a search needs, in a thread, while its trials train.

    Training leaves Python to others most of the time; the imports take two seconds.
    """

    def load() -> None:
        for name in ("pneumonia.plots", "sklearn.tree", "plotly.offline"):
            with suppress(ImportError):  # told where it is needed
                import_module(name)

    threading.Thread(target=load, name="imports", daemon=True).start()


class _Later(ModuleType):
    """A package whose modules are imported when they are asked for."""

    def __getattr__(self, name: str) -> Any:
        return import_module(f"{self.__name__}.{name}")


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Let imports do without modules that they take if they are there.

    Keras would import them for what is not used here, which takes more than a second.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep back what is written to standard error, and show it where the import fails.

    TensorFlow writes some lines before its own log level counts.
    """
    if sys.stderr is None:  # closed from the beginning: another file may have its number by now
        yield
        return
    sys.stderr.flush()
    kept = os.dup(_STDERR)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), _STDERR)
        try:
            yield
        except Exception:  # not an interruption, which has nothing to do with what was said
            os.dup2(kept, _STDERR)
            file.seek(0)
            os.write(_STDERR, file.read())
            raise
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)
