"""From a float network to one with fake quantization wherever the int8 network rounds."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from model.errors import require_one_of
from quant.fake_quantize import FakeQuantize
from quant.graph import (
    ADDITIONS,
    SPLITS,
    ConvBlock,
    bn_factor,
    constants,
    conv_blocks,
    finish,
    fold,
    has_int8_kernel,
    joined,
    module_of,
    passes_on,
    read_in_int8,
    set_module,
)
from quant.qat.batch_renorm import batch_renorm
from quant.recipe import ALL_8BIT, GRANULARITIES, WeightBits
from quant.scaled_silu import ScaledSiLU
from quant.tracing.trace import trace

_ELEMENTWISE = (ScaledSiLU, nn.SiLU, nn.Hardswish, nn.GELU, nn.Sigmoid, nn.Hardsigmoid)
_SIGMOID_QPARAMS = (1.0 / 256.0, 0)
"""Output scale and zero point that the int8 sigmoid kernel has."""


class QuantConv(nn.Module):
    """A convolution whose folded weight is quantized, with BatchNorm live or absent and its clamp activation.

    The weight is folded with the running statistics and then quantized (Krishnamoorthi 2018, arXiv:1806.08342, section
    3.2.2), in all modes: it computes what the int8 convolution with folded BatchNorm computes. While its BatchNorm
    learns, the gradient is that of the batch statistics, which move the running ones (``batch_renorm``).
    """

    def __init__(
        self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None, limit: float | None, granularity: str, bits: int = 8
    ) -> None:
        super().__init__()
        if bn is None and conv.bias is None:
            conv.bias = nn.Parameter(conv.weight.new_zeros(conv.out_channels))  # a place for corrections
        self.conv, self.bn = conv, bn
        self.limit = limit
        """None: no activation; inf: ReLU; 6: ReLU6."""
        self.bn_frozen = False
        channels = conv.out_channels if granularity == "per_channel" else None
        self.weight_quantizer = FakeQuantize(weight=True, bits=bits, channels=channels)

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Float weight and bias with BatchNorm folded in."""
        return fold(self.conv.weight, self.conv.bias, self.bn)

    def rounded(self) -> tuple[Tensor, Tensor | None]:
        """The same with the weight as its quantizer gives it back."""
        weight, bias = self.folded()
        return self.weight_quantizer(weight), bias

    @torch.no_grad()
    def add_to_bias_(self, shift: Tensor) -> None:
        """Shift the outputs in front of the activation by one number a channel (out,)."""
        bias = self.conv.bias if self.bn is None else self.bn.bias
        assert bias is not None
        bias += shift

    def freeze_bn_(self) -> None:
        """From now on use the running statistics, also in train mode."""
        self.bn_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> "QuantConv":
        """Set the mode; a frozen BatchNorm stays in eval mode."""
        super().train(mode)
        if self.bn is not None and self.bn_frozen:
            self.bn.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Nx{in}xHxW to Nx{out}xH'xW'."""
        conv = self.conv
        if self.bn is not None and self.bn.training:
            factor = bn_factor(self.bn).detach()
            y = self.linear(x, self.weight_quantizer(conv.weight * factor.reshape(-1, 1, 1, 1)), None)
            y = batch_renorm(y, self.bn, factor, conv.bias)
        else:
            y = self.linear(x, *self.rounded())
        return self.clamp(y)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution alone with a folded weight and bias."""
        conv = self.conv
        return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    def clamp(self, y: Tensor) -> Tensor:
        """The activation alone."""
        if self.limit is None:
            return y
        y = F.relu(y)
        # The upper clamp of ReLU6 is the end of the output quantizer's range; without it, clamp here.
        return y.clamp(max=self.limit) if self.limit != float("inf") else y


def prepare(network: nn.Module, granularity: str, weight_bits: WeightBits = ALL_8BIT) -> fx.GraphModule:
    """A traced copy with a quantizer, all off, on every value that an operator gives or reads in int8.

    Resizing, pooling and moving values share the quantizer of their input, as the int8 kernels do; what goes from one
    operator without int8 kernels to another stays float. ``granularity`` and ``weight_bits`` are those of the weight
    quantizers and of nothing else.
    """
    require_one_of("granularity", granularity, GRANULARITIES)
    graph_module = trace(network)
    blocks = {block.conv: block for block in conv_blocks(graph_module)}
    names: dict[fx.Node, str] = {}
    graph_module.add_module("quantizers", nn.Module())
    constant = constants(graph_module)
    streams = _float_streams(graph_module, constant)
    read = read_in_int8(graph_module, constant, streams)
    for node in list(graph_module.graph.nodes):
        absorbed = any(node in (s.bn, s.activation) for s in blocks.values())
        if node.op == "output" or node in constant or absorbed:
            continue
        if node in blocks:
            _swap_conv(graph_module, blocks[node], granularity, weight_bits.get(str(node.target), 8))
            _insert(graph_module, node, names, FakeQuantize(limit=_limit(graph_module, node)))
        elif passes_on(graph_module, node):
            if node.args[0] in names:
                _share(graph_module, node, names)
        elif isinstance(module_of(graph_module, node), nn.Sigmoid) or node.target is torch.sigmoid:
            _insert(graph_module, node, names, FakeQuantize(fixed=_SIGMOID_QPARAMS))
        elif node in read or (node not in streams and has_int8_kernel(graph_module, node, constant)):
            _insert(graph_module, node, names, FakeQuantize())
    return finish(graph_module)


def _float_streams(graph_module: fx.GraphModule, constant: set[fx.Node]) -> set[fx.Node]:
    """Sums that nothing reads in int8, such as the residual stream between LayerNorms, and concatenations of sums.

    Int8 would save no conversion, as their readers compute in float, and the stream would be rounded at every sum, in
    steps of its largest channel.
    """
    streams, unread = set[fx.Node](), set[fx.Node]()

    def computes_in_float(user: fx.Node) -> bool:
        if passes_on(graph_module, user):
            return user in unread
        in_int8 = user.op == "output" or has_int8_kernel(graph_module, user, constant)
        return user in streams or not (in_int8 or isinstance(module_of(graph_module, user), _ELEMENTWISE))

    def of_convolution(value: fx.Node) -> bool:
        while passes_on(graph_module, value):
            value = value.all_input_nodes[0]
        return isinstance(module_of(graph_module, value), nn.Conv2d | nn.BatchNorm2d)

    for node in reversed(graph_module.graph.nodes):
        if node.users and all(map(computes_in_float, node.users)):
            unread.add(node)
            if node.target in ADDITIONS or (joined(node) and not any(map(of_convolution, joined(node)))):
                streams.add(node)
    return streams


def _swap_conv(graph_module: fx.GraphModule, block: ConvBlock, granularity: str, bits: int) -> None:
    conv, bn = module_of(graph_module, block.conv), module_of(graph_module, block.bn)
    activation = module_of(graph_module, block.activation)
    limit = None if activation is None else 6.0 if isinstance(activation, nn.ReLU6) else float("inf")
    assert isinstance(conv, nn.Conv2d)
    assert bn is None or isinstance(bn, nn.BatchNorm2d)
    set_module(graph_module, str(block.conv.target), QuantConv(conv, bn, limit, granularity, bits))
    for absorbed in (block.activation, block.bn):
        if absorbed is not None:
            absorbed.replace_all_uses_with(block.conv)
            graph_module.graph.erase_node(absorbed)
    if block.bn is not None:  # it lives in the QuantConv now; its old place would wake it in train() and save it twice
        graph_module.delete_submodule(str(block.bn.target))


def _limit(graph_module: fx.GraphModule, node: fx.Node) -> float | None:
    module = module_of(graph_module, node)
    limit = module.limit if isinstance(module, QuantConv) else None
    return None if limit == float("inf") else limit


def _share(graph_module: fx.GraphModule, node: fx.Node, names: dict[fx.Node, str]) -> None:
    """Round by the quantizer of the input; where there are several parts, each where it is taken out."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    if node.target in SPLITS:
        names[node] = names[source]
    else:
        _insert(graph_module, node, names, share=names[source])


def _insert(
    graph_module: fx.GraphModule,
    node: fx.Node,
    names: dict[fx.Node, str],
    quantizer: FakeQuantize | None = None,
    share: str | None = None,
) -> None:
    name = share or f"quantizers.{node.name}{'_' if hasattr(nn.Module, node.name) else ''}"
    if quantizer is not None:
        set_module(graph_module, name, quantizer)
    with graph_module.graph.inserting_after(node):
        call = graph_module.graph.call_module(name, (node,))
    node.replace_all_uses_with(call, delete_user_cb=lambda user: user is not call)
    names[node] = names[call] = name


def quantizers(network: nn.Module) -> dict[str, FakeQuantize]:
    """All quantizers by name, activations and weights."""
    return {name: module for name, module in network.named_modules() if isinstance(module, FakeQuantize)}


def wide(named: dict[str, FakeQuantize]) -> dict[str, int]:
    """The bits of the activation quantizers that have more than 8, by name."""
    return {name: quantizer.bits for name, quantizer in named.items() if not quantizer.weight and quantizer.bits > 8}


def quant_convs(network: nn.Module) -> dict[str, QuantConv]:
    """All quantized convolutions by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, QuantConv)}


@torch.no_grad()
def float_conv(conv: QuantConv) -> nn.Module:
    """The convolution as it ships in float: BatchNorm folded in, and the weight rounded if its quantizer is on."""
    weight, bias = conv.folded()
    plain = copy.deepcopy(conv.conv)
    plain.weight = nn.Parameter(conv.weight_quantizer(weight), requires_grad=False)
    plain.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
    if conv.limit is None:
        return plain
    return nn.Sequential(plain, nn.ReLU() if conv.limit == float("inf") else nn.Hardtanh(0.0, conv.limit))


def elementwise_consumers(prepared: fx.GraphModule) -> dict[str, nn.Module]:
    """Quantizers whose value has one consumer, an elementwise activation (SiLU and its kin): name -> activation."""
    consumers: dict[str, list[nn.Module | None]] = {}
    for node in prepared.graph.nodes:
        if isinstance(module_of(prepared, node), FakeQuantize):  # several nodes where the quantizer is shared
            consumers.setdefault(str(node.target), []).extend(module_of(prepared, user) for user in node.users)
    return {
        name: modules[0]
        for name, modules in consumers.items()
        if len(modules) == 1 and isinstance(modules[0], _ELEMENTWISE)
    }
