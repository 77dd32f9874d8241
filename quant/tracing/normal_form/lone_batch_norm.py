"""BatchNorm that follows no convolution, as that of a depthwise 1x1 convolution with weights of one.

There it folds as any other, and a scale and a shift a channel run in int8 kernels: in DenseNet in front of every
convolution, in RepVGG beside them.
"""

from torch import fx, nn

from quant.graph import module_of, only_user


def give_convolutions_(graph_module: fx.GraphModule) -> None:
    """Put such a convolution in front of every ``nn.BatchNorm2d`` that has none to itself."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        norm = module_of(graph_module, node)
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_var is None:
            continue
        source = node.args[0]
        assert isinstance(source, fx.Node)
        if isinstance(module_of(graph_module, source), nn.Conv2d) and only_user(
            graph_module, source, (nn.BatchNorm2d,)
        ):
            continue
        name = f"{node.target}_convolution"
        graph_module.add_submodule(name, _identity(norm))
        with graph.inserting_before(node):
            call = graph.call_module(name, (source,))
        call.meta = dict(source.meta)
        node.replace_input_with(source, call)


def _identity(norm: nn.BatchNorm2d) -> nn.Conv2d:
    """A depthwise convolution that gives back its input."""
    assert norm.running_var is not None
    channels = norm.num_features
    conv = nn.Conv2d(channels, channels, 1, groups=channels, bias=False, device=norm.running_var.device)
    nn.init.ones_(conv.weight)
    conv.training = norm.training
    return conv
