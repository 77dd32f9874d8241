"""``nn.MultiheadAttention`` in plain operators, so that its linear layers are layers like all others."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.graph import UnsupportedNetworkError


class Attention(nn.Module):
    """Attention (Vaswani et al. 2017, arXiv:1706.03762) with the weights of ``source``, without dropout."""

    in_proj_bias = None
    """Keeps nn.TransformerEncoderLayer from a path of its own through one fused operator."""
    _qkv_same_embed_dim = False

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        if source.in_proj_weight is None or source.bias_k is not None or source.add_zero_attn:
            raise UnsupportedNetworkError("attention with keys of another size or of its own")
        self.num_heads, self.embed_dim, self.batch_first = source.num_heads, source.embed_dim, source.batch_first
        self.in_proj = nn.Linear(source.embed_dim, 3 * source.embed_dim, bias=source.in_proj_bias is not None)
        self.in_proj.weight, self.in_proj.bias = source.in_proj_weight, source.in_proj_bias
        self.out_proj = nn.Linear(source.embed_dim, source.embed_dim, bias=source.out_proj.bias is not None)
        self.out_proj.weight, self.out_proj.bias = source.out_proj.weight, source.out_proj.bias
        self.train(source.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Queries (N, T, C), keys and values (N, S, C) to (N, T, C), or with the batch second; no weights are given."""
        parts = self._projected(query, key, value)
        if not self.batch_first:
            parts = [part.transpose(0, 1) for part in parts]
        count, tokens, channels = parts[0].shape
        heads = [part.reshape(count, -1, self.num_heads, channels // self.num_heads).transpose(1, 2) for part in parts]
        mask = None
        if attn_mask is not None:
            mask = _added(attn_mask, query)
            mask = mask if mask.dim() == 2 else mask.reshape(count, self.num_heads, tokens, -1)
        if key_padding_mask is not None:
            padding = _added(key_padding_mask, query).reshape(count, 1, 1, -1)
            mask = padding if mask is None else mask + padding
        mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], mask)
        mixed = self.out_proj(mixed.transpose(1, 2).reshape(count, tokens, channels))
        return mixed if self.batch_first else mixed.transpose(0, 1), None

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        if query is key is value:
            return list(self.in_proj(query).chunk(3, -1))
        weights = self.in_proj.weight.chunk(3)
        biases = [None] * 3 if self.in_proj.bias is None else self.in_proj.bias.chunk(3)
        return [F.linear(x, weights[i], biases[i]) for i, x in enumerate((query, key, value))]


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """Where a mask is true nothing is read: as numbers that are added."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


def unfold_attention_(network: nn.Module) -> nn.Module:
    """Put an ``Attention`` in place of every ``nn.MultiheadAttention``.

    Raises UnsupportedNetworkError for keys of another size than the queries: see ``trace_exported``.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MultiheadAttention):
                setattr(module, name, Attention(child))
    return network
