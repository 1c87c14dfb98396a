"""Start this program and TensorFlow quietly, and so that the same seed gives the same result."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from pneumonia import process
from pneumonia.errors import UserError

_STDERR = 2
_THRESHOLD = gc.get_threshold()
# Settings of the environment that would make other results, or another program: the defaults of
# Keras, KerasTuner and TensorFlow count. KERAS_HOME stays, where weights are kept.
_UNSET = re.compile(
    r"KERAS_(?!HOME$).*|KERASTUNER_.*|NVIDIA_TF32_OVERRIDE"
    r"|TF_(USE_LEGACY_KERAS|XLA_FLAGS|FUNCTION_JIT_COMPILE_DEFAULT|DISABLE_MKL|GRAPH_CACHING)"
    r"|TF_(AUTO_MIXED|CONV2D|FP16|ONEDNN|SET_ONEDNN|USE_DEEP)_.*|TF_.*DETERMINIS.*"
    r"|TF_ENABLE_(AUTO_MIXED|MAXPOOL|MLIR|ONEDNN|WINOGRAD|ZENDNN)_.*"
)
# Libraries that tell those who write programs, by a log, what they do not like.
_LOGGING = ("PIL", "absl", "h5py", "keras", "matplotlib", "pydicom", "tensorflow")
# Threads that TensorFlow is to compute an operation with, and how many at a time.
_threads: tuple[int, int] | None = None


def prepare() -> None:
    """Set up what is of the whole process, before any library is imported; costs nothing.

    Warnings of libraries are shown to who asks by `python -W` or `PYTHONWARNINGS` only. As no
    filter is set, one that turns them into errors does so still.
    """
    for name in filter(_UNSET.fullmatch, tuple(os.environ)):
        del os.environ[name]
    # Of XLA's flags, those say where the machine has something.
    places = [flag for flag in os.environ.pop("XLA_FLAGS", "").split() if "_dir=" in flag]
    if places:
        os.environ["XLA_FLAGS"] = " ".join(places)
    # Looking for garbage after every 700 objects takes a sixth of the time of the imports.
    gc.set_threshold(100_000)
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if not sys.warnoptions:
        warnings.showwarning = _ignore
        for name in _LOGGING:
            logging.getLogger(name).setLevel(logging.ERROR)


def use_threads(count: int, *, trials: int = 1) -> None:
    """Let TensorFlow compute every operation with so many threads, before it computes anything.

    Into how many parts it cuts a sum, and so how it rounds, depends on their number: it is a part
    of a result, and all that trains has to say it. How many operations it computes at a time is no
    part of one; as many for each trial, so that a process of one thread takes one processor.

    Args:
        count: Threads.
        trials: How many train in this process at a time.

    Raises:
        UserError: TensorFlow computes already, with another number, which it keeps.
    """
    global _threads
    _threads = count, count * trials
    if "tensorflow" in sys.modules:
        _set_threads(*_threads)


def threads() -> int:
    """Return with how many threads TensorFlow computes here: by default with all processors."""
    import tensorflow as tf

    return tf.config.threading.get_intra_op_parallelism_threads() or process.processors()


def _set_threads(count: int, operations: int) -> None:
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(operations)
    except RuntimeError as error:  # it has begun to compute
        if threads() != count:
            raise UserError(
                f"`training.threads`: expected {threads()}, with which TensorFlow computes in this "
                f"process already. Received: {count}. Run it by a command of its own."
            ) from error


def _share_gpus() -> None:
    """Let TensorFlow take of each GPU's memory what it needs: by default it takes all at once.

    Other trials, searches and commands then find some. `TF_FORCE_GPU_ALLOW_GROWTH=false` undoes it.
    """
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        with suppress(RuntimeError):  # whoever has begun to compute in this process has decided
            tf.config.experimental.set_memory_growth(gpu, True)


@cache
def import_keras() -> None:
    """Import TensorFlow and Keras, with Keras' own defaults: all that a classifier needs."""
    prepare()
    with quiet_stderr(), _without("pandas", "matplotlib.pyplot", "sklearn"), _without_settings():
        import keras
        import tensorflow as tf

        from pneumonia import seeding  # needs NumPy, as they do

        # What it warns of, such as tracing, is for those who write programs, not for users.
        tf.get_logger().setLevel("ERROR")
        if _threads is not None:
            _set_threads(*_threads)
        _share_gpus()
        tf.config.list_logical_devices()  # looks for a GPU now, and complains of none now
    # Where somebody else has imported Keras before, with the user's `keras.json`.
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")
    seeding.separate_layers()
    settle()


@cache
def start() -> None:
    """Import TensorFlow and what trains with it, so that the same seed gives the same result."""
    import_keras()
    with quiet_stderr(), _without("pandas", "matplotlib.pyplot", "sklearn"):
        import tensorflow as tf
        from keras_tuner.src.tuners import bayesian

        if bayesian.sklearn is None:
            bayesian.sklearn = _Later("sklearn")
        tf.config.experimental.enable_op_determinism()
    settle()
    atexit.register(gc.freeze)


def settle() -> None:
    """Look for garbage as often as Python does, but not through what is imported by now.

    Those are a million objects that live as long as the process: looking through them takes time
    all along, and more than a second at the end. Models are cycles, which must not stay for long.
    """
    gc.freeze()
    gc.set_threshold(*_THRESHOLD)


def foresee() -> None:
    """Import what the end of a search needs, in a thread: two seconds, while its trials train."""

    def load() -> None:
        for name in ("pneumonia.evaluation.plots", "sklearn.tree", "plotly.offline"):
            with suppress(ImportError):  # told where it is needed
                import_module(name)

    threading.Thread(target=load, name="imports", daemon=True).start()


def _ignore(*_: object, **__: object) -> None:
    """Show a warning to nobody."""


@contextmanager
def _without_settings() -> Iterator[None]:
    """Let Keras be imported without the user's `keras.json`, which may hold what it fails at."""
    own = os.environ.get("KERAS_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KERAS_HOME"] = folder
        try:
            yield
        finally:
            del os.environ["KERAS_HOME"]
            if own:
                os.environ["KERAS_HOME"] = own
    from keras.src.backend import config

    # Where weights are kept, as Keras finds it.
    home = os.path.expanduser("~")  # noqa: PTH111 - of one without a home, Path raises
    config._KERAS_DIR = own or f"{home if os.access(home, os.W_OK) else '/tmp'}/.keras"


class _Later(ModuleType):
    """A package whose modules are imported when they are asked for."""

    def __getattr__(self, name: str) -> Any:
        return import_module(f"{self.__name__}.{name}")


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Let Keras do without modules that take a second, for what is not used here."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep back what TensorFlow writes before its log level counts; show it where imports fail."""
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
