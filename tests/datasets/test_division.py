"""Files of a folder are divided by patient, near the shares that were asked for."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from pneumonia.datasets.division import divide, find_patients
from pneumonia.datasets.folders import LabeledFile

FRACTIONS = {"val": 0.1, "test": 0.2}


def files(sizes: list[int], *, class_name: str = "NORMAL") -> list[LabeledFile]:
    """Return the files of patients who have so many images each."""
    names = [f"p{who}_{n}.png" for who, size in enumerate(sizes) for n in range(size)]
    return [LabeledFile(Path(name), class_name, f"{class_name}/{name}") for name in names]


def deal(sizes: list[int], fractions: dict[str, float], *, seed: int) -> dict[str, list[int]]:
    """Return how many images the patients of each part have."""
    parts = divide(files(sizes), fractions, seed=seed, pattern=r"(p\d+)_")
    dealt = {
        name: sorted({file.name.split("_")[0] for file in part}) for name, part in parts.items()
    }
    assert sum(map(len, dealt.values())) == len(sizes)  # no patient in two parts
    return {name: [sizes[int(who.rpartition("p")[2])] for who in dealt[name]] for name in parts}


@pytest.mark.parametrize(
    "sizes", [[1, 1, 28], [10, 10, 10], [1, 1, 30, 30], [10, 12, 15, 60], [2, 2, 2, 24], [1] * 3]
)
def test_few_patients_fill_each_part(sizes: list[int]) -> None:
    """Each order of the patients is one that a seed may give."""
    for seed, order in enumerate(permutations(sizes)):
        parts = deal(list(order), FRACTIONS, seed=seed)
        train, val, test = (sum(parts[name]) for name in ("train", "val", "test"))
        assert min(val, test) > 0
        assert train >= max(val, test)


def test_no_part_is_further_above_its_share_than_it_was_below() -> None:
    rng = np.random.default_rng(0)
    for seed in range(50):
        sizes = [int(size) for size in rng.geometric(0.2, 40)]
        parts = deal(sizes, FRACTIONS, seed=seed)
        for name, fraction in FRACTIONS.items():
            share, largest = round(fraction * sum(sizes)), max(sizes)
            assert abs(sum(parts[name]) - share) <= largest / 2


@pytest.mark.parametrize("fractions", [{"val": 0.5, "test": 0.4}, {"val": 0.9, "test": 0.05}])
def test_train_keeps_a_patient(fractions: dict[str, float]) -> None:
    for count in range(3, 12):
        assert all(deal([1] * count, fractions, seed=0).values())
    assert all(deal([1, 1, 28], fractions, seed=0).values())


def test_images_without_patients_are_divided_as_asked() -> None:
    parts = divide(files([1] * 57), FRACTIONS, seed=0, pattern=None)
    assert {name: len(part) for name, part in parts.items()} == {"train": 40, "val": 6, "test": 11}


@pytest.mark.parametrize("pattern", [r"(person\d+|IM-\d+)", r"person(\d+)_|IM-(\d+)-"])
def test_a_pattern_may_know_several_kinds_of_names(pattern: str) -> None:
    """Those of Kermany et al.: NORMAL has other names than PNEUMONIA."""
    names = [f"IM-{who:04}-000{n}.jpeg" for who in range(3) for n in range(2)]
    names += ["NORMAL2-IM-0001-0001.jpeg", "person7_bacteria_1.jpeg", "person7_virus_2.jpeg"]
    found = [LabeledFile(Path(name), "NORMAL", f"NORMAL/{name}") for name in names]
    patients = find_patients({"train": found, "val": [], "test": []}, pattern)["train"]
    assert [patients.index(one) for one in patients] == [0, 0, 2, 2, 4, 4, 2, 7, 7]
