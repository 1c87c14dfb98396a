"""Train a Keras model on arrays, whole epochs in one call, traced once per architecture.

Keras' `fit` costs about a second of tracing for every model and more Python per step than a small
head costs arithmetic. Here a model is trained by a *program*: a loop over the steps of an epoch in
one `tf.function`. Programs are kept and used again for every model of the same architecture;
learning rate, weight decay and dropout rates are variables of the program. Losses and optimizers
are Keras' own.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pneumonia.config.instantiate import LOCK
from pneumonia.datasets.cache import Kept
from pneumonia.training.compiled_layers import (
    ELEMENTWISE,
    FLOAT32,
    Clock,
    SteppedDropout,
    TransposedDense,
    architecture,
    clone,
    dropouts,
    is_dense,
    leaves,
)
from pneumonia.training.compiled_step import Plan, TrainStep, scaling

# In seconds, about what it takes to compile a program of a small head.
_PATIENCE = 2.0
_PREDICT_BYTES = 64 * 2**20

Array = np.ndarray[Any, Any]
Arrays = tuple[Array, ...]


class Chunk(NamedTuple):
    """Some steps of an epoch.

    Attributes:
        x: Inputs, (n, ...).
        rows: Which of them a step takes, (steps, batch) int32.
        y: Labels, (steps, batch) float32.
        weight: Weights of the samples, (steps, batch) float32; 0 where a batch is padded.
        steps: How many of the steps count; the rest is padding, so that the shape stays the same.
        plan: What changes from step to step (`compiled_step`), arrays (steps, ...) by name.
    """

    x: Array | tf.Tensor
    rows: Array
    y: Array
    weight: Array
    steps: int
    plan: Mapping[str, Array] = {}


class Program:
    """Owns the traced training loop of one architecture, and the variables that it works on.

    It must not choose: epochs, order of the samples, early stopping and metrics are the caller's.
    It works on a copy of the model. The arguments are those of `program`.

    Attributes:
        borrower: The thread that trains with it, so that no other may; None if there is none.
        learning_rate: That of the training, which a plan may change; None where it is a schedule.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        *,
        loss: keras.losses.Loss,
        jit: bool,
        averages: bool = False,
        precision: str = FLOAT32,
    ) -> None:
        self.borrower: int | None = None
        self.learning_rate: float | None = None
        self._optimizer, self._mean_loss = scaling(optimizer, precision), _mean_loss(loss)
        self._clock = Clock(optimizer, jit=jit)
        self._dropouts: list[SteppedDropout] = []
        # XLA's ways of multiplying are many; elsewhere there is one.
        transposing = optimizer if jit and precision == FLOAT32 else None
        self._model = clone(model, self._clock, self._dropouts, precision, transposing=transposing)
        self._decay = None
        if weight_decay(optimizer) is not None:
            self._decay = tf.Variable(optimizer.weight_decay, trainable=False, dtype=tf.float32)
            optimizer.weight_decay = self._decay
        self._optimizer.build(self._model.trainable_variables)
        self._step = TrainStep(self._model, self._optimizer, loss, averages=averages)
        self._variables = variables(self._model)
        kernels = [one.kernel for one in leaves(self._model) if isinstance(one, TransposedDense)]
        self._transposed = {id(kernel) for kernel in kernels}
        self._initial = [_compact(variable.numpy()) for variable in self._optimizer.variables]
        self._epoch = tf.function(self._run, jit_compile=jit, autograph=False)
        self._predict = tf.function(
            lambda x: tf.cast(self._model(x, training=False), tf.float32),
            input_signature=[tf.TensorSpec([None, *model.input.shape[1:]], model.input.dtype)],
            autograph=False,
        )

    def start(
        self,
        model: keras.Model,
        *,
        learning_rate: float | None,
        seed: int,
        weight_decay: float | None = None,
    ) -> None:
        """Begin a training: take the model's weights and dropout rates, reset the optimizer."""
        self.set_weights([source.numpy() for source in variables(model)])
        for variable, value in zip(self._optimizer.variables, self._initial, strict=True):
            variable.assign(np.broadcast_to(value, variable.shape))
        self.learning_rate = learning_rate
        if learning_rate is not None:
            self._optimizer.learning_rate = learning_rate
        if self._decay is not None and weight_decay is not None:
            self._decay.assign(weight_decay)
        for ours, theirs in zip(self._dropouts, dropouts(model), strict=True):
            ours.rate.assign(theirs.rate)
        # Room below the seed for the positions of the layers, and within 31 bits.
        self._clock.seed.assign(seed * 1009 % (2**31 - 1009))

    def train(self, chunks: Iterable[Chunk]) -> tuple[float, Array]:
        """Train on the chunks of one epoch.

        Returns:
            The mean loss over the samples, and the outputs in training mode of all the steps,
            (steps, batch) float32, padding included.
        """
        losses, outputs = [], []
        for chunk in chunks:
            loss, output = self._epoch(*tf.nest.map_structure(tf.convert_to_tensor, tuple(chunk)))
            real = np.count_nonzero(chunk.weight[: chunk.steps], axis=1)
            losses.append((float(np.sum(loss.numpy()[: chunk.steps] * real)), int(real.sum())))
            outputs.append(output.numpy()[: chunk.steps])
        total = sum(count for _, count in losses)
        return sum(value for value, _ in losses) / total, np.concatenate(outputs)

    def predict(self, x: Array | tf.Tensor) -> Array:
        """Return the probabilities for inputs (n, ...): (n,) float32."""
        rows = max(1, _PREDICT_BYTES // (4 * max(1, math.prod(x.shape[1:]))))
        chunks = [x] if len(x) <= rows else [x[i : i + rows] for i in range(0, len(x), rows)]
        parts = [self._predict(tf.convert_to_tensor(chunk)).numpy()[:, 0] for chunk in chunks]
        return np.concatenate(parts)

    def loss(self, y: Array, output: Array) -> float:
        """Return the mean loss of outputs (n,) for labels (n,), without weights."""
        return float(self._mean_loss(tf.constant(y, tf.float32), tf.constant(output)))

    def state(self) -> tuple[Arrays, Arrays]:
        """Return copies of all that a training needs to go on as if it had never stopped.

        Returns:
            The values of the model's variables, and those of the optimizer's as the program has
            them.
        """
        slots = tuple(variable.numpy().copy() for variable in self._optimizer.variables)
        return self.weights(), slots

    def weights(self) -> Arrays:
        """Return a copy of the values of the model's variables."""
        return tuple(self._turn(variable, variable.numpy()).copy() for variable in self._variables)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the averages of the weights in their place meanwhile, if there are any."""
        own = [variable.numpy().copy() for variable, _ in self._step.averages]
        for variable, average in self._step.averages:
            variable.assign(average)
        try:
            yield
        finally:
            for (variable, _), value in zip(self._step.averages, own, strict=True):
                variable.assign(value)

    def resume(self, weights: Sequence[Array], slots: Sequence[Array]) -> None:
        """Go on from a state."""
        self.set_weights(weights)
        for variable, value in zip(self._optimizer.variables, slots, strict=True):
            variable.assign(value)

    def set_weights(self, weights: Sequence[Array]) -> None:
        """Give the model's variables these values."""
        for variable, value in zip(self._variables, weights, strict=True):
            variable.assign(self._turn(variable, value))

    def _turn(self, variable: keras.Variable, value: Array) -> Array:
        """Return a value of a variable as the model has it from as the program has it, or back."""
        return value.T if id(variable) in self._transposed else value

    def _run(
        self,
        x: tf.Tensor,
        index: tf.Tensor,
        y: tf.Tensor,
        weight: tf.Tensor,
        steps: tf.Tensor,
        plan: Plan,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        def body(
            i: tf.Tensor, losses: tf.Tensor, outputs: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            now = {name: values[i] for name, values in plan.items()}
            loss, output = self._step(tf.gather(x, index[i]), y[i], weight[i], now)
            losses = tf.tensor_scatter_nd_update(losses, [[i]], [loss])
            outputs = tf.tensor_scatter_nd_update(outputs, [[i]], [output])
            return i + 1, losses, outputs

        start = (tf.constant(0), tf.zeros_like(y[:, 0]), tf.zeros_like(y))
        _, losses, outputs = tf.while_loop(lambda i, *_: i < steps, body, start)
        return losses, outputs


_programs: Kept[list[Program]] = Kept(16)
_mean_losses: Kept[Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = Kept(16)
_returned = threading.Condition(LOCK)
_threads = threading.local()


def program(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    *,
    loss: keras.losses.Loss,
    jit: bool | None = None,
    averages: bool = False,
    precision: str = FLOAT32,
) -> Program:
    """Return a program that trains models of this architecture, and that no other thread has.

    It is traced only once; where trials of one architecture train at once, for each of them. Before
    another one is made, it waits as long as that would take: a trial may be about to end.

    Args:
        model: From inputs to probabilities (n, 1).
        optimizer: Not built yet; its learning rate is no part of the architecture where it is a
            number.
        loss: Keras' own.
        jit: Whether XLA compiles the loop; by default for models without convolutions.
        averages: Whether it averages the weights.
        precision: Keras' dtype policy that it computes by; weights and outputs are float32.
    """
    jit = is_dense(model) if jit is None else jit
    described = keras.saving.serialize_keras_object(loss)
    key = [architecture(model), _arguments(optimizer), described, jit, averages, precision]
    with _returned:
        known: list[Program] = _programs.get(key, list)
        _returned.wait_for(lambda: not known or _find_free(known) is not None, _PATIENCE)
        found = _find_free(known)
        if found is None:
            found = Program(
                model, optimizer, loss=loss, jit=jit, averages=averages, precision=precision
            )
            known.append(found)
        return found


@contextmanager
def borrow(*args: Any, **options: Any) -> Iterator[Program]:
    """Yield what `program` returns, which no other thread gets in the meantime."""
    with LOCK:
        found = program(*args, **options)
        is_new, found.borrower = found.borrower is None, threading.get_ident()
    with ExitStack() as own:
        if is_new:
            (getattr(_threads, "held", None) or own).callback(_give_back, found)
        yield found


@contextmanager
def hold() -> Iterator[None]:
    """Keep what this thread borrows until the end, so that it gets the same programs again."""
    with ExitStack() as _threads.held:
        try:
            yield
        finally:
            _threads.held = None


def _give_back(program: Program) -> None:
    with _returned:
        program.borrower = None
        _returned.notify_all()


def _find_free(known: Sequence[Program]) -> Program | None:
    """Return a program that no other thread has borrowed, the one of this thread first."""
    own = threading.get_ident()
    return next(
        (one for borrower in (own, None) for one in known if one.borrower == borrower), None
    )


def variables(model: keras.Model) -> list[keras.Variable]:
    """Return a model's variables in a fixed order, without the random states of its dropouts."""
    ignored = {
        id(variable)
        for layer in leaves(model)
        if isinstance(layer, keras.layers.Dropout)
        for variable in layer.variables
    }
    return [variable for variable in model.variables if id(variable) not in ignored]


def learning_rate(optimizer: keras.optimizers.Optimizer) -> float | None:
    """Return an optimizer's learning rate, or None where it is a schedule."""
    value = optimizer.get_config()["learning_rate"]
    return float(value) if isinstance(value, int | float) else None


def weight_decay(optimizer: keras.optimizers.Optimizer) -> float | None:
    """Return an optimizer's weight decay, or None where it has none, or not Keras' common one."""
    value = getattr(optimizer, "weight_decay", None)
    return float(value) if value is not None and type(optimizer) in ELEMENTWISE else None


def _arguments(optimizer: keras.optimizers.Optimizer) -> Any:
    config = dict(optimizer.get_config())
    del config["name"]  # numbered by Keras, anew for every optimizer
    if learning_rate(optimizer) is not None:
        del config["learning_rate"]
    if weight_decay(optimizer) is not None:
        config["weight_decay"] = True
    return optimizer.__class__.__name__, config


def _mean_loss(loss: keras.losses.Loss) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Return the loss of labels (n,) and outputs (n,), traced once for all the programs."""
    signature = [tf.TensorSpec([None], tf.float32)] * 2
    call = tf.function(
        lambda y, output: loss(y[:, None], output[:, None]), signature, autograph=False
    )
    return _mean_losses.get(keras.saving.serialize_keras_object(loss), lambda: call)


def _compact(value: Array) -> Array:
    """Return one number for an array of equal numbers: an optimizer's slots start as zeros."""
    flat = value.reshape(-1)
    return flat[:1].reshape(()) if flat.size and (flat == flat[0]).all() else value
