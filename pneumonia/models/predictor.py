"""A classifier at work: images of any sizes in; probabilities, decisions and heat maps out.

TensorFlow is imported when one is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pneumonia import startup
from pneumonia.errors import UserError
from pneumonia.models import classifier_file, gradcam
from pneumonia.models.gradcam import Explain, Pixels

if TYPE_CHECKING:
    import keras

Probabilities = NDArray[np.float32]
Classify = Callable[[Pixels], Probabilities]

_REASON_LENGTH = 200


@dataclass(frozen=True, eq=False)
class Predictor:
    """A classifier with its decision.

    It owns what is traced of `model`, which only an export may look into.

    Attributes:
        model: uint8 images (n, H, W, C) to probabilities (n, 1).
        class_names: Negative, positive.
        threshold: Strictly above it, an image is positive.
        temperature: What the logits were divided by; it is in the weights already.
        trained_on: What its file says of the data, if anything.
    """

    model: keras.Model
    class_names: tuple[str, str] = ("negative", "positive")
    threshold: float = 0.5
    temperature: float = 1.0
    trained_on: Any = None

    @classmethod
    def load(cls, file: Path, **decision: Any) -> Predictor:
        """Load a classifier, which takes seconds where TensorFlow is not loaded yet.

        Args:
            file: The `.keras` file.
            decision: `class_names` and `threshold`, if they are to be others than the usual ones.

        Raises:
            UserError: Where the file is not a classifier, or runs code of its own.
        """
        startup.start()
        from pneumonia.models import classifier

        try:
            model = classifier.load(file)
        except Exception as error:  # Keras raises errors of many kinds
            reason = " ".join(str(error).split())[:_REASON_LENGTH]
            raise UserError(f"{file}: Keras cannot load it as a classifier ({reason}).") from error
        takes = [(tensor.dtype, len(tensor.shape)) for tensor in model.inputs]
        gives = [tuple(tensor.shape) for tensor in model.outputs]
        if takes != [("uint8", 4)] or gives != [(None, 1)]:
            raise UserError(
                f"{file}: expected a classifier, from uint8 images (n, height, width, channels) to "
                f"probabilities (n, 1). Received: a model from {takes} to {gives}."
            )
        facts = classifier_file.read_facts(file)
        told = {name: facts[name] for name in ("temperature", "trained_on") if name in facts}
        return cls(model, **told, **decision)

    @cached_property
    def classify(self) -> Classify:
        """A function of images (n, H, W, C) of one size: their probabilities (n,)."""
        import tensorflow as tf

        # One signature for all sizes: tracing again for each takes longer than the images do.
        call = tf.function(
            lambda images: self.model(images, training=False), autograph=False
        ).get_concrete_function(tf.TensorSpec((None, None, None, None), tf.uint8))
        return lambda images: np.asarray(call(tf.constant(images)), np.float32)[:, 0]

    def predict(self, images: Sequence[Pixels]) -> Probabilities:
        """Return the probabilities (n,) of the positive class, for uint8 (H, W, C) each."""
        return np.array(gradcam.by_shape(images, self.classify), np.float32)

    def decide(self, probability: float) -> str:
        """Return the name of the class that a probability is decided for."""
        return self.class_names[int(probability > self.threshold)]

    @cached_property
    def explain(self) -> Explain:
        """Makes heat maps of the evidence for the positive class, see `gradcam.explainer`."""
        return gradcam.explainer(self.model)
