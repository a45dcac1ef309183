"""Transformer blocks in the usual PyTorch way: one operation a line, attention by sdpa."""

import torch
import torch.nn.functional as F
from torch import nn


class RMSNorm(nn.Module):
    """Computed in f32 and cast back, as LLaMA implementations do."""

    def __init__(self, d, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class SwiGLU(nn.Module):
    def __init__(self, d, ff):
        super().__init__()
        self.gate = nn.Linear(d, ff, bias=False)
        self.up = nn.Linear(d, ff, bias=False)
        self.down = nn.Linear(ff, d, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Cache:
    """Keys and values per layer, grown by concatenation."""

    def __init__(self):
        self.layers = {}

    def __len__(self):
        return self.layers[0][0].shape[2] if self.layers else 0

    def append(self, layer, k, v):
        if layer in self.layers:
            old_k, old_v = self.layers[layer]
            k, v = torch.cat([old_k, k], dim=2), torch.cat([old_v, v], dim=2)
        self.layers[layer] = (k, v)
        return k, v


def rotate_half(x):
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


class Attention(nn.Module):
    def __init__(self, d, heads, layer):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.heads, self.layer = heads, layer

    def forward(self, x, cos, sin, cache):
        b, t, d = x.shape
        q, k, v = (f(x).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        q = q * cos + rotate_half(q) * sin
        k = k * cos + rotate_half(k) * sin
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=t > 1)
        return self.o(y.transpose(1, 2).reshape(b, t, d))


class Layer(nn.Module):
    def __init__(self, d, ff, heads, layer):
        super().__init__()
        self.input_norm, self.post_norm = RMSNorm(d), RMSNorm(d)
        self.attention, self.mlp = Attention(d, heads, layer), SwiGLU(d, ff)

    def forward(self, x, cos, sin, cache):
        x = x + self.attention(self.input_norm(x), cos, sin, cache)
        return x + self.mlp(self.post_norm(x))


class Transformer(nn.Module):
    def __init__(self, layers, d, ff, heads):
        super().__init__()
        self.layers = nn.ModuleList(Layer(d, ff, heads, i) for i in range(layers))
        self.norm = RMSNorm(d)
        self.head_dim = d // heads

    def forward(self, x, cache=None):
        start = len(cache) if cache is not None else 0
        positions = torch.arange(start, start + x.shape[1], dtype=torch.float32)
        frequencies = 10000.0 ** (-torch.arange(0, self.head_dim, 2).float() / self.head_dim)
        angles = torch.outer(positions, frequencies)
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin, cache)
        return self.norm(x)
