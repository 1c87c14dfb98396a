"""Families of tests that repeat one behaviour with other values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow(*values: Any) -> Any:
    """Return a case for `make test-slow`: another one of its family is always run."""
    return pytest.param(*values, marks=pytest.mark.slow)


def chosen(request: pytest.FixtureRequest, name: str) -> list[Any]:
    """Return the values of a parameter in those tests of a file that are run."""
    own = [item for item in request.session.items if item.path == request.path]
    given = [item.callspec.params for item in own if hasattr(item, "callspec")]
    return sorted({params[name] for params in given if name in params})


def quick(cases: Iterable[str], *names: str) -> list[Any]:
    """Return the cases of a family, all slow but the named ones."""
    every = list(cases)
    assert set(names) <= set(every)
    return [case if case in names else slow(case) for case in every]
