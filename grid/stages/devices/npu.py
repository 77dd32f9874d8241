"""The stage that has an NPU's compiler estimate what its hardware would take."""

from grid.stages.work import Outcome, StageError, Work
from quant.engines.exported import file_name
from quant.engines.litert.vela import estimate


def estimate_npu(work: Work) -> Outcome:
    """The estimate for the ``.tflite`` file of the network: nothing is measured."""
    accelerator = str(work.node.settings["npu"])
    try:
        found = estimate(work.inputs["network"] / file_name("litert"), accelerator)
    except RuntimeError as error:
        raise StageError(str(error)) from error
    figures = {"npu_ms_estimate": found.ms, "npu_share": found.share}
    return Outcome({**figures, "npu_sram_mb": found.sram_mb, "npu_flash_mb": found.flash_mb}, {"npu": accelerator})
