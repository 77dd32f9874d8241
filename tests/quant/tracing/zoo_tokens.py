"""Small networks of tokens and matrix products, each with one thing that is hard to take apart: 3x16x16 images."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Transformer(nn.Module):
    """Attention by matrix products, with a class token and a position embedding that is added."""

    def __init__(self, channels: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.patches, self.heads = nn.Conv2d(3, channels, 4, stride=4), heads
        self.token, self.position = (
            nn.Parameter(torch.randn(1, 1, channels)),
            nn.Parameter(torch.randn(1, 17, channels)),
        )
        self.norm, self.qkv = nn.LayerNorm(channels), nn.Linear(channels, 3 * channels)
        self.proj, self.last = nn.Linear(channels, channels), nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        count, tokens, channels = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(count, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = ((q @ k.transpose(-2, -1)) / math.sqrt(channels // self.heads)).softmax(dim=-1)
        return self.last((x + self.proj((weights @ v).transpose(1, 2).reshape(count, tokens, channels)))[:, 0])


class ModuleAttention(nn.Module):
    """nn.MultiheadAttention inside nn.TransformerEncoderLayer's kin, batch first."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.attention = nn.Conv2d(3, 8, 4, stride=4), nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        return self.norm(x + self.attention(x, x, x, need_weights=False)[0])


class ChannelsLast(nn.Module):
    """ConvNeXt's block: LayerNorm over the last dimension, linear layers, and a scale for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.gamma = nn.Parameter(torch.full((8,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.down(F.gelu(self.up(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))))
        x = x + (self.gamma * y).permute(0, 3, 1, 2)
        return F.layer_norm(x, x.shape[1:])


class LinearBatchNorm(nn.Module):
    """Linear layers with BatchNorm1d, and one that is a product with a transposed parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.hidden = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Linear(8, 12, bias=False)
        self.bn, self.act = nn.BatchNorm1d(12), nn.ReLU()
        self.weight = nn.Parameter(torch.randn(5, 12) / 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.hidden(self.stem(x).relu().mean(dim=(2, 3)))))
        return x @ self.weight.t()


class WindowAttention(nn.Module):
    """Windows rolled, cut out by sizes and put back, with a relative position bias that is looked up."""

    def __init__(self, window: int = 2) -> None:
        super().__init__()
        self.patches, self.window = nn.Conv2d(3, 8, 4, stride=4), window
        self.table = nn.Parameter(torch.randn(9, 1))
        self.register_buffer("index", torch.randint(9, (4, 4)))
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        count, height, width, channels = x.shape
        size, rows, columns = self.window, height // self.window, width // self.window
        assert height % size == width % size == 0, (height, width)
        y = torch.roll(x, (-1, -1), (1, 2)).view(count, rows, size, columns, size, channels)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, channels)
        q, k, v = self.qkv(y).chunk(3, -1)
        bias = self.table[self.index.view(-1)].view(4, 4, -1).permute(2, 0, 1)
        y = self.proj((q @ k.mT + bias).softmax(-1) @ v)
        y = y.view(-1, rows, columns, size, size, channels).permute(0, 1, 3, 2, 4, 5).reshape(count, height, width, -1)
        return x + torch.roll(y, (1, 1), (1, 2))


class RowsInOrder(nn.Module):
    """An LSTM over the columns of a map: it stays float."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.rows = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.LSTM(8, 6, batch_first=True)
        self.last = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Any:
        tokens, _ = self.rows(F.relu(self.stem(x)).mean(2).transpose(1, 2))
        return self.last(tokens)


class TransformerLayers(nn.Module):
    """PyTorch's own layers: an encoder with the batch second, and a decoder whose queries are parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 12)
        self.decoder = nn.TransformerDecoderLayer(8, 2, 12, batch_first=True, norm_first=True, activation="gelu")
        self.queries = nn.Embedding(3, 8)
        self.register_buffer("mask", torch.triu(torch.ones(16, 16, dtype=torch.bool), 1))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.encoder(self.patches(x).flatten(2).permute(2, 0, 1), src_mask=self.mask).transpose(0, 1)
        queries = self.queries(torch.arange(3, device=x.device))
        return self.decoder(queries.expand(len(x), -1, -1), tokens)


class KernelsOfThePicture(nn.Module):
    """Convolutions whose kernels the picture gives, one for each image of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.kernels, self.last = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4, 36), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        count, channels, height, width = x.shape
        kernels = self.kernels(x.mean((2, 3))).view(count * channels, 1, 3, 3)
        x = x.reshape(1, count * channels, height, width)
        return self.last(
            F.relu(F.conv2d(x, kernels, padding=1, groups=count * channels).view(count, -1, height, width))
        )


class PatchAttention(nn.Module):
    """Attention between the same pixels of all 2x2 patches, as in MobileViT: the pixel is a part of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.qkv, self.proj = nn.Conv2d(3, 8, 1), nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        count, channels, height, width = x.shape
        x = x.reshape(count * channels * height // 2, 2, width // 2, 2).transpose(1, 2)
        x = x.reshape(count, channels, height * width // 4, 4).transpose(1, 3).reshape(count * 4, -1, channels)
        q, k, v = self.qkv(x).reshape(count * 4, -1, 3, 2, channels // 2).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(count * 4, -1, channels)
        return self.proj(x).reshape(count, -1)
