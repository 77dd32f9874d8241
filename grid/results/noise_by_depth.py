"""How far a quantized network is from its float network, by the depth that is to be predicted."""

import numpy as np

BINS = 8


def depth_edges(truth_m: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return edges, metres [bins + 1], between which about equally many pixels of known depth (> 0) lie.

    Fewer bins where many pixels have one depth; none where no depth is known.
    """
    known = truth_m[truth_m > 0]
    return np.unique(np.quantile(known, np.linspace(0.0, 1.0, bins + 1))) if known.size else np.zeros(0)


def rms_by_depth(difference_m: np.ndarray, truth_m: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the root mean square of differences in metres over the pixels of each bin of true depth, [bins].

    Arrays are of one shape; the last bin holds its upper edge. Pixels of unknown depth (0) are in no bin.
    """
    known = truth_m > 0
    places = np.clip(np.digitize(truth_m[known], edges) - 1, 0, len(edges) - 2)
    counts = np.bincount(places, minlength=len(edges) - 1)
    squares = np.bincount(places, np.square(difference_m[known], dtype=np.float64), minlength=len(edges) - 1)
    return np.asarray(np.sqrt(squares / np.maximum(counts, 1)))
