"""Everything that a user may get wrong, typed at the real command, in a project of its own.

All are tried one after the other in one fresh process, so that what it has imported tells whether
a mistake was found in time. What the config alone shows is in `test_config.MISTAKES` and `TYPED`,
what only the data show in `DATA`.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import chosen, slow
from PIL import Image
from test_validate import MISTAKES

from pneumonia.datasets import dicom

ROOT = Path(__file__).parents[2]
SPLITS = ("train", "val", "test")
TRACE = "executed"

Case = tuple[list[str], str]
Arrays = dict[str, Any]

# Reads a list of command lines; writes what became of each.
RUNNER = """
import contextlib, io, json, os, sys, time, traceback
from pathlib import Path
from pneumonia.cli import main as cli
from pneumonia.tracking import tracker as tracking
import composing
composing.keep()
tracking.prepare = lambda: None  # a process for MLflow, of which no case has need
out, results = sys.stdout, []
for arguments in json.load(sys.stdin):
    sys.argv, said, told = ["pneumonia", *arguments], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
        start = time.perf_counter()
        try:
            status = cli.main()
        except SystemExit as error:
            status = error.code
        except BaseException:
            status = traceback.format_exc()
        seconds = time.perf_counter() - start
    files = [*Path("mlruns").rglob("*"), *Path("outputs").rglob("*")]
    heavy = [name for name in ("tensorflow", "keras", "mlflow") if name in sys.modules]
    left = [str(path) for path in files]
    results.append([status, said.getvalue(), told.getvalue(), seconds, heavy, left])
json.dump(results, out)
"""

# What else a new user types: options, quotes, ranges of other libraries, files that are others.
TYPED: list[Case] = [
    # Options
    (["--dense.units=64"], "Keys are written without dashes: dense.units=64."),
    (["--dense.units", "64"], "Keys are written without dashes: dense.units=<value>"),
    (["-dense.units=64"], "Keys are written without dashes: dense.units=64."),
    (["--resume", "last"], "Keys are written without dashes: resume=<value>"),
    (["--experiment", "demo"], "Keys are written without dashes: experiment=<value>"),
    (["--experimental-rerun", "evil.pickle"], "expected no rerun from a pickle"),
    (["--multirum"], "The nearest is `--multirun`"),
    (["--config-dir"], "`--config-dir`: expected a value. Received: ''"),
    (["--config-dir", "nowhere"], "`--config-dir`: expected an existing folder"),
    (["--config-dir", "evil", "model=evil"], "could not determine a constructor"),
    (["--config-name", "mine"], "expected no other main config than ours"),
    (["-c", "jobs"], "`--cfg`: expected one of job, hydra, all. Received: 'jobs'"),
    (["--cfg"], "`--cfg`: expected one of job, hydra, all. Received: ''"),
    (["--info", "nothing"], "`--info`: expected one of all, config"),
    (["-m", "--cfg", "job"], "expected one of --multirun, --cfg"),
    (["--resolve"], "`--resolve`: expected --cfg job beside it"),
    (["-sc"], 'eval "$(pneumonia -sc install=bash)"'),
    (["-sc", "install=tcsh"], "Received: 'install=tcsh'"),
    (["-sc", "query=bash"], "Received: 'query=bash'"),
    # Words and equals signs
    (["demo"], "Write experiment=demo"),
    (["cnn"], "Write model=cnn"),
    (["train"], "`train`: expected key=value. Received: 'train'"),
    (["help"], "Write --help"),
    (["resume"], "Write resume=<value>"),
    (["dense.unitz"], "The nearest is dense.units=<value>"),
    (["dense.units=", "64"], "`64`: expected key=value"),
    (["dense.units", "=64"], "without spaces around the equals sign"),
    (["dense.units:64"], "Write dense.units=64"),
    (["dense.units==64"], "Write dense.units=64."),
    (["dense.units=64,"], "There is a comma with nothing beside it"),
    (["dense.units='64"], "A quote is not closed"),
    (["dataset.path=a", "b"], "A value with spaces needs quotes of its own"),
    (["model.layer=a(b"], "Special characters need quotes of their own: 'model.layer=\"a(b\"'"),
    # Ranges of other libraries, bare and quoted
    (["dense.units=uniform(1,100)"], "Write 'dense.units=\"int(interval(1, 100))\"'"),
    (["dense.dropout='uniform(0,1)'"], "Did you mean interval(0, 1)?"),
    (["optimizer.learning_rate='loguniform(1e-4,1e-2)'"], "tag(log, interval(1e-4, 1e-2))?"),
    (["optimizer.learning_rate='log(interval(1e-4,1e-2))'"], "tag(log, interval(1e-4, 1e-2))?"),
    (["dense.units='randint(8,64)'"], "Did you mean int(interval(8, 64))?"),
    (["dense.units='categorical(8,64)'"], "Did you mean choice(8, 64)?"),
    (["dense.units='choice[8,64]'"], "Did you mean choice(8, 64)?"),
    (["dense.units=[8,64]"], "Did you mean choice(8, 64)?"),
    (["dense.units=8-64"], "Did you mean int(interval(8, 64))?"),
    (["dense.units='int(8,64)'"], "Did you mean int(interval(8,64)), or choice(8,64)?"),
    (["dense.units='interval(8'"], "Hydra's parser says"),
    (["dense.units='interval(8)'"], "missing a required argument: 'end'"),
    (["dense.units='range(64,8)'"], "stop is excluded"),
    (["dense.units='int(interval(64,8))'"], "low end comes first"),
    (["dense.units='choice(8,,64)'"], "Hydra's parser says"),
    (["dense.units='tag(log, choice(8,64))'"], "the tag log on an interval only"),
    (["dense.units='tag(default:9, choice(8,64))'"], "one of the range's values"),
    (["dense.units='shuffle(choice(8,64))'"], "Leave out shuffle"),
    (["dense.dropout=0,5"], "Write 0.5."),
    (["dense.dropout=50%"], "Received: '50%'"),
    (["dense.units=6e1"], "Did you mean 60?"),
    (["tuner.max_trials=choice(1,2)"], "One search each: -m 'tuner.max_trials=choice(1,2)'"),
    # Sweeps
    (["-m", "model=cnn,inceptionv3"], "The nearest is model=inception_v3"),
    (["-m", "seed=1,x"], "`seed`: expected an integer"),
    (["-m", "seed=interval(1,4)"], "`seed`: expected values for one search each, not an interval"),
    (["-m", "dense.units=interval(1,4)"], "One search over it: 'dense.units=\"interval(1,4)\"'"),
    (["-m", "tuner=choice(hyperband,randm)"], "The nearest is tuner=random"),
    (["-m", "model=*"], "Received: '*'"),
    # Groups, options and keys
    (["optimizer=adamax"], "It is chosen by optimizer=any optimizer.name=Adamax"),
    (["model=ResNet50"], "It is chosen by model=keras_application model.name=ResNet50"),
    (["dataset=some.npz"], "A path is given by dataset=npz dataset.path=some.npz"),
    (["dataset=flat"], "A path is given by dataset=image_folder dataset.path=flat"),
    (["dataset.path=some.npz"], "It is a key of dataset=image_folder and dataset=npz"),
    (["augment.flip=true"], "It is a key of augment=blog"),
    (["objective=val_auc"], "Write objective.name=..."),
    (["experiment=null"], "Leave it out for none"),
    (["experiment=demo,quick"], "For one search each: pneumonia -m 'experiment=demo,quick'"),
    (["experiment=flat"], "A file is given by its path with its ending"),
    (["experiment=text.npz.yaml"], "a YAML file that exists"),
    (["experiment=evil.yaml"], "could not determine a constructor"),
    (["experiment=broken.yaml"], "a YAML file that can be read"),
    (["experiment=deep.yaml"], "a YAML file that can be read"),
    (["experiment=list.yaml"], "a YAML file that holds a mapping"),
    (["experiment=empty.yaml"], "a YAML file that holds a mapping"),
    (["experiment=misspelt.yaml"], "`dense.unts`"),
    (["lr=0.1"], "The nearest is `optimizer.learning_rate`"),
    (["max_epoch=5"], "The nearest is `tuner.max_epochs`"),
    (["training.epochs=5"], "Write tuner.max_epochs=<number>"),
    (["batch_size=8"], "The nearest is `training.batch_size`"),
    (["Dense.Units=8"], "The nearest is `dense.units`"),
    (["+model=cnn"], "expected no + before a config group"),
    (["training.metrics=[auc]"], "`training.metrics`: expected a value that fits"),
    (["tuner._target_=random"], "Options are chosen by tuner=<option>"),
    (["optimizer._target_=keras.optimizers.adam"], "The nearest is keras.optimizers.Adam"),
    # Names in values
    (["model=keras_application", "model.name=densenet121"], "Did you mean DenseNet121?"),
    (["optimizer=any", "optimizer.name=lossscaleoptimizer"], "the name of an optimizer of Keras"),
    (["optimizer=any", "optimizer.name=adm"], "Did you mean adam?"),
    (["dense.activation=ReLU"], "Did you mean relu?"),
    (["dense.activation=get"], "the name of a Keras activation"),
    (["model.weights=none"], "Did you mean null?"),
    (["training.retrain=yes"], "Did you mean true?"),
    (["tracking.log_models=bets"], "Did you mean best?"),
    # Layers
    (["model.layer=mixed7"], "expected the name of a layer of efficientnet_lite"),
    (["model.layer=block5c"], "Did you mean block5c_add?"),
    (["model.layer='choice(block4c_add, block9x_add)'"], "Received: 'block9x_add'"),
    (["model=inception_v3", "model.layer=mixed11"], "Did you mean mixed1?"),
    (["model=cnn", "model.layer=block4_pool"], "expected the name of a layer of cnn"),
    (["model.trainable=tru"], "Did you mean true?"),
    (["model=inception_v3", "model.trainable=mixed_6"], "Did you mean mixed6?"),
    # Settings that do not go together, or are missing
    (["optimizer.name=sgd"], "An optimizer is chosen by optimizer=any optimizer.name=sgd"),
    (["model.name=inception_v3"], "An option of the group is chosen by model=inception_v3"),
    (["tuner=hyperband", "~tuner.max_epochs"], "`tuner.max_epochs`: expected a value"),
    (["tuner=hyperband", "tuner.max_epochs=null"], "`tuner.max_epochs`: expected a positive"),
    (["model.pooling=flatten", "model.image_size=null"], "`model.image_size`: expected an integer"),
    (["model.pooling=flatten", "~model.image_size"], "`model.image_size`: expected a value"),
    (["augment=blog", "model.trainable=true"], "`augment.views`: expected online, as nothing of"),
    (["augment=chest", "model=cnn"], "Write augment.views=online"),
    (["augment=none", "augment.views=4"], "expected 1, as augment=none renders nothing"),
    (["model=cnn", "model.weights=imagenet"], "`model.weights`: expected null, an existing file"),
    (["~training.jit"], "`training.jit`: expected a value. Received: None"),
    (["~features.cache"], "`features.cache`: expected a value"),
    (["~training.metrics"], "`training.metrics`: expected a value"),
    (["seed=${nothing}"], "`seed`: expected a value that can be resolved. Received: '${nothing}'"),
    (["seed=${oc.env:NO_SUCH_THING}"], "Environment variable 'NO_SUCH_THING' not found"),
    (["-m", "resume=last"], "`resume`: expected a sweep under outputs, with -m. Received: 'last'"),
    (["-m", "resume=last", "seed=1,2"], "`resume`: expected a sweep under outputs, with -m. Rec"),
    (["-m", "resume=nothing", "seed=1,2"], "or the id of a search under outputs"),
    (["resume="], "`resume.search`: expected a text or null. Received: ''"),
    (["resume=last", "experiment=demo"], "`experiment`: expected no preset beside resume"),
    (["--dry-rum"], "The nearest is `--dry-run`"),
    (["budget.trials=0"], "`budget.trials`: expected a positive integer or null"),
    (["budget=3"], "`budget`: expected a mapping of keys"),
    # Paths and addresses
    (["dataset=npz", "dataset.path=sme.npz"], "Did you mean some.npz?"),
    (["dataset=npz", f"dataset.path={'x' * 5000}"], "`dataset.path`"),
    (["dataset=npz", "dataset.path=https://example.org/a.npz"], "Received: 'https://"),
    (["dataset=image_folder", "dataset.path=~nobody/x"], "`dataset.path`"),
    (["dataset=npz", "dataset.path=x,y.npz"], "With commas in it: 'dataset.path=\"x,y.npz\"'"),
    (["dataset=x/y z.npz"], "A path is given by dataset=npz 'dataset.path=x/y z.npz'"),
    (["dataset=image_folder", "dataset.path=flat,one"], "One search over them"),
    (["features.folder=a,b"], "With commas in it: 'features.folder=\"a,b\"'"),
    (["hydra.run.dir=a,b"], "Write 'hydra.run.dir=\"a,b\"'"),
    (["tracking.artifacts=some.npz"], "`tracking.artifacts`: expected a folder"),
    (["experiment=no_override.yaml"], "Write `- override /model: cnn`"),
    (["experiment=no_slash.yaml"], "Write `- override /model: cnn`"),
    (["experiment=no_group.yaml"], "Write `- override /model: cnn`"),
    (["--config-dir", "presets", "experiment=bare"], "the line `# @package _global_` above all"),
    (["--config-dir", "presets", "experiment=forgets"], "Write `- override /model: cnn`"),
    (["--config-dir", "presets", "model=mine"], "in the defaults of model/mine.yaml"),
    (["experiment=chdir.yaml"], "`hydra.job.chdir`: expected false"),
    (["-m", "experiment=quick,chdir.yaml"], "`hydra.job.chdir`: expected false"),
    (["dataset=npz", "dataset.class_names=a,b"], "Write 'dataset.class_names=[a,b]'"),
    (["dataset=npz", "dataset.path=some.npz", "dataset.class_names=[a,a]"], "two different texts"),
    (["dataset.manual_dir=some.npz"], "`dataset.manual_dir`: expected an existing folder"),
    (["dataset.data_dir=some.npz"], "`dataset.data_dir`: expected a folder, null"),
    (["features.folder=some.npz"], "`features.folder`: expected a folder"),
    (["model.weights=some.npz"], "an existing file of weights (.weights.h5, .h5, .keras)"),
    (["model.weights=flat"], "an existing file of weights"),
    (["tracking.uri=./mlruns"], "expected the URI of an MLflow store"),
    (["tracking.uri=ftp://host"], "expected the URI of an MLflow store"),
    (["tracking.uri=sqlite://mlflow.db"], "expected the URI of an MLflow store"),
    (["hydra.run.dir="], "`hydra.run.dir`: expected a folder. Received: ''"),
    (["model.image_size=100000"], "expected an integer from 32 to 4096"),
]


def npz(path: str) -> list[str]:
    return ["dataset=npz", f"dataset.path={path}"]


def folder(path: str, *more: str) -> list[str]:
    return ["dataset=image_folder", f"dataset.path={path}", *more]


# What only a look at the data shows.
DATA: list[Case] = [
    (npz("keys.npz"), "it holds x_train, y_train"),
    (npz("float.npz"), "float64 from 0 to 1; (255 * images).round().astype('uint8') converts"),
    (npz("uint16.npz"), "expected uint8 values. Received: uint16"),
    (npz("channels_first.npz"), "images.transpose(0, 2, 3, 1) puts them there"),
    (npz("alpha.npz"), "Received: (6, 28, 28, 4)"),
    (npz("vectors.npz"), "Received: (6, 784)"),
    (npz("pixel.npz"), "expected at least 8 pixels a side. Received: 1 x 1"),
    (npz("one_hot.npz"), "one-hot rows: labels.argmax(axis=1)"),
    (npz("many.npz"), "6 classes; this is a multi-class task"),
    (npz("multi_label.npz"), "14 per image; this is a multi-label task"),
    (npz("float_labels.npz"), "expected the integers 0 and 1. Received: float64 values"),
    (npz("names.npz"), "expected the integers 0 and 1. Received: <U1 values"),
    (npz("negative.npz"), "expected the labels 0 and 1. Received: -1, 1"),
    (npz("one_two.npz"), "expected the labels 0 and 1. Received: 1, 2"),
    (npz("short.npz"), "expected labels of the shape (6,), one for each image. Received: (2,)"),
    (npz("no_labels.npz"), "It lacks train_labels"),
    (npz("one_class.npz"), "Split 'test': expected images of both classes"),
    (npz("empty_split.npz"), "Split 'val': expected images. Received: none"),
    (npz("objects.npz"), "holds objects, a pickle, which is never loaded"),
    (npz("evil.npz"), "holds objects, a pickle, which is never loaded"),
    (npz("huge.npz"), "train_images claims 1,000,000,000,"),
    (npz("evil.pickle"), "It is a pickle, which is never loaded"),
    (npz("text.npz"), "It is no zip archive, as .npz files are"),
    (npz("page.npz"), "It is a web page or XML"),
    (npz("pointer.npz"), "It is a pointer of Git LFS"),
    (npz("zero.npz"), "It is an empty file"),
    (npz("cut.npz"), "It is a zip archive that is cut off or damaged"),
    (npz("single.npy"), "It is a single array (.npy)"),
    (npz("plain.npz"), "it holds ../outside.txt"),
    (npz("flat"), "It is a folder; dataset=image_folder reads image files"),
    (npz("/proc/self/mem"), "It is damaged"),
    (npz("/dev/zero"), "It is no file of a certain size"),
    (npz("pipe.npz"), "It is no file of a certain size"),
    (folder("some.npz"), "It is a file, no folder; dataset=npz reads it"),
    (folder("flat/NORMAL"), "the images lie in this very folder"),
    (folder("nothing"), "expected two class folders. Received: none"),
    (folder("one"), "expected two class folders. Received: ['NORMAL']"),
    (folder("three"), "expected two class folders. Received: ['a', 'b', 'c']"),
    (folder("nested"), "those are in "),
    (folder("validation"), "'validation'; rename it to val"),
    (folder("twice"), "at most one of a kind. Received: ['Train', 'train']"),
    (folder("no_train"), "expected a folder train"),
    (folder("other_classes"), "the same in all splits, ['NORMAL', 'PNEUMONIA'] as in 'train'"),
    (folder("empty_split"), "Received: no images"),
    (folder("dicom"), "not a DICOM file" if dicom.is_supported() else "needs the package pydicom"),
    (folder("few"), "expected at least 3 images to divide into train, val and test. Received: 2"),
    (folder("link_file"), "none that leads out of dataset.path"),
    (folder("link_folder"), "none that leads out of dataset.path"),
    (folder("link_broken"), "none that leads out of dataset.path"),
    (folder("bytes_0"), "0.png: an empty file"),
    (folder("text"), "0.png: not a PNG, JPEG, BMP, TIFF or WebP image"),
    (folder("gif"), "0.png: not a PNG, JPEG, BMP, TIFF or WebP image"),
    (folder("pixel"), "0.png: 1 x 1 pixels; at least 8 a side are needed"),
    (folder("large"), "0.png: too many pixels; the limit is 64,000,000"),
    (folder("bomb"), "0.png: too many pixels; the limit is 64,000,000"),
    (folder("cut"), "0.png: cannot be decoded"),
    (folder("pipe"), "0.png: not a file"),
    (folder("flat", "dataset.positive=pneumonia"), "Did you mean PNEUMONIA?"),
    (folder("flat", "dataset.positive=sick"), "expected the name of a class folder"),
    (folder("flat", "dataset.val_fraction=0"), "expected a number between 0 and 1"),
    (folder("flat", "dataset.val_fraction=0.6", "dataset.test_fraction=0.5"), "less than 1 toget"),
    (folder("flat", "dataset.patient_pattern=person"), "It has no group"),
    (folder("flat", "dataset.patient_pattern=("), "It does not compile"),
    (folder("flat", r"dataset.patient_pattern=person(\d+)"), "No file name matches"),
    (["dataset=phantom", "dataset.train=2", "dataset.positive_fraction=0.01"], "of both classes"),
    ([*npz("some.npz"), "resume=last"], "`resume`: expected `last`, or the id of a search"),
    (["resume=last"], "`resume`: expected `last`, or the id of a search under outputs"),
    ([*npz("some.npz"), "tracking.uri=http://a:b@127.0.0.1:1"], "Received: 'http://127.0.0.1:1'"),
    ([*npz("some.npz"), "hydra.run.dir=/proc/no/such"], "`hydra.run.dir`: expected a folder that"),
    ([*npz("some.npz"), "hydra.run.dir=some.npz/x"], "`hydra.run.dir`: expected a folder that"),
]


class Evil:
    """Unpickled, it leaves a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {TRACE}",)


def arrays(**changed: Any) -> Arrays:
    rng = np.random.default_rng(0)
    images = {f"{s}_images": rng.integers(0, 256, (6, 28, 28), dtype=np.uint8) for s in SPLITS}
    labels = {f"{s}_labels": (np.arange(6) % 2)[:, None] for s in SPLITS}
    content = {**images, **labels, **changed}
    return {name: value for name, value in content.items() if value is not None}


def every(what: str, value: object) -> Arrays:
    return {f"{split}_{what}": value for split in SPLITS}


def write_arrays(place: Path) -> None:
    pairs, noise = np.arange(6) % 2, np.random.default_rng(1)
    for name, changed in {
        "some": {},
        "float": every("images", noise.random((6, 28, 28))),
        "uint16": {"train_images": np.zeros((6, 28, 28), np.uint16)},
        "channels_first": every("images", np.zeros((6, 3, 28, 28), np.uint8)),
        "alpha": every("images", np.zeros((6, 28, 28, 4), np.uint8)),
        "vectors": every("images", np.zeros((6, 784), np.uint8)),
        "pixel": every("images", np.zeros((6, 1, 1), np.uint8)),
        "one_hot": every("labels", np.eye(2, dtype=int)[pairs]),
        "many": every("labels", np.arange(6)),
        "multi_label": every("labels", np.ones((6, 14), int)),
        "float_labels": every("labels", pairs.astype(float)),
        "names": every("labels", np.array(["a", "b"] * 3)),
        "negative": every("labels", 2 * pairs - 1),
        "one_two": every("labels", pairs + 1),
        "short": every("labels", pairs[:2]),
        "no_labels": every("labels", None),
        "one_class": {"test_labels": 0 * pairs},
        "empty_split": {"val_images": np.zeros((0, 28, 28), np.uint8), "val_labels": pairs[:0]},
        "objects": {"train_images": np.array([{}] * 6, dtype=object)},
        "evil": {"train_labels": np.array([Evil()] * 6, dtype=object)},
    }.items():
        np.savez(place / f"{name}.npz", **arrays(**changed))
    np.savez(place / "keys.npz", x_train=np.zeros(3), y_train=np.zeros(3))
    np.save(place / "single.npy", np.zeros(3))
    whole = (place / "some.npz").read_bytes()
    (place / "cut.npz").write_bytes(whole[: len(whole) // 2])
    header = io.BytesIO()
    shape = (10**6, 10**6)
    fields = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    with (
        zipfile.ZipFile(place / "some.npz") as some,
        zipfile.ZipFile(place / "huge.npz", "w") as huge,
    ):
        for name in some.namelist():
            is_first = name.startswith("train_images")
            huge.writestr(name, header.getvalue() if is_first else some.read(name))
    with zipfile.ZipFile(place / "plain.npz", "w") as archive:
        archive.writestr("../outside.txt", "text")


def write_texts(place: Path) -> None:
    for name, text in {
        "text.npz": "some text",
        "page.npz": "<!DOCTYPE html>",
        "pointer.npz": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "zero.npz": "",
        "evil.yaml": f"seed: !!python/object/apply:os.system ['touch {TRACE}']\n",
        "broken.yaml": "a: [1\nb: 2\n",
        "empty.yaml": "",
        "deep.yaml": f"a: {'[' * 3000}{']' * 3000}\n",
        "list.yaml": "- 1\n",
        "misspelt.yaml": "dense:\n  unts: 3\n",
        "no_override.yaml": "defaults: [{model: cnn}]\n",
        "no_slash.yaml": "defaults: [{override model: cnn}]\n",
        "no_group.yaml": "defaults: [{override /modle: cnn}]\n",
        "chdir.yaml": "hydra: {job: {chdir: true}}\n",
        "presets/experiment/bare.yaml": "dense: {units: 3}\n",
        "presets/experiment/forgets.yaml": "# @package _global_\ndefaults: [{model: cnn}]\n",
        "presets/model/mine.yaml": "defaults: [cn]\n",
        "evil/model/evil.yaml": f"a: !!python/object/apply:os.system ['touch {TRACE}']\n",
    }.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    (place / "evil.pickle").write_bytes(pickle.dumps(Evil()))


def png(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size, with next to no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0")), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def picture(value: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(value).integers(0, 256, (12, 12), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_folder(
    root: Path, classes: Sequence[str] = ("NORMAL", "PNEUMONIA"), splits: Sequence[str] = ("",)
) -> None:
    value = 0
    for split in splits:
        for name in classes:
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for index in range(4):
                value += 1
                (root / split / name / f"{index}.png").write_bytes(picture(value))


def write_folders(place: Path) -> None:
    write_folder(place / "flat")
    write_folder(place / "nested" / "chest_xray", splits=SPLITS)
    write_folder(place / "one", ("NORMAL",))
    write_folder(place / "three", ("a", "b", "c"))
    write_folder(place / "validation", splits=("train", "validation"))
    write_folder(place / "twice", splits=("train", "Train"))
    write_folder(place / "no_train", splits=("val", "test"))
    write_folder(place / "other_classes", splits=SPLITS)
    (place / "other_classes" / "val" / "NORMAL").rename(place / "other_classes" / "val" / "well")
    write_folder(place / "empty_split", splits=SPLITS)
    write_folder(place / "dicom")
    write_folder(place / "few")
    (place / "nothing").mkdir()
    for path in (place / "empty_split" / "test").rglob("*.png"):
        path.unlink()
    for path in (place / "dicom").rglob("*.png"):
        path.rename(path.with_suffix(".dcm"))
    for name in ("2.png", "3.png"):
        (place / "few" / "NORMAL" / name).unlink()


def write_faults(place: Path) -> None:
    contents: dict[str, bytes] = {
        "bytes_0": b"",
        "text": b"some text",
        "gif": picture(0, "GIF"),
        "pixel": png(1, 1),
        "large": png(20_000, 20_000),
        "bomb": png(60_000, 60_000),
        "cut": picture(0)[:-30],
    }
    for name, content in contents.items():
        write_folder(place / name)
        (place / name / "NORMAL" / "0.png").write_bytes(content)
    links: dict[str, Callable[[Path], None]] = {
        "link_file": lambda path: path.symlink_to(place / "flat" / "NORMAL" / "0.png"),
        "link_folder": lambda path: path.with_name("more").symlink_to(place / "flat" / "NORMAL"),
        "link_broken": lambda path: path.symlink_to(place / "nowhere.png"),
        "pipe": os.mkfifo,
    }
    os.mkfifo(place / "pipe.npz")
    for name, make in links.items():
        write_folder(place / name)
        (place / name / "NORMAL" / "0.png").unlink()
        make(place / name / "NORMAL" / "0.png")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all the files and folders that the table names."""
    place = tmp_path_factory.mktemp("mistakes")
    write_arrays(place)
    write_texts(place)
    write_folders(place)
    write_faults(place)
    return place


CASES = [*MISTAKES, *TYPED, *DATA]
EVIL = {number for number, case in enumerate(CASES) if "evil" in " ".join(case[0])}


def named(case: Case) -> str:
    return " ".join(case[0])[:60]


def case(number: int) -> Any:
    """Return a parameter: what the config alone shows is tried in `test_validate`, too.

    What comes to the message of a line above it is slow, but for what would run code.
    """
    is_known = number < len(MISTAKES) and number % 16 > 0
    told = [message for _, message in CASES[: number + 1]]
    is_known |= told.count(told[-1]) > 1 and number not in EVIL
    marks = [pytest.mark.slow] if is_known else []
    return pytest.param(number, id=named(CASES[number]), marks=marks)


@pytest.fixture(scope="module")
def results(project: Path, request: pytest.FixtureRequest) -> dict[int, Any]:
    """What became of every case that is looked at, by its number."""
    numbers = chosen(request, "number")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    ran = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps([CASES[number][0] for number in numbers]),
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,  # where one case never ends
    )
    assert ran.returncode == 0, ran.stderr
    return dict(zip(numbers, json.loads(ran.stdout), strict=True))


@pytest.mark.parametrize("number", [case(number) for number in range(len(CASES))])
def test_a_mistake_is_told_in_time_and_leaves_nothing(results: dict[int, Any], number: int) -> None:
    status, said, told, _, heavy, files = results[number]
    assert status == 2, f"{status}\n{told}"
    assert said == ""
    assert CASES[number][1] in told
    assert "Traceback" not in told
    # What is indented lists the files that one message is about.
    lines = [line for line in told.splitlines() if not line.startswith("  ")]
    assert all(re.match(r"`[^`]+`: expected .+\. Received: .+[.?:]$", line) for line in lines)
    assert len(lines) == 1 or number < len(MISTAKES)
    assert heavy == []
    assert files == []


def test_there_are_many_mistakes_and_each_takes_a_moment(results: dict[int, Any]) -> None:
    assert len({tuple(arguments) for arguments, _ in CASES}) > 300
    seconds = sorted(one[3] for one in results.values())
    assert seconds[len(seconds) // 2] < 0.5


def test_no_code_of_a_file_has_run(results: dict[int, Any], project: Path) -> None:
    assert results.keys() >= EVIL
    assert len(EVIL) >= 5
    assert not list(project.parent.glob(f"*/{TRACE}"))


@pytest.mark.parametrize(
    "case",
    [slow((["dense.units=many"], "`dense.units`")), TYPED[5], slow(DATA[19]), DATA[45]],
    ids=named,
)
def test_a_mistake_in_a_process_of_its_own(
    case: Case, project: Path, spawn: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    arguments, fragment = case
    ran = spawn("pneumonia", *arguments, folder=project)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert fragment in ran.stderr
    assert ran.stderr.count("\n") == 1 or ran.stderr.splitlines()[1].startswith("  ")
    assert not (project / TRACE).exists()
    assert not (project / "mlruns").exists()
