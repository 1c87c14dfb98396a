"""The rows of docs/results.md: what is typed for each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Recipe:
    """A row of the study.

    Attributes:
        group: The part of the page that it is in.
        name: What it is called there.
        words: What is typed after `pneumonia`.
        seeds: How many seeds are run.
        is_folded: Whether its trials are ranked out of fold, not on val.
        is_long: Whether it is run only where it is asked for by its name or group.
    """

    group: str
    name: str
    words: tuple[str, ...]
    seeds: int = 5
    is_folded: bool = False
    is_long: bool = False

    @property
    def folder(self) -> str:
        """The name of the folder of its searches, without the seed."""
        told = f"{self.name}, folds" if self.is_folded else self.name
        return told.replace(" ", "_").replace("=", "-").replace(",", "")


UNREAD = "winner.test=false"  # nothing is chosen among these by test, which none of them reads
QUICK, FROZEN = ("experiment=quick",), ("experiment=best_frozen",)

# best_frozen with fewer trials, the same for every row of a seed but where the space is another.
HEADS = (*FROZEN, "tuner=random", "tuner.max_trials=8", "tracking.log_models=none", UNREAD)
# best with one member: one training, of fewer epochs.
NETWORK = (
    *("experiment=best", "model.variant=0", "dense.units=128", "dense.dropout=0.3"),
    *("optimizer.learning_rate=4e-4", "training.mixup=0.0", "tuner.max_epochs=5"),
    *("winner.members=1", "tracking.log_models=none"),
    UNREAD,
)
FOCAL = (
    "training.loss._target_=keras.losses.BinaryFocalCrossentropy",
    "+training.loss.gamma=2.0",
)
BOTH: Mapping[str, tuple[str, ...]] = {
    "as it is": (),
    "constant learning rate": ("training.schedule=constant",),
    "no averages of weights": ("training.average=null",),
    "stochastic weight averaging": ("training.average=swa",),
    "balanced batches": ("training.balanced_batches=true",),
    "label smoothing": ("+training.loss.label_smoothing=0.1",),
    "focal loss": FOCAL,
    "no weight decay": ("optimizer.weight_decay=0",),
    "with flips": ("winner.flips=true",),
    "with duplicates in train": ("dataset.drop_duplicates=false",),
    "MixUp": ("training.mixup=0.2",),
}
OF_HEADS = {
    **BOTH,
    "augment=none": ("augment=none", "augment.views=1"),
    "augment=strong": ("augment=strong",),
    "no joined layers": ("model.layer=\"choice(block4c_add, block5c_add, block6d_add)\"",),
    "larger images in the end": ("winner.image_size=128",),
    "one member": ("winner.members=1",),
    "the five best": ("winner.selection=best",),
}  # fmt: skip
_PLAIN = ("~augment.scale", "~augment.rotation")
OF_NETWORK = {
    **BOTH,
    "augment=none": ("augment=none", *_PLAIN, "augment.views=1"),
    "augment=chest": ("augment=chest", *_PLAIN),
    "no crops": ("augment.scale=1",),
    "of 112 pixels in the end": ("winner.image_size=null",),
    "no warm-up": ("training.warmup=0",),
    "first the head alone": ("training.head_epochs=1",),
    "all of it trained": ("model.trainable=true",),
    "a tenth of the rate below the head": ("training.rest_learning_rate=0.1",),
}

# Heads on cached features, of which many can be bad; every tuner spends the same epochs.
RACE = (
    *(*FROZEN, "augment=none", "augment.views=1", "training.schedule=constant"),
    *("training.average=null", "training.early_stopping=null", "winner.members=1"),
    *("tracking.log_models=none", UNREAD, "tuner.max_epochs=20", "budget.epochs=600"),
    'optimizer.learning_rate="tag(log, interval(1e-5, 1e-1))"',
    'optimizer.weight_decay="tag(log, interval(1e-4, 1e-1))"',
)
TUNERS = {
    "hyperband": ("tuner.hyperband_iterations=3",),
    "bayesian": ("tuner=bayesian",),
    "random": ("tuner=random",),
    "tpe": ("--config-dir=tests/bench/plugin", "tuner=tpe"),
}


def _without(
    group: str,
    base: str,
    words: tuple[str, ...],
    changes: Mapping[str, tuple[str, ...]],
    *,
    is_long: bool = False,
) -> Iterator[Recipe]:
    """Yield rows with one thing changed at a time, judged on val and out of fold."""
    for name, change in changes.items():
        for is_folded in (False, True):
            folds = (f"objective.folds={FOLDS}",) if is_folded else ()
            told = (*words, *change, *folds)
            yield Recipe(group, f"{base}, {name}", told, 5, is_folded, is_long)


PRESETS, SEEN, RACES = "Presets", "Variants that have read test", "Tuners"
VIEWS, HEADED, TUNED = (
    "Augmentation of quick",
    "Ingredients of best_frozen",
    "Ingredients of best",
)
STUDY = (
    Recipe(PRESETS, "best", ("experiment=best",)),
    Recipe(PRESETS, "best_frozen", FROZEN),
    Recipe(PRESETS, "quick", QUICK),
    Recipe(SEEN, "best, of 112 pixels in the end", ("experiment=best", "winner.image_size=null")),
    Recipe(SEEN, "quick, without augmentation", (*QUICK, "augment=none")),
    Recipe(SEEN, "best_frozen, augment=strong", (*FROZEN, "augment=strong", "augment.views=8")),
    *_without(
        *(VIEWS, "quick", (*QUICK, "tracking.log_models=none", UNREAD)),
        {"as it is": (), "augment=none": ("augment=none",)},
    ),
    *_without(HEADED, "heads", HEADS, OF_HEADS),
    *_without(TUNED, "network", NETWORK, OF_NETWORK, is_long=True),
    *(Recipe(RACES, name, (*RACE, *words), 10) for name, words in TUNERS.items()),
)
ABLATIONS = (VIEWS, HEADED, TUNED)
