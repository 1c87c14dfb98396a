"""Start TensorFlow quietly, and so that the same seed gives the same result."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2


def start() -> None:
    """Import TensorFlow and Keras; the first call takes seconds, further ones nothing."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with _quiet_stderr():
        import keras_tuner  # noqa: F401
        import tensorflow as tf

        # What it warns of, such as tracing, is for those who write programs, not for users.
        tf.get_logger().setLevel("ERROR")
        tf.config.experimental.enable_op_determinism()
        tf.config.list_logical_devices()  # looks for a GPU now, and complains of none now


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
        except BaseException:
            os.dup2(kept, _STDERR)
            file.seek(0)
            os.write(_STDERR, file.read())
            raise
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)
