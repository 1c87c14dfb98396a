"""Every mistake that the config alone shows is told, with its path, before TensorFlow starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from pneumonia.config import compose, validate
from pneumonia.errors import ConfigErrors, UserError

RMSPROP = "optimizer=rmsprop"

# What a user types, and what the message has to say: `test_mistakes` tries them all.
MISTAKES: list[tuple[list[str], str]] = [
    # Names
    (["dense.unit=3"], "`dense.unit`: expected a key of the config. Received: '3'. The nearest is"),
    (["dense.unit=3"], "`dense.units`"),
    (["tuner.max_trial=3"], "The nearest is `tuner.max_trials`"),
    (["modle=cnn"], "An option is chosen by model=cnn"),
    (["modle=x"], "The nearest is `model`"),
    (["preset=demo"], "An option is chosen by experiment=demo"),
    (["model=cn"], "expected one of cnn, efficientnet_lite, efficientnet_lite0, inception_v3"),
    (["model=cn"], "The nearest is model=cnn"),
    (["tuner=hyperbnd"], "The nearest is tuner=hyperband"),
    (["dataset=mnist"], "`dataset`: expected one of"),
    (["optimizer=sdg"], "The nearest is optimizer=sgd"),
    (["executor=dask"], "`executor`: expected one of local, ray. Received: 'dask'"),
    (["executor=ray", "executor.cpus=0"], "`executor.cpus`: expected a number above 0"),
    (["executor=ray", "executor.gpus=-1"], "`executor.gpus`: expected a whole number"),
    (["executor=ray", "executor.retries=-1"], "`executor.retries`: expected"),
    (["executor=ray", "executor.address=7"], "`executor.address`: expected"),
    (["executor=ray", "executor.address=head"], "`executor.address`: expected host:port"),
    (["executor=ray", "executor.address=local"], "`executor.address`: expected host:port"),
    (["executor=ray", "executor.gpus=1.5"], "`executor.gpus`: expected a whole number or a share"),
    (["executor=ray", "executor.store=states"], "`executor.store`: expected the address of a"),
    (
        ["executor=ray", "executor.store=ab://x"],
        "`executor.store`: expected an address",
    ),
    (["executor.retries=1"], "`executor.retries`"),
    (["experiment=blogg"], "The nearest is experiment=blog"),
    (["experiment=outputs/best"], "`experiment`: expected one of best, "),
    (["experiment=nothing.yaml"], "a YAML file that exists. Received: 'nothing.yaml'"),
    (["model.name=cnn"], "An option of the group is chosen by model=cnn"),
    (["model.inception_v3=1"], "An option of the group is chosen by model=inception_v3"),
    (["model/cnn=1"], "An option of the group is chosen by model=cnn"),
    (["++model=cnn"], "Options are chosen by model=<option>"),
    (["++model={}", "~model._target_"], "`model._target_`"),
    (["hydra.launcher=joblib"], "Options are chosen by hydra/launcher=joblib"),
    (["hydra/launcher=nothing"], "`hydra/launcher`: expected one of basic"),
    (["+dense.units=3"], "write dense.units=... without the +"),
    (["~dense.foo"], "`~dense.foo`: expected a key of the config"),
    (["+foo=1"], "`foo`: expected a key of the config. Received: 1"),
    (["+objectiv.name=val_auc"], "The nearest is `objective`"),
    (["+training.batchsize=8"], "The nearest is `training.batch_size`"),
    (["+tracking.url=x"], "The nearest is `tracking.uri`"),
    (["+features.size=1"], "`features.size`: expected a key of `features`"),
    (["+objective.names=x"], "The nearest is `objective.name`"),
    (["+dense.units2=1"], "an argument that `pneumonia.models.heads.dense` takes"),
    ([RMSPROP, "+optimizer.momentun=0.9"], "The nearest is `optimizer.momentum`"),
    (["optimizer=adam", "+optimizer.momentum=0.9"], "argument that `keras.optimizers.Adam` takes"),
    (["+tuner.factr=3"], "The nearest is `tuner.factor`"),
    (["tuner=random", "+tuner.factor=3"], "`keras_tuner.oracles.RandomSearchOracle` takes"),
    (["~dense.units"], "`dense.units`: expected a value. Received: None"),
    (["~dense"], "`dense`: expected a value. Received: None"),
    (["dense=null"], "`dense`: expected one of default. Received: 'null'"),
    # The grammar of overrides
    (
        ["dense.units"],
        "`dense.units`: expected key=value. Received: 'dense.units'. Write dense.units=",
    ),
    (["dense.units=a=b("], "`dense.units`: expected a value as Hydra's grammar has it"),
    (["model=cnn,inception_v3"], "For one search each: pneumonia -m 'model=cnn,inception_v3'"),
    (["dense.units=64,128"], "One search over them: 'dense.units=\"choice(64,128)\"'"),
    (["dense.units=choice(64,128)"], "'dense.units=\"choice(64,128)\"'"),
    # Values
    (["dense.units=many"], "`dense.units`: expected a positive integer or a range. Received: 'man"),
    (["dense.units=0"], "`dense.units`: expected a positive integer or a range. Received: 0."),
    (["dense.units=1.5"], "Received: 1.5"),
    (["dense.units=true"], "Received: True"),
    (["dense.units=null"], "`dense.units`"),
    (["dense.units="], "Received: ''"),
    (["dense.units='64'"], "Received: '64'"),
    (["dense.units=[1]"], "`dense.units`: expected a positive integer"),
    (["dense.units={a: 1}"], "`dense.units`: expected a positive integer or a range. Received: {"),
    (["dense.units='64,128'"], "choice(64,128)"),
    (["dense.dropout=1"], "expected a number from 0 to below 1 or a range. Received: 1"),
    (["dense.dropout=-0.1"], "Received: -0.1"),
    (["dense.activation=relo"], "expected the name of a Keras activation"),
    (["optimizer.learning_rate=0"], "expected a number above 0"),
    (["optimizer.learning_rate=fast"], "Received: 'fast'"),
    (["optimizer.learning_rate=inf"], "`optimizer.learning_rate`"),
    ([RMSPROP, "optimizer.rho=2"], "expected a number from 0 to 1"),
    ([RMSPROP, "optimizer.clipnorm=-1"], "`optimizer.clipnorm`: expected a number above 0"),
    (["optimizer=sgd", "optimizer.nesterov=3"], "expected true, false or a range. Received: 3"),
    (["+optimizer.loss_scale_factor=[1]"], "a number, text, true, false, null or a range"),
    (["optimizer=any", "optimizer.name=sgg"], "expected the name of an optimizer of Keras"),
    (["model.image_size=31"], "expected an integer from 32 to 4096"),
    (["model=inception_v3", "model.image_size=74"], "expected an integer from 75 to 4096"),
    (["model=cnn", "model.image_size=7"], "expected at least 2 ** model.blocks, 8"),
    (["model=cnn", "model.channels=2"], "expected 1, 3 or a range"),
    (["model=keras_application", "model.name=VGG"], "a network of keras.applications"),
    (["model.weights=imagnet"], "Did you mean imagenet?"),
    (
        ["model.weights=nothing.h5"],
        "expected imagenet, null, an existing file of weights (.weights",
    ),
    (["model.pooling=mean"], "expected avg, max, flatten or a range"),
    (["model.trainable=3"], "expected true, false, the name of a layer or a range"),
    (["model.layer=block3b_add+block5c_ad"], "Did you mean block5c_add?"),
    (["model.batch_norm=off"], "`model.batch_norm`: expected frozen, trained or a range"),
    (["model.layer=3"], "`model.layer`: expected a text"),
    (["augment=blog", "augment.views=0"], "expected a positive integer, online or a range"),
    (["augment=blog", "augment.views=offline"], "Received: 'offline'"),
    (["augment=blog", "augment.rotation=200"], "expected a number from 0 to 180"),
    (["augment=blog", "augment.flip=2"], "`augment.flip`"),
    (["dataset=npz"], "`dataset.path`"),
    (["dataset=npz", "dataset.path=/nothing.npz"], "expected an .npz file in MedMNIST's format"),
    (["dataset=image_folder", "dataset.path=/nothing"], "Received: '/nothing'"),
    (["dataset=phantom", "dataset.difficulty=2"], "expected a number from 0 to 1"),
    (["dataset=phantom", "dataset.train=1"], "expected an integer from 2 to 1000000"),
    (
        ["dataset.drop_duplicates=often"],
        "`dataset.drop_duplicates`: expected true, false or a range",
    ),
    (["~dataset.drop_duplicates"], "`dataset.drop_duplicates`: expected a value"),
    (["dataset.manual_dir=/nothing"], "expected an existing folder, null or a range"),
    (["seed=-1"], "`seed`: expected an integer from 0 to 2147483647. Received: -1"),
    (["seed=2147483648"], "Received: 2147483648"),
    (["seed=x"], "Received: 'x'"),
    (["tuner.seed=-3"], "`tuner.seed`: expected an integer from 0"),
    (["tuner.max_epochs=0"], "`tuner.max_epochs`: expected a positive integer. Received: 0"),
    (["tuner.max_trials=0"], "expected a positive integer or null"),
    (["tuner.factor=1"], "expected an integer of at least 2"),
    (["tuner.hyperband_iterations=0"], "`tuner.hyperband_iterations`"),
    (["tuner=asha", "tuner.factor=1"], "`tuner.factor`: expected an integer of at least 2"),
    (["tuner=asha", "tuner.min_epochs=0"], "`tuner.min_epochs`: expected a positive integer"),
    (["tuner=asha", "tuner.min_epochs=21"], "expected at most tuner.max_epochs, 20. Received: 21"),
    (["tuner=asha", "tuner.max_trials=null"], "a positive integer, for this tuner"),
    (["tuner=asha", "+tuner.grace_period=1"], "`pneumonia.search.asha.AshaOracle` takes"),
    (["tuner=ash"], "The nearest is tuner=asha"),
    (["tuner=bayesian", "tuner.beta=-1"], "`tuner.beta`"),
    (["tuner=random", "tuner.max_trials=null"], "a positive integer, for this tuner"),
    (["tuner.max_consecutive_failures=0"], "`tuner.max_consecutive_failures`"),
    (["training.batch_size=0"], "`training.batch_size`: expected a positive integer or a range"),
    (["training.class_weight=even"], "expected balanced, null, {0: weight, 1: weight} or a range"),
    (["training.class_weight={0: 1}"], "`training.class_weight`"),
    (
        ["training.class_weight={0: 1, 2: 1}"],
        "`training.class_weight`: expected balanced, null, {0",
    ),
    (["training.class_weight={0: 1, 1: -1}"], "`training.class_weight.1`: expected a number above"),
    (["training.early_stopping=3"], "expected null, {patience, min_delta}"),
    (["training.early_stopping.patience=0"], "`training.early_stopping.patience`"),
    (["training.executions_per_trial=0"], "`training.executions_per_trial`"),
    (["training.schedule=linear"], "expected constant, cosine or a range. Received: 'linear'"),
    (["training.schedule_epochs=0"], "`training.schedule_epochs`: expected a positive integer"),
    (["training.warmup=-1"], "`training.warmup`: expected a number of at least 0"),
    (["training.average=mean"], "`training.average`: expected ema, swa, null or a range"),
    (["training.ema_decay=1"], "`training.ema_decay`: expected a number from 0 to below 1"),
    (["training.swa_start=1"], "`training.swa_start`: expected a number from 0 to below 1"),
    (["training.mixup=-0.2"], "`training.mixup`: expected a number of at least 0"),
    (["training.balanced_batches=2"], "`training.balanced_batches`: expected true, false"),
    (["training.head_epochs=-1"], "`training.head_epochs`: expected an integer of at least 0"),
    (["training.rest_learning_rate=0"], "`training.rest_learning_rate`: expected a number above 0"),
    (["training.head_epochs=2"], "expected 0, as nothing but the head trains"),
    (["training.rest_learning_rate=0.1"], "expected 1, as nothing but the head trains"),
    (
        ["training.balanced_batches=true", "training.class_weight={0: 1, 1: 2}"],
        "`training.class_weight`: expected balanced or null, with training.balanced_batches=true",
    ),
    (["training.retrain=maybe"], "expected true, false or a range. Received: 'maybe'"),
    (
        ["training.precision=float16"],
        "expected float32, mixed_float16, mixed_bfloat16 or a range. Received: 'float16'",
    ),
    (["training.precision=16"], "`training.precision`: expected float32, mixed_float16, mixed_bf"),
    (["training.jit=always"], "expected true, false, auto or a range"),
    *(
        ([f"training.threads={given}"], "`training.threads`: expected an integer from 1 to 1024")
        for given in ("0", "-1", "many", "1.5", "true", "2000")
    ),
    (
        ["training.threads='choice(1, 2)'"],
        "Received: 'choice(1, 2)'. TensorFlow keeps them as long as its process: one command for",
    ),
    (["training.threads=1,2"], "expected a single value. Received: '1,2'. TensorFlow keeps them"),
    (["-m", "training.threads=1,2"], "`training.threads`: expected one number for all searches"),
    (["-m", "training.threads=null,3"], "Received: 'null, 3'. TensorFlow keeps them as long as"),
    (["training.metrics=3"], "expected a mapping of metrics by name"),
    (["training.metrics.auc=3"], "`training.metrics.auc`: expected a mapping with `_target_`"),
    (["training.loss=hinge"], "Write training.loss._target_=keras.losses.Hinge"),
    (["tracking.log_models=some"], "expected all, best or none. Received: 'some'"),
    (["tracking.experiment="], "expected a text of at most 256 characters"),
    ([f"tracking.experiment={'x' * 600}"], "a text of at most 256 characters, all on one line"),
    (["tracking.experiment=a\nb"], "a text of at most 256 characters, all on one line"),
    (["tracking.experiment='  '"], "`tracking.experiment`: expected a text of at most"),
    *(
        ([f"tracking.alias={alias}"], "`tracking.alias`: expected at most 255 letters, digits, _")
        for alias in ("v1", "V12", "latest", "Latest", "my alias", "", "x" * 256)
    ),
    *(
        ([f"tracking.registered_model={name}"], "`tracking.registered_model`: expected a name of")
        for name in ("a/b", "a:b", "it's", "a@b", "..", "", "x" * 257)
    ),
    (["tracking.registered_model=' x'"], "Received: ' x'"),
    (["tracking.artifacts=runs:/x"], "`tracking.artifacts`: expected a folder, the URI of one"),
    (["tracking.artifacts=foo://x"], "`tracking.artifacts`: expected a folder, the URI of one"),
    (["tracking.artifacts=''"], "`tracking.artifacts`: expected a folder, the URI of one"),
    (["tracking.log_models=null"], "expected all, best or none. Received: None"),
    (["winner.members=0"], "`winner.members`: expected a positive integer. Received: 0"),
    (
        ["winner.selection=gready"],
        "`winner.selection`: expected best or greedy. Received: 'gready'",
    ),
    (["winner.flips=1"], "`winner.flips`: expected true or false. Received: 1"),
    (["winner.image_size=0"], "`winner.image_size`: expected an integer from 1 to 4096 or null"),
    (["+winner.crop=0.9"], "Write winner.image_size=<pixels>"),
    (["winner.image_size=31"], "expected null or an integer from 32 to 4096. Received: 31"),
    (
        ["winner.image_size=48", "model.pooling=flatten"],
        "`winner.image_size`: expected null, as features of model.pooling=flatten are of one size",
    ),
    (["winner.test=never"], "`winner.test`: expected true or false. Received: 'never'"),
    (["executor.workers=0"], "`executor.workers`: expected a positive integer. Received: 0"),
    (["executor.workers=all"], "`executor.workers`: expected a positive integer. Received: 'all'"),
    (["features.dtype=int8"], "expected float32 or float16"),
    (["objective.name=val_auk"], "The nearest is `val_auc`"),
    (["objective.name=test_auc"], "expected val_loss or a metric of `training.metrics`"),
    (["objective.folds=1"], "`objective.folds`: expected an integer of at least 2 or null."),
    (["objective.direction=up"], "expected max or min. Received: 'up'"),
    (["objective.direction=min"], "expected max, for val_auc. Received: 'min'"),
    (["objective.name=val_loss"], "expected min, for val_loss. Received: 'max'"),
    (
        ["+training.metrics.x={_target_: keras.metrics.Hinge}", "objective.name=val_x"],
        "`objective.direction`: expected min, for val_x. Received: 'max'",
    ),
    (["resume=last", "experiment=quick"], "`experiment`: expected no preset beside resume"),
    (["resume.fork=true", "experiment=quick"], "`experiment`: expected no preset beside resume"),
    (["resume="], "`resume.search`: expected a text or null"),
    (["resume.fork=perhaps"], "`resume.fork`: expected true or false"),
    (["resume.frok=true"], "The nearest is `resume.fork`"),
    # What the program gives itself, or what would have no effect
    *(
        (
            ["tuner=random", f"+tuner.{given}"],
            f"`tuner.{given.split('=')[0]}`: expected nothing, as",
        )
        for given in (
            *("objective=val_loss", "hyperparameters=null", "tune_new_entries=true"),
            *("allow_new_entries=false", "max_retries_per_trial=2"),
            "max_consecutive_failed_trials=5",
        )
    ),
    (["tuner=hyperband", "+tuner.objective=val_loss"], "`tuner.objective`: expected nothing, as"),
    (["tuner=bayesian", "+tuner.max_retries_per_trial=2"], "is not repeated"),
    (["tuner=grid", "+tuner.hyperparameters=3"], "`tuner.hyperparameters`: expected nothing, as"),
    (["+tuner.max_consecutive_failed_trials=5"], "Write tuner.max_consecutive_failures=<number>"),
    (["+tuner.objective=val_loss"], "Write objective.name=<metric> objective.direction="),
    (["+tuner.directory=x"], "an argument that `keras_tuner.oracles.HyperbandOracle` takes"),
    (["~tuner.seed"], "`tuner.seed`: expected a value. Received: None"),
    (["+dense.input_shape=[3]"], "`dense.input_shape`: expected nothing, as the program decides"),
    (["+dense._args_=[3]"], "`dense._args_`: expected an argument that"),
    (["+model._partial_=true"], "`model._partial_`: expected an argument that"),
    (
        ["+optimizer.loss_scale_factor=128"],
        "expected null, as training.precision=mixed_float16 scales",
    ),
    (["+training.loss.from_logits=true"], "expected false, as heads give probabilities"),
    (["+training.loss.label_smoothing=2"], "expected a number from 0 to 1"),
    (["+optimizer.gradient_accumulation_steps=0"], "expected an integer of at least 2, null"),
    (["+optimizer.ema_overwrite_frequency=-1"], "expected a positive integer, null"),
    (["+training.metrics.auc.y_true=1"], "expected nothing, as the program decides it"),
    (["+training.loss.reduction=none"], "expected sum_over_batch_size, sum or mean"),
    (["+training.metrics.loss._target_=keras.metrics.AUC"], "a name of letters, digits and _, oth"),
    (["training.metrics={}"], "expected keys to set, as {} takes none out. Received: {}. Keys are"),
    (["training.metrics={ }"], "Keys are taken out by ~training.metrics.accuracy"),
    (["training.early_stopping={}"], "Write training.early_stopping=null for none"),
    (["optimizer=any", "when={}"], "Write when=null for none"),
    # Hydra's own settings
    (["hydra.job.chdir=true"], "`hydra.job.chdir`: expected false, as paths count from the folder"),
    (["-m", "hydra.job.chdir=true", "seed=1,2"], "`hydra.job.chdir`: expected false"),
    (["-m", "hydra.job.chdir=true,false"], "`hydra.job.chdir`: expected a single value"),
    (["hydra.run.dir=${nothing}"], "`hydra.run.dir`: expected a value. Received: '${nothing}'"),
    (["hydra.run.dir='~/x'"], "Write the whole path, or ./~/x for a folder of that name"),
    (["-m", "hydra.sweep.dir=${nothing}", "seed=1,2"], "`hydra.sweep.dir`: expected a value"),
    (["-m", "hydra.sweep.subdir=${nothing}", "seed=1,2"], "`hydra.sweep.subdir`: expected a value"),
    (["-m", "hydra.sweep.subdir=.."], "expected a folder within that of the multirun"),
    (["-m", "hydra.sweep.subdir=/elsewhere"], "expected a folder within that of the multirun"),
    (["-m", "~hydra/sweeper"], "`hydra/sweeper`: expected a value"),
    (["-m", "~hydra/launcher"], "`hydra/launcher`: expected a value"),
    (["-m", "hydra.sweeper.params={'seed': '1,2'}"], "In braces, keys stand without quotes"),
    (["dense.dropout=interval(0,0.5)"], "'dense.dropout=\"interval(0,0.5)\"'."),
    (["objective.name=[val_auc]"], "`objective.name`: expected a text"),
    (["-m", "hydra.sweep.subdir=same", "seed=1,2"], "expected a folder of its own for every searc"),
    (["-m", "hydra.mode=RUN", "seed=1,2"], "`hydra.mode`: expected no -m beside it"),
    (["-m", "seed=1,2", "hydra/launcher=joblab"], "The nearest is hydra/launcher=joblib"),
    (
        ["-m", "seed=1,2", "hydra/launcher=submitit_local", "tracking.uri=mysql://a:b@host/d"],
        "`tracking.uri`: expected no password beside a launcher that writes",
    ),
    (["hydra/sweeper=optuna"], "`hydra/sweeper`: expected one of basic"),
    (["-m", "hydra.sweeper.max_batch_size=0", "seed=1,2"], "expected a positive integer or null"),
    (["-m", "hydra.sweeper.params={sed: '1,2'}"], "`sed`: expected a key of the config"),
    (["-m", "hydra.sweeper.params={seed: '1,x'}"], "`seed`: expected an integer"),
    (["-m", "hydra.sweeper.params={seed: '1,'}"], "There is a comma with nothing beside it"),
    (["-m", "hydra.sweeper.params={seed: '('}"], "`seed`: expected a value as Hydra's grammar"),
    (["-m", "hydra.sweeper.params={seed: 'interval(1,2)'}"], "not an interval"),
    (["-m", "hydra.sweeper.params={seed: choice(1,2)}"], "expected values in quotes, {seed: '1,2'"),
    (["-m", "hydra.sweeper.params={seed: [1, 2]}"], "`seed`: expected an integer"),
    (["-m", "hydra.sweeper.params=3"], "`hydra.sweeper.params`: expected a value that fits"),
    (["-m", "+hydra.sweeper.params.seed=1,x"], "`seed`: expected an integer"),
    (["hydra.sweeper.params={seed: '1,2'}"], "One search each: -m 'seed=1,2'"),
    (["hydra.searchpath=[nowhere]"], "`hydra.searchpath`: expected folders that exist"),
    (
        ["+hydra.callbacks.x._target_=os.system"],
        "a subclass of hydra.experimental.callback.Callbac",
    ),
    (
        ["+hydra.callbacks.x._target_=builtins.eval"],
        "`hydra.callbacks.x`: expected a mapping whose",
    ),
    (["+hydra.callbacks.x._target_=nothing.here"], "No module nothing"),
    (["+hydra.callbacks.x=os.system"], "`hydra.callbacks.x`: expected a mapping whose only"),
    (
        ["+hydra.callbacks.x={_target_: os.system, command: 'touch executed'}"],
        "`hydra.callbacks.x`: expected a mapping whose only",
    ),
    (
        [
            "+hydra.callbacks.x={_target_: hydra.experimental.callback.Callback, "
            "a: {_target_: os.system, command: 'touch executed'}}"
        ],
        "`hydra.callbacks.x`: expected a mapping whose only",
    ),
    # Targets
    (
        ["model._target_=pneumonia.models.backbones.cn"],
        "The nearest is pneumonia.models.backbones.cnn",
    ),
    (["model._target_=nothing.here"], "No module nothing"),
    (["model._target_=dicom.here"], "No module dicom.here"),
    (["model._target_=cnn"], "expected the dotted path of a function or class"),
    (["model._target_=3"], "expected the dotted path of a function or class"),
    (["optimizer._target_=keras.optimizers.RMSProp"], "nearest is keras.optimizers.RMSprop"),
    (["optimizer._target_=keras.optimizer.SGD"], "The nearest is keras.optimizers"),
    (["~optimizer._target_"], "`optimizer._target_`: expected the dotted path"),
    (["training.loss._target_=keras.losses.Binary"], "`training.loss._target_`"),
    # Ranges
    (["dense.units='choice(1, many)'"], "range whose every value is a positive integer. Received:"),
    (["dense.units='choice()'"], "empty choice"),
    (["dense.units='choice(8, 8)'"], "not 8 twice"),
    (["dense.units='choises(1, 2)'"], "Did you mean choice(1, 2)?"),
    (["dense.units='interval(16, 64)'"], "Write int(interval(16, 64))"),
    (["dense.dropout='interval(0.5, 0.1)'"], "low end"),
    (["dense.dropout='interval(0, 1)'"], "range whose every value is a number from 0 to below 1"),
    (["optimizer.learning_rate='tag(log, interval(0, 1))'"], "above 0"),
    (["tuner.max_trials='choice(1, 2)'"], "Ranges are for dataset, augment, model, dense, optim"),
    (["seed='choice(1, 2)'"], "Ranges are for"),
    (["model.image_size='choice(16, 96)'"], "Received: 16"),
    (["model.weights='choice(imagenet, nothing.h5)'"], "Received: 'nothing.h5'"),
    (
        ["optimizer._target_='choice(keras.optimizers.SGD, keras.optimizers.Nope)'"],
        "a function or class of `keras.optimizers`",
    ),
    (["+dense.x=['choice(1, 2)']"], "`dense.x`"),
    # Interpolations and conditions
    (["dense.units=${nothing}"], "Received: '${nothing}'. Interpolation key 'nothing' not found"),
    (["dense.units=???"], "Give it with dense.units=..."),
    (["dense.units=${dense.activation}"], "Received: 'relu'"),
    (["when={dense.unit: {dense.dropout: [0.1]}}"], "The nearest is `dense.units`"),
    (["when={dense.units: {dense.dropout: [0.7]}}"], "expected values of choice(0.1, "),
    (["when={dense.units: {dense.units: [128]}}"], "without a circle"),
    (["when=3"], "`when`: expected a mapping"),
]


def check(*overrides: str) -> None:
    compose.check(compose.prepare(overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["dense.units=64", "dense.dropout=0", "optimizer.learning_rate=1e-3"],
        [
            "dense.units='int(interval(16, 64))'",
            "dense.dropout='tag(default:0.2, interval(0,0.9))'",
        ],
        ["training.class_weight={0: 1, 1: 0.4}", "training.early_stopping=null"],
        ["training.class_weight='choice(balanced, null)'", "training.batch_size='choice(8, 16)'"],
        ["training.class_weight={0: 1, 1: 'interval(0.2, 2)'}"],
        ["optimizer=any"],
        [
            *("training.schedule='choice(constant, cosine)'", "training.warmup='interval(0, 2)'"),
            *("training.average='choice(null, ema, swa)'", "training.mixup='choice(0.0, 0.2)'"),
            *(
                "training.ema_decay='interval(0.9, 0.999)'",
                "training.swa_start='interval(0.5, 0.9)'",
            ),
            *("training.balanced_batches='choice(true, false)'", "training.schedule_epochs=7"),
            *(
                "training.head_epochs='choice(0, 2)'",
                "model.trainable='choice(false, block5a_expand_conv)'",
            ),
            *("training.rest_learning_rate='tag(log, interval(0.01, 1))'", "optimizer=adamw"),
            *("optimizer.weight_decay='tag(log, interval(1e-4, 1))'", "augment=strong"),
            *("augment.scale='interval(0.3, 1.0)'", "augment.erasing='choice(0.0, 0.25)'"),
            "+training.loss.label_smoothing='choice(0.0, 0.1)'",
        ],
        [
            "training.loss._target_=keras.losses.BinaryFocalCrossentropy",
            "+training.loss.gamma='interval(1.0, 3.0)'",
        ],
        ["optimizer=any", "optimizer.name=adam"],
        ["optimizer=sgd", "+optimizer.use_ema=true", "optimizer.weight_decay=null"],
        ["model.layer='choice(block5c_add, null)'", "model.trainable='choice(true, false)'"],
        ["model=cnn", "model.image_size='choice(28, 64)'", "model.weights=null"],
        ["model.layer='choice(block5c_add, block3b_add+block5c_add)'"],
        ["objective.name=val_loss", "objective.direction=min"],
        ["objective.name=val_accuracy"],
        ["+training.metrics.recall={_target_: keras.metrics.Recall}", "objective.name=val_recall"],
        ["when={dense.dropout: {dense.units: [128, 256]}}"],
        ["when={}", "~training.metrics.accuracy"],
        ["optimizer=any", "when=null"],
        ["seed=0", "tuner=grid", "tuner.max_trials=null"],
        ["resume=last"],
        ["resume=abc", "tracking.uri=sqlite:///x.db", "hydra.run.dir=x"],
        ["resume=last", "resume.fork=true", "seed=2", "model=cnn"],
        ["resume=12345e678901"],
        ["hydra/launcher=basic", "tracking=server"],
    ],
    ids=" ".join,
)
def test_right_configs_pass(overrides: list[str]) -> None:
    check(*overrides)


@pytest.mark.parametrize("given", ["{negative: 1, positive: 2}", "{0: 1, 1: 2, 2: 3}", "{0: -1}"])
def test_what_is_wrong_as_a_whole_is_told_once(given: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        compose.check(compose.prepare([f"training.class_weight={given}"]))
    assert [error.key for error in caught.value.errors] == ["training.class_weight"]


@pytest.mark.parametrize(
    ("weights", "key"),
    [
        ("{0: 1, 1: 'interval(-2, -1)'}", "1"),
        ("{0: 1, 1: 'choice(-1, many)'}", "1"),
        ("{0: abc, 1: 'choice(1, 2)'}", "0"),
        ("{0: 1, 2: 'choice(1, 2)'}", ""),
    ],
)
def test_each_class_weight_is_checked_beside_a_range(weights: str, key: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        check(f"training.class_weight={weights}")
    named = f"training.class_weight.{key}".rstrip(".")
    assert caught.value.errors[0].key == named


@pytest.mark.parametrize(
    ("target", "is_low"),
    [
        ("pneumonia.evaluation.metrics.balanced_log_loss", True),
        ("pneumonia.evaluation.metrics.brier", True),
        ("pneumonia.evaluation.metrics.average_precision", False),
        ("keras.metrics.MeanSquaredError", True),
        ("keras.metrics.binary_crossentropy", True),
        ("keras.metrics.FalsePositives", True),
        ("keras.metrics.CosineSimilarity", False),
        ("keras.losses.CosineSimilarity", True),
    ],
)
def test_a_loss_is_no_objective_to_maximize(target: str, is_low: bool) -> None:
    given = [f"+training.metrics.x={{_target_: {target}, _partial_: true}}", "objective.name=val_x"]
    if is_low:
        with pytest.raises(ConfigErrors, match=r"direction`: expected min, for val_x\. .*: 'max'"):
            check(*given)
        given.append("objective.direction=min")
    check(*given)


@pytest.mark.parametrize(
    ("overrides", "hint"),
    [
        (["training.metrics={}"], "Keys are taken out by ~training.metrics.accuracy"),
        (["++training.metrics={ }"], "Keys are taken out by ~training.metrics.accuracy"),
        (["training.early_stopping={}"], "Write training.early_stopping=null for none"),
        (["optimizer=any", "when={}"], "Write when=null for none"),
    ],
)
def test_braces_do_not_empty_a_mapping(overrides: list[str], hint: str) -> None:
    with pytest.raises(ConfigErrors, match=r"expected keys to set, as \{\} takes none") as caught:
        check(*overrides)
    assert hint in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigErrors) as caught:
        check("seed=-1", "dense.units=many", "dense.dropout='choice()'", "tuner.factor=1")
    assert [error.key for error in caught.value.errors] == [
        "dense.dropout",
        "seed",
        "dense.units",
        "tuner.factor",
    ]


def test_a_target_that_varies_needs_conditions_on_its_arguments() -> None:
    targets = "optimizer._target_='choice(keras.optimizers.SGD, keras.optimizers.Adam)'"
    overrides = ["optimizer=sgd", targets]
    with pytest.raises(ConfigErrors, match=r"`optimizer.momentum`: expected an argument that"):
        check(*overrides)
    when = ", ".join(
        f"optimizer.{name}: {{optimizer._target_: keras.optimizers.SGD}}"
        for name in ("momentum", "nesterov")
    )
    check(*overrides, f"when={{{when}}}")


def test_a_users_own_function_is_read_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_of_test.py").write_text(
        "raise RuntimeError('imported')\n"
        "def net(*, image_size: int, weights: str | None = None, depth: int): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "model").mkdir()
    option = tmp_path / "model" / "mine.yaml"
    option.write_text("_target_: mine_of_test.net\nimage_size: 32\ndepth: choice(1, 2)\n")
    compose.check(["model=mine"], folder=str(tmp_path))
    for override, fragment in {
        "model.depth=deep": "`model.depth`: expected an integer or a range",
        "+model.dept=1": "The nearest is `model.depth`",
        "~model.depth": "`model.depth`: expected a value",
    }.items():
        with pytest.raises(UserError, match=r"model\.dep") as caught:
            compose.check(["model=mine", override], folder=str(tmp_path))
        assert fragment in str(caught.value)


def test_validate_returns_the_space() -> None:
    space = validate.validate(compose.compose([]))
    assert [item.path for item in space] == [
        "dense.units",
        "dense.dropout",
        "optimizer.learning_rate",
    ]


def test_a_config_by_hand_must_be_whole() -> None:
    with pytest.raises(ConfigErrors, match="`training`: expected a value"):
        validate.validate(OmegaConf.create({"dense": {}}))


@pytest.mark.parametrize(
    ("tree", "flat"),
    [
        ({"a": {"b": 1, "c": {"d": None}}, "when": {}}, {"a.b": 1, "a.c.d": None}),
        ({"a": [1, "x"], "b": "${a}"}, {"a": '[1, "x"]', "b": '[1, "x"]'}),
        ({"seed": 1, "t": {"seed": "${seed}"}}, {"seed": 1, "t.seed": 1}),
        ({"d": {"units": "choice(1, 2)"}}, {"d.units": "choice(1, 2)"}),
        ({"w": {0: 1.0}}, {"w.0": 1.0}),
    ],
)
def test_flatten(tree: dict[str, Any], flat: dict[str, Any]) -> None:
    assert validate.flatten(tree) == flat
    assert validate.flatten(OmegaConf.create(tree)) == flat
