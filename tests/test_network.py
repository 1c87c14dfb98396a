"""Hosts that may not answer are not waited for."""

from __future__ import annotations

import threading

import pytest

from pneumonia.network import within


def test_an_answer_in_time() -> None:
    asked: list[int] = []
    within(5, lambda: asked.append(1))
    assert asked == [1]


def test_what_is_raised_is_raised_here() -> None:
    def refuse() -> None:
        raise ConnectionRefusedError("no")

    with pytest.raises(ConnectionRefusedError, match="no"):
        within(5, refuse)


def test_no_answer_is_given_up_on() -> None:
    answer = threading.Event()
    with pytest.raises(TimeoutError, match="no answer in 0 s"):
        within(0.05, answer.wait)
    answer.set()
