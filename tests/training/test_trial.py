"""A trial trains what its configuration says, and goes on where another stopped."""

from __future__ import annotations

import contextlib
import errno
import math
import random
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from families import slow

from pneumonia import startup
from pneumonia.artifacts import FolderStore, state_key
from pneumonia.datasets import cache, folds
from pneumonia.evaluation import metrics
from pneumonia.evaluation.objective import Fit, Metrics
from pneumonia.files import StorageError
from pneumonia.models import classifier
from pneumonia.training import (
    checkpoint,
    compiled_loop,
    held_out,
    inputs,
    loop,
    network,
    trial,
)
from pneumonia.training.checkpoint import FitState, StateError
from pneumonia.training.loop import Training
from pneumonia.training.trial import Hooks, Outcome, StopTrial, Task

Config = dict[str, Any]


def config(folder: Path, model: str = "features", **changes: Any) -> Config:
    models = {
        "features": {
            "_target_": "pneumonia.models.backbones.efficientnet_lite",
            "image_size": 32,
            "weights": "imagenet",
            "layer": "block3b_add",
            "pooling": "avg",
            "trainable": False,
        },
        "cnn": {
            "_target_": "pneumonia.models.backbones.cnn",
            "image_size": 28,
            "blocks": 2,
            "filters": 8,
        },
        "fine": {
            "_target_": "pneumonia.models.backbones.efficientnet_lite",
            "image_size": 32,
            "weights": "imagenet",
            "layer": "block2b_add",
            "pooling": "avg",
            "trainable": "block2b_expand_conv",
        },
    }
    result: Config = {
        "seed": 1,
        "objective": {"name": "val_auc", "direction": "max"},
        "features": {
            "folder": str(folder / "features"),
            "max_gb": 1.0,
            "dtype": "float32",
            "precision": "float32",
            "cache": True,
        },
        "dataset": {
            "_target_": "pneumonia.datasets.chest_phantom.phantom",
            "train": 120,
            "val": 60,
            "test": 40,
            "image_size": 32,
            "seed": 1,
        },
        "threshold": {"rule": 0.5, "prevalence": None, "calibrate": False},
        "winner": {"members": 1, "selection": "best", "flips": False, "image_size": None},
        "augment": {"_target_": "pneumonia.training.augment.none", "views": 1},
        "model": models[model],
        "dense": {
            "_target_": "pneumonia.models.heads.dense",
            "units": 16,
            "dropout": 0.3,
            "activation": "relu",
        },
        "optimizer": {"_target_": "keras.optimizers.Adam", "learning_rate": 0.003},
        "training": {
            "batch_size": 32,
            "loss": {"_target_": "keras.losses.BinaryCrossentropy"},
            "metrics": {
                "accuracy": {"_target_": "keras.metrics.BinaryAccuracy"},
                "auc": {"_target_": "pneumonia.evaluation.metrics.roc_auc", "_partial_": True},
            },
            "class_weight": "balanced",
            "early_stopping": None,
            "executions_per_trial": 1,
            "jit": False,  # to compile by XLA takes a second
        },
    }
    for path, value in changes.items():
        group, _, key = path.partition("__")
        result[group] = {**result[group], key: value}
    return result


def run(
    cfg: Config, folder: Path, epochs: int, name: str = "0", parent: str | None = None
) -> Outcome:
    task = Task(name, cfg, epochs, parent, keeps_classifier=False)
    return trial.run(task, FolderStore(folder), Hooks())


def states(folder: Path, name: str) -> tuple[FitState, ...]:
    return checkpoint.read(FolderStore(folder), name)


def state(folder: Path, name: str) -> FitState:
    return states(folder, name)[0]


def assert_same(one: FitState, other: FitState) -> None:
    assert one.history == other.history
    np.testing.assert_array_equal(one.predicted, other.predicted)
    for kind in ("model", "optimizer", "best"):
        for a, b in zip(getattr(one, kind), getattr(other, kind), strict=True):
            np.testing.assert_array_equal(a, b)


BLOG = {
    "_target_": "pneumonia.training.augment.geometric",
    "flip": True,
    "rotation": 10,
    "zoom": 0.1,
}


@pytest.mark.parametrize(
    ("model", "augment"),
    [
        slow("features", None),
        ("features", {**BLOG, "views": 2}),
        slow("features", {**BLOG, "views": "online"}),
        slow("cnn", None),
        slow("cnn", {**BLOG, "views": "online"}),
        slow("fine", None),
    ],
)
def test_promoted_equals_straight_bit_for_bit(
    model: str, augment: Config | None, tmp_path: Path
) -> None:
    cfg = config(tmp_path, model, training__jit="auto")
    cfg["augment"] = augment or cfg["augment"]
    told: list[int] = []
    run(cfg, tmp_path, 7, "straight")
    run(cfg, tmp_path, 3, "first")
    other = config(tmp_path, model, optimizer__learning_rate=0.1, dense__dropout=0.5)
    run(other, tmp_path, 2, "between")
    task = Task("promoted", cfg, 7, "first", keeps_classifier=False)
    hooks = Hooks(on_epoch=lambda trial_id, fit, epoch, metrics: told.append(epoch))
    trial.run(task, FolderStore(tmp_path), hooks)
    assert told == [4, 5, 6, 7]
    assert_same(state(tmp_path, "promoted"), state(tmp_path, "straight"))


class Spy:
    """Counts the epochs that are trained, and breaks off after one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.trained = 0
        self.repeated: list[tuple[str, str]] = []
        self.store = FolderStore(folder)
        train = compiled_loop.Program.train

        def counted(program: compiled_loop.Program, chunks: Any) -> Any:
            self.trained += 1
            return train(program, chunks)

        monkeypatch.setattr(compiled_loop.Program, "train", counted)

    def run(self, task: Task, *, until: int | None = None) -> tuple[list[tuple[int, int]], int]:
        """Run a trial; return the epochs that it told of, and how many it trained."""
        told: list[tuple[int, int]] = []
        before = self.trained

        def on_epoch(trial_id: str, fit: Fit, epoch: int, metrics: Metrics) -> None:
            if self.trained - before == until:
                raise KeyboardInterrupt
            told.append((fit.fold or fit.execution, epoch))

        with contextlib.suppress(KeyboardInterrupt):
            self.outcome = trial.run(task, self.store, self.hooks(on_epoch))
        return told, self.trained - before

    def hooks(self, on_epoch: Any = lambda *_: None) -> Hooks:
        return Hooks(on_epoch, on_repeat=lambda *told: self.repeated.append(told))


@pytest.mark.parametrize(
    ("model", "several"),
    [
        slow("features", "training__executions_per_trial"),
        ("features", "objective__folds"),
        slow("fine", "training__executions_per_trial"),
    ],
)
def test_a_trial_broken_off_goes_on_from_its_last_epoch(
    model: str, several: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_SHARE", math.inf)  # after every epoch, however fast
    cfg = config(tmp_path, model, **{several: 2})
    run(cfg, tmp_path, 2, "parent")
    run(cfg, tmp_path, 5, "whole", parent="parent")
    broken = Task("broken", cfg, 5, "parent", keeps_classifier=False)
    spy = Spy(monkeypatch, tmp_path)
    # It has no time to tell of the epoch after which it ends.
    assert spy.run(broken, until=2) == ([(0, 3)], 2)
    names = {path.name for path in (tmp_path / "trials").iterdir()}
    assert names == {"broken.zip", "parent-1.zip", "parent.zip", "whole-1.zip", "whole.zip"}
    told, trained = spy.run(broken, until=3)
    assert (told[2:], trained) == ([(0, 3), (0, 4), (0, 5), (1, 3)], 3)
    told, trained = spy.run(broken)
    assert (told[-3:], trained) == ([(1, 3), (1, 4), (1, 5)], 1)
    assert spy.repeated == []
    for one, other in zip(*(states(tmp_path, name) for name in ("broken", "whole")), strict=True):
        assert_same(one, other)


def damage(folder: Path, name: str, how: str) -> None:
    """Damage the state of a trial."""
    path = folder / state_key(name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content[: len(content) // 2] if how == "half" else content)
    if how == "missing":
        path.unlink()


@pytest.mark.parametrize("how", [slow("half"), "flipped", "missing"])
def test_a_state_that_is_lost_is_made_again_and_told(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_SHARE", math.inf)
    cfg = config(tmp_path)
    run(cfg, tmp_path, 3, "parent")
    run(cfg, tmp_path, 5, "whole", parent="parent")
    spy = Spy(monkeypatch, tmp_path)
    task = Task("0", cfg, 5, "parent", keeps_classifier=False)
    spy.run(task, until=1)
    for name in ("0", "parent"):
        damage(tmp_path, name, how)
    assert spy.run(replace(task, has_begun=True))[1] == 5
    assert_same(state(tmp_path, "0"), state(tmp_path, "whole"))
    what = "missing" if how == "missing" else "damaged"
    assert spy.repeated == [
        ("0", f"trials/0.zip is {what}."),
        ("0", f"trials/parent.zip is {what}."),
    ]
    best = trial.best_weights(task, spy.store, spy.hooks())
    damage(tmp_path, "0", how)
    spy.repeated.clear()
    again = trial.best_weights(task, spy.store, spy.hooks())
    assert spy.repeated == [("0", f"trials/0.zip is {what}.")]
    for one, other in zip(best, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("how", ["flipped", "missing"])
@pytest.mark.parametrize("whose", ["0", "parent"])
def test_a_state_that_is_lost_fails_the_trial_where_it_would_not_be_the_same(
    whose: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_SHARE", math.inf)
    cfg = config(tmp_path)
    run(cfg, tmp_path, 2, "parent")
    spy = Spy(monkeypatch, tmp_path)
    task = Task("0", cfg, 4, "parent", keeps_classifier=False, unrepeatable="this is elsewhere")
    if whose == "0":
        spy.run(task, until=1)
        task = replace(task, has_begun=True)
    damage(tmp_path, whose, how)
    trained = spy.trained
    assert spy.run(task) == ([], 0)
    assert spy.trained == trained
    assert (spy.outcome.status, spy.outcome.score, spy.outcome.traceback) == ("FAILED", None, "")
    what = "missing" if how == "missing" else "damaged"
    assert spy.outcome.reason.startswith(
        f"trials/{whose}.zip is {what}. Trained again it would not be the same, as this is "
        "elsewhere."
    )
    assert spy.repeated == []
    with pytest.raises(StateError, match=r"trials/nothing\.zip is missing"):
        trial.best_weights(replace(task, trial_id="nothing"), spy.store, spy.hooks())


def test_a_trial_that_is_stopped_gives_what_it_has(tmp_path: Path) -> None:
    def stop() -> None:
        if told:
            raise StopTrial

    told: list[int] = []
    store, task = FolderStore(tmp_path), Task("0", config(tmp_path), 5)
    hooks = Hooks(on_epoch=lambda _, fit, epoch, m: told.append(epoch), between_epochs=stop)
    outcome = trial.run(task, store, hooks)
    assert (outcome.status, outcome.best_epoch, len(outcome.history)) == ("STOPPED", 1, 1)
    assert outcome.score == outcome.metrics["val_auc"]
    again = trial.run(task, store, hooks)
    assert again.history == outcome.history
    nothing = trial.run(replace(task, trial_id="1"), store, hooks)
    assert (nothing.status, nothing.score) == ("STOPPED", None)
    assert len(trial.run(task, store, Hooks()).history) == 5


def test_a_trial_that_fails_leaves_no_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        assert (tmp_path / state_key("0")).exists()
        raise MemoryError

    outcome = trial.run(Task("0", config(tmp_path), 5), FolderStore(tmp_path), Hooks(fail))
    assert (outcome.status, outcome.reason) == ("FAILED", "MemoryError")
    assert list((tmp_path / "trials").iterdir()) == []


@pytest.mark.parametrize("model", ["features", slow("cnn")])
def test_learns(model: str, tmp_path: Path) -> None:
    result = run(config(tmp_path, model, dense__dropout=0.0), tmp_path, 25)
    assert result.history[-1]["loss"] < 0.9 * result.history[0]["loss"]
    assert result.score == max(metrics["val_auc"] for metrics in result.history)
    assert result.history[result.best_epoch - 1]["val_auc"] == result.score
    assert result.metrics.keys() == {
        "loss", "accuracy", "auc", "val_loss", "val_accuracy", "val_auc"
    }  # fmt: skip


@pytest.mark.parametrize("model", [slow("features"), "cnn", slow("fine")])
def test_the_classifier_gives_the_measured_probabilities(model: str, tmp_path: Path) -> None:
    cfg = config(tmp_path, model)
    task, store = Task("0", cfg, 3), FolderStore(tmp_path)
    result = trial.run(task, store, Hooks())
    assert result.classifier is not None
    whole = classifier.load(tmp_path / result.classifier)
    split = cache.load_data(cfg).val
    expected = whole.predict(split.images.read(np.arange(len(split))), verbose=0)[:, 0]
    feed = inputs.plain_feed(cfg, split, report=lambda *_: None)
    weights = trial.best_weights(task, store, Hooks())
    np.testing.assert_allclose(network.predict(cfg, weights, feed), expected, atol=1e-5)
    # What was measured in training is what the classifier gives.
    auc = metrics.roc_auc(split.labels, expected)
    assert auc == pytest.approx(result.score, abs=1e-3)


@pytest.mark.slow
def test_cached_features_train_as_the_whole_frozen_model_does(tmp_path: Path) -> None:
    cached = config(tmp_path, "features", augment__views=1)
    cached["augment"] = {**BLOG, "views": 1}
    through = config(tmp_path, "features")
    run(cached, tmp_path, 4, "cached")
    built, data = inputs.parts(cached), cache.load_data(cached)
    stored = inputs.prepare(cached, report=lambda *_: None).train

    class Through:
        """Gives the images of the one view through the backbone, whenever they are asked for."""

        def __len__(self) -> int:
            return len(data.train)

        def whole(self) -> None:
            """Give nothing: every reading goes through the backbone."""

        def read(self, epoch: int, indices: Any) -> Any:
            from pneumonia.models.classifier import resize
            from pneumonia.training.augment import View
            from pneumonia.training.feature_cache import digest

            about = digest(None, {k: v for k, v in cached["augment"].items() if k != "views"})
            pipeline = inputs.build(dict(BLOG), "augment")
            view = View(pipeline, about, 0, 1)
            images = [
                view.render(resize(data.train.images.read(np.arange(s, min(s + 128, 120))), 32), s)
                for s in (0,)
            ]
            return built.backbone.predict(np.concatenate(images), verbose=0)[indices]

    whole = Through()
    np.testing.assert_allclose(
        stored.read(1, np.arange(120)), whole.read(1, np.arange(120)), atol=1e-4
    )
    prepared = inputs.prepare(through, report=lambda *_: None)
    fed = inputs.Inputs(
        whole, prepared.val, prepared.train_labels, prepared.train_weights, prepared.val_labels
    )
    model = network.trainable(through, 0)
    one = Training(model, fed, through, 1)
    done = loop.train(one, 4, begin=None, tell=lambda *_: None)
    for one, other in zip(done.history, state(tmp_path, "cached").history, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_without_the_cache_the_same_result(tmp_path: Path) -> None:
    for views in (1, "online"):
        kept = config(tmp_path)
        kept["augment"] = {**BLOG, "views": views}
        anew = config(tmp_path, features__cache=False)
        anew["augment"] = kept["augment"]
        run(kept, tmp_path, 2, f"kept-{views}")
        files = sorted((tmp_path / "features").iterdir())
        run(anew, tmp_path, 2, f"anew-{views}")
        assert sorted((tmp_path / "features").iterdir()) == files
        assert_same(state(tmp_path, f"kept-{views}"), state(tmp_path, f"anew-{views}"))


def test_first_weights_do_not_depend_on_what_other_threads_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    startup.start()
    expected, build = network.trainable(config(tmp_path), 0).get_weights(), keras.layers.Dense.build

    def disturbed(self: keras.layers.Dense, input_shape: Any) -> None:
        random.random()  # as urllib3 does before it tries again
        build(self, input_shape)

    monkeypatch.setattr(keras.layers.Dense, "build", disturbed)
    found = network.trainable(config(tmp_path), 0).get_weights()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_same_seed_same_result_other_seed_other_result(tmp_path: Path) -> None:
    cfg = config(tmp_path, "cnn")
    run(cfg, tmp_path, 2, "a")
    run(cfg, tmp_path, 2, "b")
    run({**cfg, "seed": 2}, tmp_path, 2, "c")
    assert_same(state(tmp_path, "a"), state(tmp_path, "b"))
    assert state(tmp_path, "a").history != state(tmp_path, "c").history


def drawing_head(shape: tuple[int, ...], *, op_seed: int | None = None) -> keras.Model:
    """Stand in for a user's head, whose weights TensorFlow's own generator draws."""
    features = keras.Input(shape, name="features")
    dense = keras.layers.Dense(1, activation="sigmoid")
    outputs = dense(features)
    dense.kernel.assign(tf.random.uniform(dense.kernel.shape, seed=op_seed))
    return keras.Model(features, outputs, name="head")


@pytest.mark.parametrize(
    "dense",
    [
        {
            "_target_": "pneumonia.models.heads.dense",
            "units": 16,
            "dropout": 0.3,
            "activation": "relu",
        },
        {"_target_": "test_trial.drawing_head"},
        {"_target_": "test_trial.drawing_head", "op_seed": 7},
    ],
)
def test_initial_weights_do_not_depend_on_what_was_drawn_before(
    dense: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    settings = config(tmp_path) | {"dense": dense}
    first = network.trainable(settings, 0).get_weights()
    other = network.trainable(settings, 1).get_weights()
    random.random(), np.random.rand(), tf.random.uniform((3,))
    again = network.trainable(settings, 0).get_weights()
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert not np.array_equal(first[0], other[0])


def test_early_stopping_stops_and_stays_stopped(tmp_path: Path) -> None:
    rule = {"patience": 2, "min_delta": 10.0}
    cfg = config(tmp_path, training__early_stopping=rule)
    assert len(run(cfg, tmp_path, 9, "straight").history) == 3
    run(cfg, tmp_path, 2, "first")
    assert len(run(cfg, tmp_path, 9, "second", parent="first").history) == 3
    assert_same(state(tmp_path, "straight"), state(tmp_path, "second"))


def test_executions_are_averaged_and_differ(tmp_path: Path) -> None:
    cfg = config(tmp_path, training__executions_per_trial=2)
    seen: list[tuple[int, int, float]] = []
    hooks = Hooks(lambda _, fit, epoch, m: seen.append((fit.execution, epoch, m["val_auc"])))
    result = trial.run(Task("0", cfg, 3), FolderStore(tmp_path), hooks)
    best = [max(auc for k, _, auc in seen if k == execution) for execution in (0, 1)]
    assert [(k, e) for k, e, _ in seen] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
    assert result.score == pytest.approx(np.mean(best))
    assert seen[0] != seen[3]


def test_every_fold_is_held_out_once_and_the_score_is_their_mean(tmp_path: Path) -> None:
    cfg = config(tmp_path, objective__folds=2, training__executions_per_trial=2)
    seen: dict[Fit, list[float]] = {}
    hooks = Hooks(lambda _, fit, epoch, m: seen.setdefault(fit, []).append(m["val_auc"]))
    store = FolderStore(tmp_path)
    result = trial.run(Task("0", cfg, 2), store, hooks)
    assert list(seen) == [Fit(0, 0), Fit(0, 1), Fit(1, 0), Fit(1, 1)]
    best = [max(values) for values in seen.values()]
    assert (result.score, result.spread) == (statistics.fmean(best), statistics.stdev(best))
    assert (result.metrics["val_auc"], result.classifier) == (result.score, None)
    fits, labels = checkpoint.read(store, "0"), held_out.labels(cfg)
    predicted = held_out.gather(cfg, [fit.predicted for fit in fits])
    assert (predicted.shape, predicted.dtype) == ((2, 180), np.float32)
    fold_of = folds.divide(cache.load_data(cfg), 2, seed=1)
    for fit, value in zip(seen, best, strict=True):
        rows = fold_of == fit.fold
        assert metrics.roc_auc(labels[rows], predicted[fit.execution, rows]) == value
    # Train and val went through the backbone once each.
    assert len(list((tmp_path / "features").glob("*.npy"))) == 2


def test_what_a_plain_trial_gave_for_val_is_kept(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    result = run(cfg, tmp_path, 3)
    fits = checkpoint.read(FolderStore(tmp_path), "0")
    predicted = held_out.gather(cfg, [fit.predicted for fit in fits])
    assert metrics.roc_auc(held_out.labels(cfg), predicted[0]) == result.score
    assert (len(predicted), result.spread) == (1, None)


@pytest.mark.parametrize(
    ("several", "ranks"), [("objective__folds", 0), ("training__executions_per_trial", 1)]
)
def test_a_trial_that_is_stopped_is_ranked_by_complete_fits_alone(
    several: str, ranks: int, tmp_path: Path
) -> None:
    def stop() -> None:
        if len(told) == enough:
            raise StopTrial

    told: list[Metrics] = []
    cfg = config(tmp_path, **{several: 2})
    hooks = Hooks(on_epoch=lambda _, fit, epoch, m: told.append(m), between_epochs=stop)
    for enough in (3, 4, 5):
        told.clear()
        outcome = trial.run(Task("0", cfg, 3), FolderStore(tmp_path), hooks)
        assert (outcome.status, len(told)) == ("STOPPED", enough)
        best = max(metrics["val_auc"] for metrics in told[:3])
        assert outcome.score == (best if ranks else None)
    first, second = checkpoint.read(FolderStore(tmp_path), "0")
    better = tuple({**epoch, "val_auc": 1.0} for epoch in second.history)
    checkpoint.save(tmp_path / state_key("0"), replace(second, history=better), before=1)
    if ranks:
        weights = trial.best_weights(Task("0", cfg, 3), FolderStore(tmp_path), Hooks())
        assert all(map(np.array_equal, weights, first.best))
    outcome = trial.run(Task("0", cfg, 3), FolderStore(tmp_path), Hooks())
    assert outcome.score is not None


def test_what_stops_a_trial_is_told_where_a_disk_refuses_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def stop() -> None:
        if told:
            monkeypatch.setattr(checkpoint, "save", refuse)
            raise reason

    told: list[int] = []
    hooks = Hooks(on_epoch=lambda *_: told.append(1), between_epochs=stop)
    task = Task("0", config(tmp_path), 3)
    reason: BaseException = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt) as caught:
        trial.run(task, FolderStore(tmp_path), hooks)
    assert "No space left" in caught.value.__notes__[0]
    reason = StopTrial()
    told.clear()
    monkeypatch.undo()
    with pytest.raises(StorageError, match="No space left"):
        trial.run(replace(task, trial_id="1"), FolderStore(tmp_path), hooks)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_a_training_that_diverges_says_so(tmp_path: Path) -> None:
    cfg = config(tmp_path, "cnn")
    cfg["optimizer"] = {"_target_": "keras.optimizers.SGD", "learning_rate": 1e30}
    cfg["dense"]["activation"] = "linear"
    outcome = run(cfg, tmp_path, 5)
    assert "diverged" in outcome.reason
    assert "epoch" in outcome.reason


def test_an_unknown_layer_is_a_config_error(tmp_path: Path) -> None:
    outcome = run(config(tmp_path, "cnn", model__layer="block9_pool"), tmp_path, 1)
    assert outcome.reason.startswith("`model.layer`: expected")


def test_class_weights() -> None:
    labels = np.array([0, 1, 1, 1])
    np.testing.assert_allclose(inputs.class_weights(labels, "balanced"), [2, 2 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(inputs.class_weights(labels, None), [1, 1, 1, 1])
    np.testing.assert_allclose(inputs.class_weights(labels, {0: 1, 1: 0.5}), [1, 0.5, 0.5, 0.5])


def test_retraining_uses_train_and_val(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    joined = inputs.prepare(cfg, report=lambda *_: None, joined=True)
    assert len(joined.train) == len(joined.train_labels) == 180
    indices = np.array([0, 150, 5, 121])
    both = joined.train.read(1, indices)
    np.testing.assert_array_equal(both[1], joined.val.read(1, np.array([30]))[0])
    weights = network.retrain(cfg, 3, temperature=1.0, report=lambda *_: None)
    run(cfg, tmp_path, 3, "a")
    assert any(
        not np.array_equal(one, other)
        for one, other in zip(weights, state(tmp_path, "a").model, strict=True)
    )
