"""When a cell has a stage, by its settings and whether a checkpoint is given."""

from grid.space.settings import Flat
from quant.engines.catalog import NO_NPU
from quant.recipe import FINETUNED, FLOAT_METHODS, MOST_BITS


def loaded(settings: Flat, given: bool) -> bool:
    """A given checkpoint, or one that training starts from."""
    return given or settings["train.init"] == "checkpoint"


def trained(settings: Flat, given: bool) -> bool:
    """A float network that no checkpoint gives."""
    return not given or settings["train.init"] == "checkpoint"


def quantized(settings: Flat, given: bool) -> bool:
    """All but the float methods."""
    return settings["method"] not in FLOAT_METHODS


def narrow(settings: Flat, given: bool) -> bool:
    """Weights of fewer than 8 bits."""
    return quantized(settings, given) and int(settings["weight_bits"] or 8) < MOST_BITS


def calibrated(settings: Flat, given: bool) -> bool:
    """Methods with PTQ."""
    return settings["method"] in ("ptq", "ptq+qat")


def fine_tuned(settings: Flat, given: bool) -> bool:
    """Methods with QAT."""
    return settings["method"] in ("qat", "ptq+qat")


def is_control(settings: Flat, given: bool) -> bool:
    """The float network that is fine-tuned as QAT does."""
    return settings["method"] == FINETUNED


def has_npu(settings: Flat, given: bool) -> bool:
    """Int8 files of LiteRT, where an accelerator is named."""
    return quantized(settings, given) and settings["engine"] == "litert" and settings["npu"] != NO_NPU
