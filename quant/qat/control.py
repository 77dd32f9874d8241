"""The control of QAT: the float network in QAT's own training, with nothing quantized.

What QAT gains over it is quantization; what it gains over the float network that all started from may be no more than
further training.
"""

import dataclasses

import torch
from torch import fx, nn

from quant.calibrate import Images, calibrate
from quant.graph import conv_blocks, module_of
from quant.prepare import quant_convs, quantizers
from quant.recipe import CalibrateSpec


def prepare_control(network: fx.GraphModule, granularity: str, spec: CalibrateSpec, images: Images) -> fx.GraphModule:
    """A prepared copy of the float network whose quantizers are all off, but know their ranges.

    The ranges give the units of the optimizer, so that weights travel as far as QAT lets them.
    """
    prepared = calibrate(network, granularity, dataclasses.replace(spec, activation_range="minmax"), images)
    convs = {str(block.conv.target): module_of(network, block.conv) for block in conv_blocks(network)}
    for name, conv in quant_convs(prepared).items():
        source = convs[name]
        if isinstance(source, nn.Conv2d) and source.bias is None and conv.conv.bias is not None:
            conv.conv.bias.requires_grad_(False)  # a place for corrections that the float network lacks
    for quantizer in quantizers(prepared).values():
        quantizer.set_mode("off")
    return prepared


@torch.no_grad()
def take_weights_(network: fx.GraphModule, prepared: nn.Module) -> None:
    """Put what was trained into the float network, whose convolutions and BatchNorms stand apart."""
    trained = prepared.state_dict()
    own = network.state_dict()
    for block in conv_blocks(network):
        target = str(block.conv.target)
        places = {target: f"{target}.conv"} | ({str(block.bn.target): f"{target}.bn"} if block.bn else {})
        for place, source in places.items():
            for name in network.get_submodule(place).state_dict():
                own[f"{place}.{name}"] = trained[f"{source}.{name}"]
    kept = {name: trained[name] for name in own if name in trained}
    network.load_state_dict(own | kept)
