"""Every file under conf/ composes, is valid, and collapses to a config that is whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pneumonia.config import compose, validate
from pneumonia.config.search_space import collapse

CONF = compose.find_conf()
FILES = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml"))
OPTIONS = [path for path in FILES if path.parent != Path()]


def overrides(option: Path, tmp_path: Path) -> list[str]:
    """Return the overrides that choose an option, with a path where it needs one."""
    chosen = [f"{option.parent.as_posix()}={option.stem}"]
    if option.parent.name == "dataset" and option.stem in ("npz", "image_folder"):
        chosen.append(f"dataset.path={tmp_path}")
    return chosen


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_every_option_composes_and_is_valid(option: Path, tmp_path: Path) -> None:
    cfg = compose.compose(overrides(option, tmp_path))
    space = validate.validate(cfg)
    plain = collapse(cfg, space.start())
    assert not any("${" in str(value) for value in validate.flatten(plain).values())
    assert set(space.start()) <= set(validate.flatten(cfg))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_file_says_what_it_is(file: Path) -> None:
    lines = (CONF / file).read_text(encoding="utf-8").splitlines()
    comments = [line for line in lines[:3] if line.startswith("# ") and "@package" not in line]
    assert comments
    if file.parent.name == "experiment":
        assert lines[0] == "# @package _global_"
        assert f"#   pneumonia experiment={file.stem}" in lines


def test_every_group_of_the_contract_has_its_options() -> None:
    expected = {
        "dataset": {"pneumonia_mnist", "npz", "image_folder", "phantom"},
        "augment": {"none", "blog", "chest", "strong"},
        "model": {
            "inception_v3",
            "efficientnet_lite",
            "efficientnet_lite0",
            "keras_application",
            "cnn",
        },
        "dense": {"default"},
        "optimizer": {"rmsprop", "adam", "adamw", "sgd"},
        "tuner": {"hyperband", "asha", "bayesian", "random", "grid"},
        "training": {"default"},
        "tracking": {"local", "server"},
        "executor": {"local", "ray"},
        "callbacks": {"default", "none", "console", "report", "tensorboard"},
        "experiment": {"blog", "blog_best", "blog_cnn", "quick", "demo"},
    }
    for group, options in expected.items():
        assert options <= {path.stem for path in (CONF / group).glob("*.yaml")}, group


@pytest.mark.parametrize("tuner", ["hyperband", "bayesian", "random", "grid"])
def test_tuners_are_oracles_of_keras_tuner(tuner: str) -> None:
    cfg = compose.compose([f"tuner={tuner}", "seed=7"])
    assert cfg.tuner._target_.startswith("keras_tuner.oracles.")
    assert {"max_epochs", "max_trials", "seed", "max_consecutive_failures"} <= set(cfg.tuner)
    assert cfg.tuner.seed == 7


@pytest.mark.parametrize(("own", "is_dropping"), [("", False), ("drop_duplicates: true", True)])
def test_a_users_dataset_has_what_all_have_and_may_say_otherwise(
    own: str, is_dropping: bool, tmp_path: Path
) -> None:
    (tmp_path / "dataset").mkdir()
    target = "pneumonia.datasets.chest_phantom.phantom"
    (tmp_path / "dataset" / "mine.yaml").write_text(f"_target_: {target}\n{own}\n")
    cfg = compose.compose(["dataset=mine"], folder=str(tmp_path))
    assert cfg.dataset.drop_duplicates is is_dropping
    validate.validate(cfg)


def test_experiments_yield_to_the_command_line() -> None:
    cfg = compose.compose(["experiment=blog", "dense.units=64", "model=cnn", "seed=5"])
    assert (cfg.dense.units, cfg.seed) == (64, 5)
    assert cfg.model._target_ == "pneumonia.models.backbones.cnn"


def test_the_study() -> None:
    cfg = compose.compose(["experiment=blog"])
    assert (cfg.model.layer, cfg.model.image_size, cfg.model.pooling) == ("mixed7", 150, "flatten")
    assert cfg.augment.views == "online"
    assert cfg.objective.name == "val_accuracy"
    assert validate.validate(cfg).size() == 4 * 5 * 3
    assert validate.validate(compose.compose(["experiment=blog_best"])).size() == 1


def test_jobs_of_one_second_get_different_folders(tmp_path: Path) -> None:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    folders = set()
    for pid in range(8):
        OmegaConf.register_new_resolver("pid", lambda pid=pid: pid, replace=True)
        cfg = compose.compose([])
        HydraConfig.instance().set_config(cfg)
        folders.add(cfg.hydra.run.dir)
    OmegaConf.register_new_resolver("pid", os.getpid, use_cache=True, replace=True)
    HydraConfig.instance().cfg = None
    assert len(folders) == 8
    assert all(folder.startswith("outputs/2") for folder in folders)
