"""The noise of a camera in dim light, for networks that remove it."""

import numpy as np
from numpy.typing import NDArray

from model.data.frame import SPLITS
from model.data.rooms.render import SEED

Generator = np.random.Generator

_GAMMA = np.float32(2.2)
_SHOT = (0.102, 0.128)
_READ = (0.003, 0.012)
_STREAM = 1000  # the views of a scene draw from [seed, split, scene, 1] and so on


def noise_rng(split: str, index: int, seed: int = SEED) -> Generator:
    """The generator for the noise of picture ``index`` of ``split``."""
    return np.random.default_rng([seed, SPLITS.index(split), index, _STREAM])


def noisy(image: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """The picture (3 x S x S, uint8) with shot and read noise, added as Gaussian noise in linear light.

    The variance is that of Foi et al. 2008: it grows with the signal. PSNR against the picture: 22 to 26 dB.
    """
    shot, read = rng.uniform(*_SHOT), rng.uniform(*_READ)
    signal = (image / np.float32(255)) ** _GAMMA
    spread = np.sqrt(np.float32(shot**2) * signal + np.float32(read**2))
    signal += spread * rng.standard_normal(image.shape, dtype=np.float32)
    return (np.clip(signal, 0, 1) ** (1 / _GAMMA) * 255 + np.float32(0.5)).astype(np.uint8)
