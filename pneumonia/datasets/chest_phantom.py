"""Chest phantoms: generated images that look like chest X-rays, for when no real ones are there.

Each image is a sum of soft shapes in a posed frame, as attenuation: body, lungs, heart, spine,
ribs, clavicles and lung vessels. Images of the positive class also have patchy, mottled opacities
inside the lungs, as in bronchopneumonia. Pose, exposure, body build, haze and noise vary in both
classes, so that neither brightness nor a fixed place gives the class away. Made to exercise a
search, never to train a classifier for real images.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pneumonia.config.constraints import SEED, Bounds
from pneumonia.datasets.base import SPLITS, ArraySource, ImageData, build_data, build_split
from pneumonia.errors import ConfigError, DataError

CLASS_NAMES = ("normal", "pneumonia")

Count: TypeAlias = Annotated[int, Bounds(2, 1_000_000)]
Floats = npt.NDArray[Any]  # always float32

_CHUNK = 32  # images drawn together: few enough to stay in the processor's cache
_TRAITS = 64
_COARSE = 6
_FINE = 24
_RAYS = (48, 8)
_BLOBS = 4


def phantom(
    *,
    train: Count = 1200,
    val: Count = 300,
    test: Count = 400,
    image_size: Annotated[int, Bounds(32, 512)] = 96,
    positive_fraction: Annotated[float, Bounds(0.01, 0.99)] = 0.5,
    difficulty: Annotated[float, Bounds(0, 1)] = 0.5,
    seed: Annotated[int, SEED] = 0,
) -> ImageData:
    """Generate chest phantoms, grey, with the classes `normal` and `pneumonia`.

    Image i of a split depends on the seed, the split and i alone, not on how many there are.

    Args:
        train: Number of images in train; likewise `val` and `test`.
        val: See `train`.
        test: See `train`.
        image_size: Pixels a side.
        positive_fraction: Fraction with opacities.
        difficulty: 0 for plain opacities to 1 for faint ones.
        seed: Another seed gives other images.

    Raises:
        ConfigError: For a split so small that it has one class only.
    """
    splits = []
    for number, (name, count) in enumerate(zip(SPLITS, (train, val, test), strict=True)):
        labels = _deal_labels(count, positive_fraction)
        images = _draw_all(labels, image_size, difficulty, key=(seed, number))
        try:
            splits.append(build_split(name, ArraySource(images), labels=labels))
        except DataError as error:
            key, reason = "dataset.positive_fraction", str(error).rstrip(".")
            expected = f"a share with images of both classes in {count} of {name}"
            raise ConfigError(key, expected, positive_fraction, reason) from error
    source = f"generated chest phantoms, {image_size} x {image_size}, seed {seed}"
    return build_data("phantom", splits, class_names=CLASS_NAMES, source=source)


def _deal_labels(count: int, fraction: float) -> npt.NDArray[np.int64]:
    """Return labels in which each stretch has the given fraction of positives."""
    return np.asarray(np.diff(np.floor(np.arange(count + 1) * fraction + 0.5)).astype(np.int64))


class _Sheet:
    """The random numbers and the posed coordinates of a chunk of n images, a generator each."""

    def __init__(self, rngs: list[np.random.Generator], size: int) -> None:
        self._traits = np.stack([rng.random(_TRAITS, dtype=np.float32) for rng in rngs])
        self.coarse = _spread(rngs, (_COARSE, _COARSE), size)
        self.mottle = _spread(rngs, (_FINE, _FINE), size)
        self.grain = np.stack([rng.standard_normal((size, size), np.float32) for rng in rngs])
        self.rays = np.stack([rng.standard_normal((2, *_RAYS), np.float32) for rng in rngs])
        self.blobs = np.stack([rng.random((_BLOBS, 6), dtype=np.float32) for rng in rngs])
        self._taken = 0
        axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
        self.across, self.down = axis[None, None, :], axis[None, :, None]
        angle, scale = self.pick(-0.10, 0.10), self.pick(0.90, 1.12)
        shift_x, shift_y, aspect = (self.pick(-a, a) for a in (0.07, 0.07, 0.06))
        x, y = self.across - shift_x, self.down - shift_y
        self.x: Floats = (x * np.cos(angle) + y * np.sin(angle)) * scale * (1 + aspect)
        self.y: Floats = (y * np.cos(angle) - x * np.sin(angle)) * scale

    def pick(self, low: float, high: float) -> Floats:
        """Return the next trait, uniform from low to high, of shape (n, 1, 1)."""
        trait = self._traits[:, self._taken, None, None]
        self._taken += 1
        return np.float32(low) + trait * np.float32(high - low)


def _draw_all(
    labels: npt.NDArray[np.int64], size: int, difficulty: float, *, key: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Return uint8 images (N, size, size), drawn in chunks on all processors."""
    images = np.empty((len(labels), size, size), dtype=np.uint8)

    def fill(start: int) -> None:
        part = range(start, min(start + _CHUNK, len(labels)))
        rngs = [np.random.default_rng((*key, i)) for i in part]
        images[start : part.stop] = _draw(rngs, labels[start : part.stop], size, difficulty)

    # NumPy computes without holding the interpreter's lock.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(fill, range(0, len(labels), _CHUNK)))
    return images


def _draw(
    rngs: list[np.random.Generator], labels: npt.NDArray[np.int64], size: int, difficulty: float
) -> npt.NDArray[np.uint8]:
    sheet = _Sheet(rngs, size)
    air, depth = _draw_lungs(sheet)
    inner = _draw_mediastinum(sheet)
    lung = air * (1 - inner)
    bones = _draw_bones(sheet)
    vessels = _draw_vessels(sheet)
    haze = sheet.pick(0.0, 0.20) + 0.05 * sheet.coarse
    opacity = _draw_opacities(sheet, difficulty) * labels[:, None, None].astype(np.float32)
    filling = np.clip(haze + vessels + opacity, 0, 0.92)
    tissue = sheet.pick(0.60, 0.72) + 0.03 * sheet.coarse
    image = tissue - lung * depth * sheet.pick(0.46, 0.58) * (1 - filling)
    image += 0.10 * inner + bones * (0.35 + 0.65 * lung)
    return _expose(sheet, image * _draw_body(sheet))


def _draw_body(sheet: _Sheet) -> Floats:
    """Return the silhouette: neck, shoulders and flanks, 0 outside to 1 inside."""
    aside = np.abs(sheet.x)
    flank = _step(sheet.pick(0.96, 1.25) - aside + 0.10 * sheet.y**2, 0.08)
    slope = 0.75 * np.maximum(aside - 0.30, 0) ** 1.5
    shoulder = _step(sheet.y + sheet.pick(0.98, 1.16) - slope, 0.08)
    return flank * shoulder * 0.97 + 0.03


def _draw_lungs(sheet: _Sheet) -> tuple[Floats, Floats]:
    """Return where the lungs are (0 to 1) and how deep they are there (0 to 1)."""
    x, y = sheet.x, sheet.y
    widening = _step(y + 0.35, 0.55)
    air, depth = np.zeros_like(x), np.zeros_like(x)
    top, breath = sheet.pick(-0.80, -0.72), sheet.pick(0.46, 0.66)
    for side in (-1, 1):
        width = sheet.pick(0.30, 0.36) * (0.60 + 0.40 * widening)
        middle = side * (0.30 + 0.13 * widening)
        across = (x - middle) / width
        dome = breath + sheet.pick(-0.04, 0.04) - 0.18 * (1 - (across * 0.9 + 0.1 * side) ** 2)
        upper = np.maximum(-y - 0.15, 0) / (-top - 0.15)
        inside = 1 - across**2 - upper**2
        here = _step(inside, 0.16) * _step(dome - y, 0.035)
        air = np.maximum(air, here)
        depth = np.maximum(depth, here * (0.62 + 0.38 * np.sqrt(np.clip(inside, 0, 1))))
    return air, depth


def _draw_mediastinum(sheet: _Sheet) -> Floats:
    """Return heart, great vessels and hila, less the windpipe, 0 to 1."""
    x, y = sheet.x, sheet.y
    size = sheet.pick(0.80, 1.25)
    u, v = x - sheet.pick(0.08, 0.18), y - sheet.pick(0.26, 0.38)
    along, aslant = (u * 0.88 + v * 0.47) / (0.34 * size), (v * 0.88 - u * 0.47) / (0.25 * size)
    heart = _step(1 - along**2 - aslant**2, 0.45)
    waist = sheet.pick(0.09, 0.16) + 0.05 * y + 0.05 * _bump(y + 0.95, 0.0, 0.35)
    band = _step(waist - np.abs(x - 0.02), 0.12) * _step(0.75 - y, 0.6)
    knob = _bump(x - 0.14, y + 0.28, 0.085)
    hila = _bump(np.abs(x) - 0.20, (y - 0.02) * 0.7, 0.085) * sheet.pick(0.3, 0.7)
    windpipe = _bump(x / 0.75, np.maximum(y + 0.35, 0), 0.065) * sheet.pick(0.2, 0.5)
    solid = np.maximum(np.maximum(heart * 0.85, band * 0.85), np.maximum(knob * 0.7, hila))
    return np.asarray(solid * (1 - windpipe))


def _draw_bones(sheet: _Sheet) -> Floats:
    """Return the attenuation that ribs, clavicles and spine add."""
    x, y = sheet.x, sheet.y
    aside = np.abs(x)
    cage = _step(0.86 - aside, 0.08) * _step(aside - 0.10, 0.10) * _step(0.72 - y, 0.15)
    spacing, start = sheet.pick(0.165, 0.205), sheet.pick(0, 1)
    back = y - 0.55 * aside + 0.62 * aside**2
    front = y + 0.10 * aside - 0.95 * (aside - 0.45) ** 2
    ribs = _stripe(back / spacing + start, 0.72) * sheet.pick(0.06, 0.11)
    ribs += _stripe(front / (spacing * 1.25) + start, 0.70) * sheet.pick(0.02, 0.06)
    slope = y + sheet.pick(0.60, 0.68) + 0.30 * (aside - 0.25) - 0.12 * np.sin(6 * aside)
    clavicle = _bump(slope, 0.0, 0.032) * _step(aside - 0.10, 0.08) * _step(0.80 - aside, 0.12)
    vertebrae = _bump(x, 0.0, 0.085) * (0.7 + 0.3 * _stripe(y / 0.14 + start, 0.3))
    return np.asarray(ribs * cage + 0.10 * clavicle + vertebrae * sheet.pick(0.02, 0.09))


def _draw_vessels(sheet: _Sheet) -> Floats:
    """Return lung vessels: streaks that run out from either hilum and fade."""
    u, y = np.abs(sheet.x) - 0.16, sheet.y - 0.02
    radius = np.sqrt(u**2 + y**2)
    turn = (np.arctan2(y, u) * np.float32(0.5 / math.pi) + 0.5) * _RAYS[0] + 2.5 * radius
    ring = np.minimum(radius * 6, np.float32(_RAYS[1] - 1.001))
    i, j = turn.astype(np.int32), ring.astype(np.int32)
    f, g = turn - i, ring - j
    image = np.arange(len(u), dtype=np.int32)[:, None, None]
    table = sheet.rays.reshape(-1)
    row = (image * 2 + (sheet.x > 0)) * _RAYS[0]
    this, following = (row + i % _RAYS[0]) * _RAYS[1] + j, (row + (i + 1) % _RAYS[0]) * _RAYS[1] + j
    near = table[this] * (1 - f) + table[following] * f
    far = table[this + 1] * (1 - f) + table[following + 1] * f
    streak = np.clip(near * (1 - g) + far * g, 0, 2) * np.exp(-2.6 * radius)
    return np.asarray(streak * _step(u, 0.1) * sheet.pick(0.25, 0.55), dtype=np.float32)


def _draw_opacities(sheet: _Sheet, difficulty: float) -> Floats:
    """Return patches of consolidation (0 to 1): one to four blobs of ragged, mottled edge."""
    patches = np.zeros_like(sheet.x)
    many = sheet.pick(1.2, _BLOBS + 1)
    for number in range(_BLOBS):
        where, high, wide, long, strength, _ = (
            sheet.blobs[:, number, i, None, None] for i in range(6)
        )
        x = np.where(where < 0.5, -0.60 + 0.68 * where, 0.26 + 0.68 * (where - 0.5))
        y = -0.45 + 0.85 * high
        u = (sheet.x - x) / (0.10 + 0.11 * wide)
        v = (sheet.y - y) / (0.10 + 0.13 * long)
        ragged = 0.7 - u**2 - v**2 + 0.35 * sheet.coarse + 0.40 * sheet.mottle
        patch = _step(ragged, 2.4) * (0.50 + 0.30 * strength)
        patches = np.maximum(patches, patch * (number < many))
    return patches * (1.60 - 1.04 * difficulty) * (0.9 + 0.25 * sheet.mottle)


def _expose(sheet: _Sheet, image: Floats) -> npt.NDArray[np.uint8]:
    """Return uint8 after scatter, noise, contrast and brightness of the exposure."""
    tilt = sheet.pick(-0.07, 0.07) * sheet.across + sheet.pick(-0.07, 0.07) * sheet.down
    noisy = image + tilt + sheet.grain * sheet.pick(0.008, 0.030)
    toned = np.clip(noisy, 0, 1.2) ** sheet.pick(0.75, 1.35)
    scaled = toned * sheet.pick(0.75, 1.15) + sheet.pick(-0.06, 0.10)
    return np.asarray((np.clip(scaled, 0, 1) * 255 + 0.5).astype(np.uint8))


def _spread(rngs: list[np.random.Generator], shape: tuple[int, int], size: int) -> Floats:
    """Return smooth noise (n, size, size) of unit scale, from grids of normal numbers."""
    grids = np.stack([rng.standard_normal(shape, np.float32) for rng in rngs])
    rise = _blend(shape[0], size)
    return np.asarray(rise @ grids @ _blend(shape[1], size).T, dtype=np.float32)


def _blend(count: int, size: int) -> Floats:
    """Return the matrix (size, count) that interpolates smoothly between `count` knots."""
    place = np.linspace(0, count - 1, size)[:, None] - np.arange(count)[None, :]
    weights = np.exp(-0.5 * (place / 0.6) ** 2)
    unit: Floats = weights / np.sqrt((weights**2).sum(axis=1, keepdims=True))
    return unit.astype(np.float32)


def _step(value: Floats, width: float) -> Floats:
    """Return 0 to 1, rising smoothly where value goes from -width / 2 to width / 2."""
    t = value * np.float32(1 / width)
    t += np.float32(0.5)
    np.clip(t, 0, 1, out=t)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def _bump(u: Floats, v: Floats | float, radius: float) -> Floats:
    """Return a bell of the given radius around (0, 0)."""
    return np.asarray(np.exp((u**2 + v**2) * np.float32(-0.5 / radius**2)), dtype=np.float32)


def _stripe(phase: Floats, edge: float) -> Floats:
    """Return 1 once per unit of phase, 0 between; a larger edge makes narrower stripes."""
    wave = np.cos(phase * np.float32(2 * math.pi)) * np.float32(0.5) + np.float32(0.5)
    return _step(wave - np.float32(edge), 0.35)
