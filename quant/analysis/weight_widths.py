"""How many bits the weights of each convolution get: few, but for the layers that suffer most.

The first layer sees the picture itself and the last one writes the output; both hold few weights, so that 8 bits there
cost next to nothing (kept so since DoReFa, arXiv:1606.06160). More layers keep 8 bits by the noise that their rounded
weights alone make at the output, as sites do in mixed precision (Pandey et al. 2023, arXiv:2302.05397).
"""

import torch
from torch import Tensor, nn

from model.errors import InputError
from model.progress import Progress, ignore_progress
from quant.analysis.site_errors import rank_sites
from quant.calibrate import Images, set_weight_ranges_
from quant.graph import conv_blocks
from quant.prepare import prepare, quant_convs
from quant.recipe import MOST_BITS, WeightBits
from quant.tracing.trace import trace


def choose_widths(network: nn.Module, bits: int, first_last: bool, example: Tensor | None = None) -> dict[str, int]:
    """The width of each convolution by its name, in the order of the run; with ``first_last`` the ends have 8 bits.

    ``example``: see ``trace``.
    """
    names = [str(block.conv.target) for block in conv_blocks(trace(network, example))]
    widths = dict.fromkeys(names, bits)
    ends = {*names[:1], *names[-1:]} if first_last else set()
    return widths | dict.fromkeys(ends, MOST_BITS)


@torch.no_grad()
def widen_worst(
    network: nn.Module,
    weight_bits: WeightBits,
    count: int,
    granularity: str,
    images: Images,
    progress: Progress = ignore_progress,
) -> dict[str, int]:
    """The same widths with 8 bits for the ``count`` narrower convolutions whose weights alone make the most noise.

    Args:
        network: float network in eval mode, equalized where it will be.
        images: normalized, Nx3xHxW, on which the noise at the output is measured; activations stay float.

    Raises InputError where fewer convolutions are narrower than 8 bits.
    """
    prepared = prepare(trace(network, images[0:1]), granularity, weight_bits).eval()
    set_weight_ranges_(prepared, "mse")
    quantizers = {name: conv.weight_quantizer for name, conv in quant_convs(prepared).items()}
    narrow = [quantizer for quantizer in quantizers.values() if quantizer.bits < MOST_BITS]
    if count > len(narrow):
        raise InputError("keep_8bit.worst", "is out of range", f"at most {len(narrow)} layers", value=repr(count))
    for quantizer in narrow:
        quantizer.set_mode("freeze")
    worst = rank_sites(prepared, images, progress)[:count]
    return {**weight_bits, **{name.removesuffix(".weight_quantizer"): MOST_BITS for name in worst}}
