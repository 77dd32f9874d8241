"""The closed vocabulary of a quantization recipe, as frozen dataclasses."""

from dataclasses import dataclass

from model.errors import InputError

GRANULARITIES = ("per_channel", "per_tensor")
METHODS = ("fp32", "ptq", "qat", "ptq+qat")
ENGINES = ("qnnpack",)
ACTIVATION_RANGES = ("minmax", "moving_average", "percentile", "mse")
WEIGHT_RANGES = ("minmax", "mse")
EQUALIZE_RANGES = ("weights", "activations")


def require_one_of(where: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise InputError unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise InputError(where, f"{value!r} is unknown", f"one of {', '.join(allowed)}")


def require_range(where: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise InputError unless ``low <= value <= high``."""
    if not low <= value <= high:
        limit = f"between {low} and {high}" if high != float("inf") else f"at least {low}"
        raise InputError(where, f"{value!r} is out of range", limit)


@dataclass(frozen=True)
class EqualizeSpec:
    """Cross-layer equalization (Nagel et al. 2019, arXiv:1906.04721).

    ``ranges``: what is balanced against the consumers' weights, the producers' ``weights`` as in the paper or
    the ``activations`` seen on the calibration images.
    """

    ranges: str = "activations"
    iterations: int = 4

    def __post_init__(self) -> None:
        require_one_of("equalize.ranges", self.ranges, EQUALIZE_RANGES)
        require_range("equalize.iterations", self.iterations, 1)


@dataclass(frozen=True)
class CalibrateSpec:
    """How quantizer ranges are found: number of images, and the range estimator of activations and weights."""

    images: int = 64
    batch_size: int = 8
    activation_range: str = "mse"
    weight_range: str = "minmax"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        require_range("calibrate.images", self.images, 1)
        require_range("calibrate.batch_size", self.batch_size, 1)
        require_one_of("calibrate.activation_range", self.activation_range, ACTIVATION_RANGES)
        require_one_of("calibrate.weight_range", self.weight_range, WEIGHT_RANGES)
        require_range("calibrate.percentile", self.percentile, 50.0, 100.0)


@dataclass(frozen=True)
class QatSpec:
    """Quantization-aware training (Jacob et al. 2018, arXiv:1712.05877; schedule of arXiv:1806.08342).

    ``images_per_epoch`` 0 means all. ``freeze_ranges_after`` and ``freeze_bn_after`` are fractions of the steps.
    ``distillation`` is the weight of the float network's prediction in the target, 0 to 1.
    """

    epochs: int = 10
    batch_size: int = 8
    images_per_epoch: int = 0
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    freeze_ranges_after: float = 0.34
    freeze_bn_after: float = 0.1
    distillation: float = 0.5

    def __post_init__(self) -> None:
        require_range("qat.epochs", self.epochs, 1)
        require_range("qat.batch_size", self.batch_size, 1)
        require_range("qat.images_per_epoch", self.images_per_epoch, 0)
        require_range("qat.learning_rate", self.learning_rate, 0.0)
        require_range("qat.weight_decay", self.weight_decay, 0.0)
        require_range("qat.freeze_ranges_after", self.freeze_ranges_after, 0.0, 1.0)
        require_range("qat.freeze_bn_after", self.freeze_bn_after, 0.0, 1.0)
        require_range("qat.distillation", self.distillation, 0.0, 1.0)
