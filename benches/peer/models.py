"""Autoencoder, CALM and token model at the sizes of the standard jobs (f32, random weights)."""

import torch
import torch.nn.functional as F
from torch import nn

from layers import RMSNorm, SwiGLU, Transformer

VOCAB, K = 8192, 4
AE_WIDTH, AE_INNER, LATENT = 512, 1280, 128
LAYERS, WIDTH, INNER, HEADS = 6, 256, 688, 8
HEAD_BLOCKS, NOISE, SAMPLES, POSTERIOR_SAMPLES = 2, 64, 8, 100


class Block(nn.Module):
    def __init__(self, d, ff):
        super().__init__()
        self.norm, self.mlp = RMSNorm(d), SwiGLU(d, ff)

    def forward(self, x):
        return x + self.mlp(self.norm(x))


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        d, ff = AE_WIDTH, AE_INNER
        self.embedding = nn.Embedding(VOCAB, d)
        self.enc_token, self.enc_chunk = Block(d, ff), Block(d, ff)
        self.squeeze, self.enc_norm = nn.Linear(K * d, d), RMSNorm(d)
        self.to_posterior = nn.Linear(d, 2 * LATENT)
        self.from_latent, self.expand = nn.Linear(LATENT, d), nn.Linear(d, K * d)
        self.dec_chunk, self.dec_token, self.dec_norm = Block(d, ff), Block(d, ff), RMSNorm(d)

    def encode(self, tokens):
        """[chunks, K] to mean and log_std [chunks, l]."""
        x = self.enc_token(self.embedding(tokens))
        x = self.enc_chunk(self.squeeze(x.flatten(1)))
        return self.to_posterior(self.enc_norm(x)).chunk(2, dim=-1)

    def decode(self, z):
        """[chunks, l] to logits [chunks, K, V]."""
        x = self.expand(self.dec_chunk(self.from_latent(z)))
        x = self.dec_token(x.view(-1, K, AE_WIDTH))
        return F.linear(self.dec_norm(x), self.embedding.weight)

    def loss(self, tokens):
        masked = torch.rand(tokens.shape) < 0.15
        mean, log_std = self.encode(tokens.masked_fill(masked, 0))
        z = F.dropout(mean + torch.exp(log_std) * torch.randn_like(mean), 0.15)
        logits = self.decode(z)
        cross_entropy = F.cross_entropy(logits.reshape(-1, VOCAB).float(), tokens.reshape(-1))
        kl = 0.5 * (mean.pow(2) + torch.exp(2 * log_std) - 1 - 2 * log_std)
        return K * cross_entropy + 1e-3 * kl.clamp(min=0.5).sum(-1).mean()


class HeadBlock(nn.Module):
    """The condition is concatenated for every sample."""

    def __init__(self, d):
        super().__init__()
        self.norm = nn.LayerNorm(d, eps=1e-6)
        self.first, self.second = nn.Linear(2 * d, d), nn.Linear(d, d)
        self.third, self.down = nn.Linear(d, 2 * d), nn.Linear(d, d)

    def forward(self, x, c):
        h = F.silu(self.first(torch.cat((self.norm(x), c), dim=-1)))
        gate, up = self.third(F.silu(self.second(h))).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class EnergyHead(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.noise_in, self.hidden_in = nn.Linear(NOISE, d), nn.Linear(d, d)
        self.noise_norm, self.hidden_norm = nn.LayerNorm(d, eps=1e-6), nn.LayerNorm(d, eps=1e-6)
        self.blocks = nn.ModuleList(HeadBlock(d) for _ in range(HEAD_BLOCKS))
        self.final_norm = nn.LayerNorm(d, eps=1e-6)
        self.final_hidden, self.final_out = nn.Linear(d, d), nn.Linear(d, LATENT)

    def sample(self, hidden):
        """One latent vector for each row of hidden."""
        noise = torch.rand((*hidden.shape[:-1], NOISE), dtype=hidden.dtype) - 0.5
        x = self.noise_norm(self.noise_in(noise))
        c = self.hidden_norm(self.hidden_in(hidden))
        for block in self.blocks:
            x = block(x, c)
        return self.final_out(F.silu(self.final_hidden(self.final_norm(x))))


def distance(x, y, alpha=1.0):
    return torch.pow(torch.linalg.norm(x - y, ord=2, dim=-1), alpha)


def energy_score(x, mean, log_std):
    """The direct form: all differences are made. x: [N, positions, l]."""
    n = x.shape[0]
    between = distance(x.unsqueeze(1), x.unsqueeze(0)).sum((0, 1)) / (n * (n - 1))
    eps = torch.randn((POSTERIOR_SAMPLES, *mean.shape), dtype=mean.dtype)
    y = mean + eps * torch.exp(log_std)
    across = distance(x.unsqueeze(1), y.unsqueeze(0)).mean((0, 1))
    return between - 2 * across


class Calm(nn.Module):
    def __init__(self, autoencoder):
        super().__init__()
        d = WIDTH
        self.embedding = nn.Embedding(VOCAB, d)
        self.compress = nn.Sequential(
            nn.Linear(K * d, 2 * d), nn.SiLU(), nn.Linear(2 * d, d), nn.LayerNorm(d, eps=1e-6)
        )
        self.transformer = Transformer(LAYERS, d, INNER, HEADS)
        self.head = EnergyHead(d)
        # The frozen autoencoder is no submodule: it is not trained.
        self.frozen = [autoencoder.eval().requires_grad_(False)]

    @property
    def autoencoder(self):
        return self.frozen[0]

    def hidden(self, tokens, cache=None):
        """[batch, steps * K] to [batch, steps, d]."""
        b, t = tokens.shape
        x = self.embedding(tokens).reshape(b, t // K, K * WIDTH)
        return self.transformer(self.compress(x), cache)

    def loss(self, tokens):
        b, t = tokens.shape
        hidden = self.hidden(tokens[:, :-K])
        with torch.no_grad():
            mean, log_std = self.autoencoder.encode(tokens[:, K:].reshape(-1, K))
        hidden = hidden.reshape(-1, WIDTH).unsqueeze(0).repeat(SAMPLES, 1, 1)
        return -energy_score(self.head.sample(hidden), mean, log_std).mean()


class TokenModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.transformer = Transformer(LAYERS, WIDTH, INNER, HEADS)
        self.output = nn.Linear(WIDTH, VOCAB, bias=False)

    def logits(self, tokens, cache=None, last_only=False):
        hidden = self.transformer(self.embedding(tokens), cache)
        return self.output(hidden[:, -1:] if last_only else hidden)

    def loss(self, tokens):
        logits = self.logits(tokens)[:, :-1]
        return F.cross_entropy(logits.reshape(-1, VOCAB).float(), tokens[:, 1:].reshape(-1))


def lively(module):
    """normal(0, 0.02) everywhere, and a head's last layer of normal(0, 0.5): at the usual zero
    start all samples coincide and decoding is a sham."""
    for name, p in module.named_parameters():
        if p.dim() == 2:
            nn.init.normal_(p, std=0.5 if name.endswith("final_out.weight") else 0.02)
    return module
