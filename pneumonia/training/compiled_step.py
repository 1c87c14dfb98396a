"""One step of a training, as it is compiled: the gradient, the optimizer, and what a plan adds.

A plan holds what changes from step to step, worked out beforehand (`recipe`), so that nothing of it
is compiled into a program or drawn in one. What it does not hold does not happen:

`rate`
    The learning rate.
`partner`, `share`
    MixUp: the row of the batch that each row is mixed with, (batch,) int32, and its own share.
`rest`
    A factor on the learning rate of all that is not the head.
`kept`
    How much of the averages of the weights is kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

Plan = Mapping[str, tf.Tensor]


class TrainStep:
    """Owns the averages of a model's weights, which are variables of its optimizer.

    Attributes:
        averages: The variables that are trained, each with its average; none without averages.

    Args:
        model: What is trained.
        optimizer: Built on the model's trainable variables.
        loss: Keras' own.
        averages: Whether there are averages; every step then needs `kept`.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        loss: keras.losses.Loss,
        *,
        averages: bool,
    ) -> None:
        self._model, self._optimizer, self._loss = model, optimizer, loss
        add = optimizer.add_variable_from_reference
        averaged = model.trainable_variables if averages else []
        self.averages = [(variable, add(variable, "average")) for variable in averaged]

    def __call__(
        self, x: tf.Tensor, y: tf.Tensor, weight: tf.Tensor, plan: Plan
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Take a step on a batch; return its loss and the outputs in training mode, (batch,)."""
        variables = self._model.trainable_variables
        if "rate" in plan:
            self._optimizer.learning_rate = plan["rate"]
        if "share" in plan:
            x = plan["share"] * x + (1 - plan["share"]) * tf.gather(x, plan["partner"])
        with tf.GradientTape() as tape:
            output = tf.cast(self._model(x, training=True), tf.float32)
            loss = self._measure(output, y, weight, plan)
            penalties = [tf.cast(penalty, tf.float32) for penalty in self._model.losses]
            total = tf.add_n([loss, *penalties]) if penalties else loss
            scaled = self._optimizer.scale_loss(total)
        rest = self._rest() if "rest" in plan else []
        before = [tf.identity(variable.value) for variable in rest]
        self._optimizer.apply(tape.gradient(scaled, variables), variables)
        for variable, old in zip(rest, before, strict=True):
            # Every step of Keras' optimizers, weight decay included, is proportional to the rate.
            variable.assign(old + plan["rest"] * (variable - old))
        for variable, average in self.averages:
            average.assign(plan["kept"] * average + (1 - plan["kept"]) * variable)
        return total, output[:, 0]

    def _measure(self, output: tf.Tensor, y: tf.Tensor, weight: tf.Tensor, plan: Plan) -> tf.Tensor:
        """Return the loss; that of mixed samples is the mixture of those of their labels."""
        loss = self._loss(y[:, None], output, sample_weight=weight)
        if "share" not in plan:
            return loss
        y, weight = tf.gather(y, plan["partner"]), tf.gather(weight, plan["partner"])
        other = self._loss(y[:, None], output, sample_weight=weight)
        return plan["share"] * loss + (1 - plan["share"]) * other

    def _rest(self) -> list[keras.Variable]:
        head = {id(variable) for variable in self._model.get_layer("head").trainable_variables}
        return [one for one in self._model.trainable_variables if id(one) not in head]


def scaling(optimizer: keras.optimizers.Optimizer, precision: str) -> keras.optimizers.Optimizer:
    """Return an optimizer that scales the loss where gradients would vanish: float16 ends at 6e-8.

    Its scale is one of its variables, and so a part of a state. A step whose gradients overflow is
    left out, and halves it (Micikevicius et al., 2018, https://arxiv.org/abs/1710.03740).
    """
    is_needed = precision == "mixed_float16"
    return keras.optimizers.LossScaleOptimizer(optimizer) if is_needed else optimizer
