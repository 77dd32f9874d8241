"""The closed vocabulary of a quantization recipe, as frozen dataclasses."""

from collections.abc import Mapping
from dataclasses import dataclass

from model.errors import require_one_of, require_range
from quant.engines.catalog import PACKAGES, TORCH

GRANULARITIES = ("per_channel", "per_tensor")
FINETUNED = "fp32-finetuned"
"""The control of QAT: the float network after the same training with nothing quantized."""
FLOAT_METHODS = ("fp32", FINETUNED)
METHODS = (*FLOAT_METHODS, "ptq", "qat", "ptq+qat")
ENGINES = (*TORCH, *PACKAGES)
ACTIVATION_RANGES = ("minmax", "moving_average", "percentile", "histogram", "mse")
WEIGHT_RANGES = ("minmax", "mse")
EQUALIZE_OBJECTIVES = ("noise", "activations", "weights")
BIAS_CORRECTIONS = ("fast", "sequential")
SCHEDULES = ("cosine", "plateau")


WeightBits = Mapping[str, int]
"""The width of each convolution's integer weights by its name; 8 for those that it does not name."""
LEAST_BITS, MOST_BITS = 2, 8
ALL_8BIT: WeightBits = {}


@dataclass(frozen=True)
class Keep8BitSpec:
    """Which layers keep 8-bit weights where the others have fewer (``weight_bits``).

    ``first_last``: the first and the last convolution. ``worst``: as many more, those whose weights alone make the most
    noise at the output, ranked on ``images`` of the calibration images.
    """

    first_last: bool = True
    worst: int = 0
    images: int = 8

    def __post_init__(self) -> None:
        require_range("keep_8bit.worst", self.worst, 0)
        require_range("keep_8bit.images", self.images, 1)


@dataclass(frozen=True)
class EqualizeSpec:
    """Cross-layer equalization (Nagel et al. 2019, arXiv:1906.04721) and what goes beyond it.

    ``objective``: ``noise`` finds the scales of least predicted output noise. The others meet at geometric means
    with the consumers' weights in ``sweeps``: of the producers' ``weights`` as in the paper, or of the
    ``activations`` seen on the calibration images. ``silu``: scales pass through SiLU too. ``images``: how many of
    the calibration images ``noise`` looks at. ``absorb``: high biases in front of ReLU are absorbed first, as in the
    paper. ``silu_loss_db``: SiLUs get no scales where that saves XNNPACK the most time, as long as ``noise`` predicts
    no more than so many dB of output noise for it.
    """

    objective: str = "noise"
    silu: bool = True
    images: int = 32
    sweeps: int = 4
    absorb: bool = False
    silu_loss_db: float = 0.0

    def __post_init__(self) -> None:
        require_one_of("equalize.objective", self.objective, EQUALIZE_OBJECTIVES)
        require_range("equalize.silu_loss_db", self.silu_loss_db, 0.0)
        require_range("equalize.images", self.images, 1)
        require_range("equalize.sweeps", self.sweeps, 1)


@dataclass(frozen=True)
class CalibrateSpec:
    """How quantizer ranges are set: number of images, and the range observer of activations and weights.

    Images whose activations reach more than ``outlier_ratio`` times as far as the median image's are left out.
    """

    images: int = 64
    outlier_ratio: float = 2.0
    batch_size: int = 8
    activation_range: str = "mse"
    weight_range: str = "minmax"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        require_range("calibrate.images", self.images, 1)
        require_range("calibrate.batch_size", self.batch_size, 1)
        require_range("calibrate.outlier_ratio", self.outlier_ratio, 1.0)
        require_one_of("calibrate.activation_range", self.activation_range, ACTIVATION_RANGES)
        require_one_of("calibrate.weight_range", self.weight_range, WEIGHT_RANGES)
        require_range("calibrate.percentile", self.percentile, 50.0, 100.0)


@dataclass(frozen=True)
class BiasCorrectionSpec:
    """Bias correction (Nagel et al. 2019, arXiv:1906.04721): remove the mean error that rounding leaves.

    ``fast`` corrects each layer alone from the float network's means; ``sequential`` one layer after the other, each
    with its predecessors quantized and corrected. ``images``: how many of the calibration images, all at once.
    """

    method: str = "sequential"
    images: int = 64

    def __post_init__(self) -> None:
        require_range("bias_correction.images", self.images, 1)
        require_one_of("bias_correction.method", self.method, BIAS_CORRECTIONS)


@dataclass(frozen=True)
class MixedPrecisionSpec:
    """Sites that stay in float (Pandey et al. 2023, arXiv:2302.05397): those that alone make the most noise.

    The ``float_sites`` worst ones; where a target is set, as few of the worst as reach it instead: ``target_sqnr_db``
    of the output, and ``max_metric_loss`` of the task's headline. Targets are measured on ``images`` training images
    that calibration did not look at, where there are so many; sites are ranked on at most 8 that it did. With
    ``activation_bits`` (9 to 16) only activations are chosen, and get so many bits in place of float; no engine here
    has such kernels, so that these sites are simulated.
    """

    float_sites: int = 3
    target_sqnr_db: float | None = None
    max_metric_loss: float | None = None
    images: int = 32
    activation_bits: int | None = None

    def __post_init__(self) -> None:
        require_range("mixed_precision.float_sites", self.float_sites, 0)
        require_range("mixed_precision.images", self.images, 1)
        if self.max_metric_loss is not None:
            require_range("mixed_precision.max_metric_loss", self.max_metric_loss, 0.0, 1.0)
        if self.activation_bits is not None:
            require_range("mixed_precision.activation_bits", self.activation_bits, 9, 16)


@dataclass(frozen=True)
class AnalyzeSpec:
    """Per-layer analysis: the error of each quantizer alone and up to each one, on ``images`` calibration images."""

    images: int = 8

    def __post_init__(self) -> None:
        require_range("analyze.images", self.images, 1)


@dataclass(frozen=True)
class RoundingSpec:
    """Rounding of weights by OPTQ (arXiv:2210.17323) towards the float network's outputs (GPTAQ, arXiv:2504.02692).

    ``images``: how many of the calibration images it uses, all held in memory. ``places``: how many outputs of a layer
    it samples, over all images. ``damping``: the fraction of the inputs' variances that is added to them, so that
    errors which these inputs cancel stay small for others.
    """

    images: int = 64
    places: int = 16384
    damping: float = 1.0

    def __post_init__(self) -> None:
        require_range("rounding.images", self.images, 1)
        require_range("rounding.places", self.places, 1)
        require_range("rounding.damping", self.damping, 1e-6)


@dataclass(frozen=True)
class QatSpec:
    """Quantization-aware training (Jacob et al. 2018, arXiv:1712.05877; schedule of arXiv:1806.08342).

    ``images_per_epoch`` 0 means all. ``travel``: how many steps of its integer grid a weight can move over the whole
    training, however many steps that has; the learning rate follows from it. ``schedule`` lowers the rate along a
    cosine, or at plateaus of the task's monitor on validation images. ``observe_batches``: what a start first observes
    of its training data. ``freeze_ranges_after`` and ``freeze_bn_after`` are fractions of the steps.
    ``learned_scales``: ranges are parameters instead of moving averages or frozen. ``distillation`` is the weight of
    the float network's outputs in the target, 0 to 1.
    """

    epochs: int = 10
    batch_size: int = 8
    images_per_epoch: int = 0
    travel: float = 0.3
    weight_decay: float = 0.0
    schedule: str = "cosine"
    observe_batches: int = 8
    freeze_ranges_after: float = 0.34
    freeze_bn_after: float = 0.5
    learned_scales: bool = False
    distillation: float = 0.5

    def __post_init__(self) -> None:
        require_range("qat.epochs", self.epochs, 1)
        require_range("qat.batch_size", self.batch_size, 1)
        require_range("qat.images_per_epoch", self.images_per_epoch, 0)
        require_range("qat.travel", self.travel, 0.0)
        require_range("qat.weight_decay", self.weight_decay, 0.0)
        require_one_of("qat.schedule", self.schedule, SCHEDULES)
        require_range("qat.observe_batches", self.observe_batches, 1)
        require_range("qat.freeze_ranges_after", self.freeze_ranges_after, 0.0, 1.0)
        require_range("qat.freeze_bn_after", self.freeze_bn_after, 0.0, 1.0)
        require_range("qat.distillation", self.distillation, 0.0, 1.0)
