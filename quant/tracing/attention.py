"""``nn.MultiheadAttention`` in plain operators, so that its linear layers are layers like all others."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from quant.graph import UnsupportedNetworkError


class Attention(nn.Module):
    """Self-attention (Vaswani et al. 2017, arXiv:1706.03762) with the weights of ``source``, without dropout."""

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        if not source.batch_first or source.in_proj_weight is None or source.bias_k is not None:
            raise UnsupportedNetworkError("attention with another order than batch_first, or other sizes of keys.")
        self.heads = source.num_heads
        self.in_proj = nn.Linear(source.embed_dim, 3 * source.embed_dim, bias=source.in_proj_bias is not None)
        self.in_proj.weight, self.in_proj.bias = source.in_proj_weight, source.in_proj_bias
        self.out_proj = nn.Linear(source.embed_dim, source.embed_dim, bias=source.out_proj.bias is not None)
        self.out_proj.weight, self.out_proj.bias = source.out_proj.weight, source.out_proj.bias
        self.train(source.training)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, None]:
        """Tokens (N, T, C), three times the same, to the same shape; no weights are given back."""
        masks = [name for name in ("key_padding_mask", "attn_mask") if options.get(name) is not None]
        if masks or query is not key or key is not value:
            raise UnsupportedNetworkError(f"attention with {masks or 'other keys than queries'}.")
        count, tokens, channels = query.shape
        parts = self.in_proj(query).reshape(count, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(count, tokens, channels)
        return self.out_proj(mixed), None


def unfold_attention_(network: nn.Module) -> nn.Module:
    """Put an ``Attention`` in place of every ``nn.MultiheadAttention``."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MultiheadAttention):
                setattr(module, name, Attention(child))
    return network
