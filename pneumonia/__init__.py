"""Tune image classifiers: made for detecting pneumonia in chest X-rays."""

import sys

# `python -m pneumonia` puts the current folder first on the path, where whatever lies in it would
# be imported for a library of that name.
_IS_MAIN = any(word.partition(".")[0] == __name__ for word in sys.orig_argv)
if sys.argv[:1] == ["-m"] and _IS_MAIN and not sys.flags.safe_path:
    del sys.path[0]
