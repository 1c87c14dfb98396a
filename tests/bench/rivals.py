"""What others would do with the same data: run by `run.py`, each in a process of its own.

Prints one JSON line: what was measured.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

BATCH, MAX_EPOCHS, FACTOR, MAX_TRIALS = 32, 20, 3, 30
UNITS, DROPOUTS, RATES = [128, 256, 512, 1024], [0.1, 0.2, 0.3, 0.4, 0.5], [1e-4, 1e-3, 1e-2]


def study(path: str, epochs: int = 2) -> dict[str, Any]:
    """Time epochs of the study's own loop: augmentation and the frozen network in every epoch."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    data = np.load(path)
    augment = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomRotation(10 / 360),
            keras.layers.RandomZoom(0.1),
        ]
    )

    def images(split: str) -> tf.data.Dataset:
        x, y = data[f"{split}_images"], data[f"{split}_labels"][:, 0].astype(np.float32)

        def load(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image = tf.repeat(tf.cast(image, tf.float32)[..., None], 3, axis=-1) / 255
            return tf.image.resize(image, (150, 150)), label

        found = tf.data.Dataset.from_tensor_slices((x, y))
        if split == "train":
            found = found.shuffle(len(x))
        found = found.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH)
        if split == "train":
            found = found.map(lambda x, y: (augment(x, training=True), y))
        return found.prefetch(2)

    network = keras.applications.InceptionV3(
        weights=None, include_top=False, input_shape=(150, 150, 3)
    )
    network.trainable = False
    x = keras.layers.Flatten()(network.get_layer("mixed7").output)
    x = keras.layers.Dropout(0.1)(keras.layers.Dense(512, "relu")(x))
    model = keras.Model(network.input, keras.layers.Dense(1, "sigmoid")(x))
    model.compile(keras.optimizers.RMSprop(1e-3), "binary_crossentropy", metrics=["accuracy"])
    seconds: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.monotonic()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds.append(time.monotonic() - self.began)

    model.fit(
        images("train"), validation_data=images("val"), epochs=epochs, verbose=0,
        callbacks=[Clock()],
    )  # fmt: skip
    return {"epoch_seconds": seconds}


def features(path: str) -> dict[str, Any]:
    """Store the features of a search of ours, given by its folder, for the others to use."""
    from omegaconf import OmegaConf

    from pneumonia.config.search_space import collapse, find
    from pneumonia.training import inputs
    from pneumonia.training.feeds import read_all

    cfg = OmegaConf.load(Path(path) / "config.yaml")
    config = collapse(cfg, find(cfg).start())
    prepared = inputs.prepare(config, report=lambda *_: None)
    target = Path(path) / "features.npz"
    np.savez(
        target,
        train_x=read_all(prepared.train),
        train_y=prepared.train_labels.astype(np.float32),
        val_x=read_all(prepared.val),
        val_y=prepared.val_labels.astype(np.float32),
    )
    return {"path": str(target)}


def _features(path: str) -> dict[str, Any]:
    found = np.load(path)
    return {name: found[name] for name in found.files}


def _head(units: int, dropout: float, rate: float, width: int) -> Any:
    import keras

    model = keras.Sequential(
        [
            keras.Input((width,)),
            keras.layers.Dense(units, "relu"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(1, "sigmoid"),
        ]
    )
    metrics = ["accuracy", keras.metrics.AUC(name="auc")]
    model.compile(keras.optimizers.RMSprop(rate), "binary_crossentropy", metrics=metrics)
    return model


def keras_tuner(path: str) -> dict[str, Any]:
    """Run KerasTuner's own Hyperband on stored features."""
    import keras_tuner as kt

    data = _features(path)
    width = data["train_x"].shape[1]
    counted = {"trials": 0, "epochs": 0}

    def build(hp: kt.HyperParameters) -> Any:
        return _head(
            hp.Choice("units", UNITS),
            hp.Choice("dropout", DROPOUTS),
            hp.Choice("learning_rate", RATES),
            width,
        )

    class Counted(kt.Hyperband):
        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
            values = trial.hyperparameters.values
            counted["trials"] += 1
            counted["epochs"] += values["tuner/epochs"] - values["tuner/initial_epoch"]
            return super().run_trial(trial, *args, **kwargs)

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tuner = Counted(
            build,
            objective=kt.Objective("val_auc", "max"),
            max_epochs=MAX_EPOCHS,
            factor=FACTOR,
            seed=1,
            directory=folder,
        )
        tuner.oracle.max_trials = MAX_TRIALS
        tuner.search(
            data["train_x"],
            data["train_y"],
            validation_data=(data["val_x"], data["val_y"]),
            batch_size=BATCH,
            verbose=0,
        )
    return {"seconds": time.monotonic() - began, **counted}


def optuna(path: str) -> dict[str, Any]:
    """Run Optuna's default sampler on stored features, with as many trials and epochs."""
    import keras
    import optuna as library

    library.logging.set_verbosity(library.logging.ERROR)
    data = _features(path)

    def objective(trial: library.Trial) -> float:
        keras.utils.clear_session()
        model = _head(
            trial.suggest_categorical("units", UNITS),
            trial.suggest_categorical("dropout", DROPOUTS),
            trial.suggest_categorical("learning_rate", RATES),
            data["train_x"].shape[1],
        )
        history = model.fit(
            data["train_x"],
            data["train_y"],
            validation_data=(data["val_x"], data["val_y"]),
            batch_size=BATCH,
            epochs=EPOCHS_EACH[trial.number],
            verbose=0,
        )
        return float(max(history.history["val_auc"]))

    began = time.monotonic()
    study = library.create_study(direction="maximize", sampler=library.samplers.TPESampler(seed=1))
    study.optimize(objective, n_trials=len(EPOCHS_EACH))
    return {
        "seconds": time.monotonic() - began,
        "trials": len(EPOCHS_EACH),
        "epochs": sum(EPOCHS_EACH),
    }


def folder(path: str) -> dict[str, Any]:
    """Make a folder of image files: the real ones, linked until there are enough."""
    from PIL import Image

    target, count = Path(sys.argv[3]), int(sys.argv[4])
    data = np.load(path)
    images = np.concatenate([data[f"{split}_images"] for split in ("train", "val", "test")])
    labels = np.concatenate([data[f"{split}_labels"][:, 0] for split in ("train", "val", "test")])
    names = [target / ("normal", "pneumonia")[label] / f"{i}" for i, label in enumerate(labels)]
    for name, image in zip(names, images, strict=True):
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(name.with_suffix(".png"))
    for i in range(len(names), count):
        source = names[i % len(names)]
        (source.parent / f"{i}.png").hardlink_to(source.with_suffix(".png"))
    return {"path": str(target)}


def peak(path: str) -> dict[str, Any]:
    """Measure the rate of matrix products, in 10^9 operations a second."""
    import tensorflow as tf

    found = {}
    size, times = 2048, 8
    for dtype in ("float32", "bfloat16"):
        a = tf.cast(tf.random.normal((size, size)), dtype)
        product = tf.function(lambda a: tf.matmul(a, a))
        product(a)
        began = time.monotonic()
        for _ in range(times):
            result = product(a)
        result.numpy()
        found[dtype] = 2 * size**3 * times / (time.monotonic() - began) / 1e9
    return found


def apart(path: str) -> dict[str, Any]:
    """Measure how many times as many matrix products two processes make as one, a thread each."""
    ratios = []
    with ProcessPoolExecutor(2, get_context("spawn"), initializer=_use_one_thread) as pool:
        list(pool.map(_products, [1.0, 1.0]))  # both have begun
        for _ in range(5):
            one = pool.submit(_products, 2.0).result()
            ratios.append(sum(pool.map(_products, [2.0, 2.0])) / one)
    return {"ratio": statistics.median(ratios)}


def _use_one_thread() -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)


def _products(seconds: float) -> float:
    import tensorflow as tf

    a, count, began = tf.random.normal((512, 512)), 0, time.monotonic()
    while time.monotonic() - began < seconds:
        tf.matmul(a, a).numpy()
        count += 1
    return count / seconds


def extraction(path: str, images: int = 512) -> dict[str, Any]:
    """Time the extraction alone: InceptionV3 to mixed7 at 150 pixels, images a second."""
    import keras
    import tensorflow as tf

    from pneumonia.models import backbones
    from pneumonia.training import frozen_graph

    keras.utils.set_random_seed(1)
    model = backbones.inception_v3(image_size=150, weights=None, layer="mixed7", pooling="avg")
    batch = np.random.default_rng(0).uniform(0, 255, (128, 150, 150, 3)).astype(np.float32)
    found: dict[str, Any] = {}
    plain = tf.function(lambda x: model(x, training=False))
    ways = {
        "plain float32": lambda: plain(batch),
        "float32": lambda: frozen_graph.call((model,), batch, "float32")[0],
        "bfloat16": lambda: frozen_graph.call((model,), batch, "bfloat16")[0],
    }
    for name, way in ways.items():
        if name == "bfloat16" and not frozen_graph.has_bfloat16():
            continue
        way()
        began = time.monotonic()
        for _ in range(images // len(batch)):
            np.asarray(way())
        found[name] = images / (time.monotonic() - began)
    return found


WIDE, WIDE_UNITS, IMAGES = 37_632, 512, 4_708


def _wide() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    labels = (rng.random(IMAGES) < 0.7).astype(np.float32)
    return rng.random((IMAGES, WIDE), dtype=np.float32), labels


def wide_keras(path: str) -> dict[str, Any]:
    """Time an epoch of a head on flattened features by Keras' own `fit`."""
    x, y = _wide()
    model = _head(WIDE_UNITS, 0.1, 1e-4, WIDE)
    took = []
    for _ in range(3):
        began = time.monotonic()
        model.fit(x, y, batch_size=BATCH, verbose=0)
        took.append(time.monotonic() - began)
    return {"epoch_seconds": min(took)}


def wide_ours(path: str) -> dict[str, Any]:
    """Time the same epoch by our engine."""
    import keras
    import tensorflow as tf

    from pneumonia.models import heads
    from pneumonia.training import compiled_loop

    x, y = _wide()
    inputs = keras.Input((WIDE,))
    head = heads.dense((WIDE,), units=WIDE_UNITS, dropout=0.1, activation="relu")
    model = keras.Model(inputs, head(inputs))
    optimizer = keras.optimizers.RMSprop(1e-4)
    program = compiled_loop.program(model, optimizer, loss=keras.losses.BinaryCrossentropy())
    program.start(model, learning_rate=1e-4, seed=1)
    steps = -(-IMAGES // BATCH)
    index = np.resize(np.arange(IMAGES, dtype=np.int32), (steps, BATCH))
    weights = np.ones((steps, BATCH), np.float32)
    chunk = compiled_loop.Chunk(tf.constant(x), index, y[index], weights, steps)
    took = []
    for _ in range(4):
        began = time.monotonic()
        program.train([chunk])
        took.append(time.monotonic() - began)
    return {"epoch_seconds": min(took)}


def fit(path: str) -> dict[str, Any]:
    """Time epochs of Keras' own `fit` of a network that trains, with `augment=chest` before it."""
    import keras

    from pneumonia.models import backbones, heads
    from pneumonia.models.classifier import resize
    from pneumonia.training import augment

    keras.utils.set_random_seed(1)
    network = sys.argv[3]
    data, size = np.load(path), 112 if network == "efficientnet_lite0" else 28
    if network == "efficientnet_lite0":
        backbone = backbones.efficientnet_lite(image_size=size, trainable="block3a_expand_conv")
    else:
        backbone = backbones.cnn(image_size=size, blocks=2, filters=32)
    head = heads.dense(backbone.output.shape[1:], units=256, dropout=0.3)
    changes = augment.chest(crop=0.15, shift=0.05, brightness=0.1, contrast=0.2)
    image = keras.Input((size, size, 3))
    model = keras.Model(image, head(backbone(changes(image))))
    model.compile(keras.optimizers.Adam(1e-4), "binary_crossentropy", metrics=["accuracy"])
    (x, y), val = (
        (resize(data[f"{name}_images"][..., None], size), data[f"{name}_labels"][:, 0])
        for name in ("train", "val")
    )
    took = []
    for _ in range(3):
        began = time.monotonic()
        model.fit(x, y, batch_size=BATCH, validation_data=val, verbose=0)
        took.append(time.monotonic() - began)
    return {"epoch_seconds": min(took)}


def operations(path: str) -> dict[str, Any]:
    """Count what a step of one image costs in fine-tuning, in 10^9 operations.

    A multiplication and an addition are two. Where weights train, the backward pass takes two
    products for the one of the forward pass.
    """
    import keras

    from pneumonia.models import backbones

    model = backbones.efficientnet_lite(image_size=112, trainable="block3a_expand_conv")
    frozen, rest = backbones.split(model)
    total = 0.0
    for part, passes in ((frozen, 1), (rest, 3)):
        for layer in part.layers:
            if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
                places = float(np.prod(layer.output.shape[1:3]))
                total += 2 * passes * places * float(np.prod(layer.kernel.shape)) / 1e9
    return {"operations": total}


def wide_limit(path: str) -> dict[str, Any]:
    """Time the parts of a step of that epoch, each alone; its kernel lies transposed."""
    import tensorflow as tf

    shape = (WIDE_UNITS, WIDE)
    w, v = tf.Variable(tf.zeros(shape)), tf.Variable(tf.ones(shape))
    g = tf.random.normal(shape)
    x, dz = tf.random.normal((BATCH, WIDE)), tf.random.normal((BATCH, WIDE_UNITS))

    @tf.function(jit_compile=True)
    def copy() -> None:
        w.assign(g + 1.0)

    @tf.function(jit_compile=True)
    def update() -> None:
        v.assign(0.9 * v + 0.1 * g * g)
        w.assign_sub(1e-4 * g * tf.math.rsqrt(v + 1e-7))

    repeats = 10

    @tf.function(jit_compile=True)
    def products() -> tuple[tf.Tensor, tf.Tensor]:
        # In one call, so that the results are written where the ones before them were.
        def body(i: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, ...]:
            scale = tf.cast(i, tf.float32)
            forward = tf.matmul(w, scale * x, transpose_b=True)
            return i + 1, forward, tf.matmul(scale * dz, x, transpose_a=True)

        start = (0, tf.zeros((WIDE_UNITS, BATCH)), tf.zeros(shape))
        _, forward, backward = tf.while_loop(lambda i, *_: i < repeats, body, start)
        return forward[0, 0], backward[0, 0]

    def milliseconds(function: Any, times: int = 20) -> float:
        function()
        began = time.monotonic()
        for _ in range(times):
            function()
        return 1000 * (time.monotonic() - began) / times

    array = 4e-6 * WIDE * WIDE_UNITS  # MB
    copied, updated = milliseconds(copy), milliseconds(update)
    return {
        "copy_gb_s": 2 * array / copied,
        "update_ms": updated,
        "update_gb_s": 5 * array / updated,
        "products_ms": milliseconds(products, times=5) / repeats,
    }


if __name__ == "__main__":
    what, source, *rest = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).parents[2]))
    EPOCHS_EACH = json.loads(rest[0]) if what == "optuna" else []
    print(json.dumps(globals()[what](source)))
