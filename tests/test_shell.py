"""Paths as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pneumonia.shell import as_path


@pytest.mark.parametrize(
    ("typed", "path"),
    [("~/a", "/home/me/a"), ("./~/a", "~/a"), ("./~x", "~x"), ("~", "/home/me"), ("a/~", "a/~")],
)
def test_only_a_tilde_at_the_beginning_is_a_home(
    typed: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert as_path(typed) == Path(path)


def test_nobodys_home_is_a_name() -> None:
    assert as_path("~no such user/a") == Path("~no such user/a")
