"""Whether a network can go through the whole way to int8, tried before any training is spent on it."""

import warnings

import torch
from torch import nn

from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.engines.catalog import missing
from quant.engines.decomposed import decompose
from quant.graph import UnsupportedNetworkError
from quant.recipe import CalibrateSpec
from quant.tracing.refusal import run
from quant.tracing.trace import fuse_bn


@torch.no_grad()
def require_quantizable(network: nn.Module, shape: tuple[int, int, int]) -> None:
    """Fuse, calibrate and convert a copy of ``network`` on noise of C x H x W, and run it.

    It becomes what QNNPACK runs, or where that is missing what exporters write.
    Raises UnsupportedNetworkError with the first thing that failed; operator and line of code, if that was an operator.
    """
    noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    spec = CalibrateSpec(activation_range="minmax")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's, that its int8 tensors are deprecated
            for form in (network.eval(), fuse_bn(network.eval(), noise[:1])):
                calibrated = calibrate(form, "per_tensor", spec, noise)
                run(decompose(calibrated, False) if missing("qnnpack") else qnnpack.convert(calibrated), noise[:1])
    except Exception as error:  # what a forward does with a traced or quantized value can fail in any way
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnsupportedNetworkError(reason) from error
