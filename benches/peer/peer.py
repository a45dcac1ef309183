"""Times one standard job in PyTorch, written the way the released code works.

    python peer.py JOB --dtype f32|bf16 --threads 2 --seconds 10

Prints one JSON object in the format of `cargo xtask bench steps --json`.
"""

import argparse
import contextlib
import json
import math
import resource
import time
from collections import Counter

import torch

IMPORT_RSS = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

from layers import Cache  # noqa: E402
from models import K, VOCAB, Autoencoder, Calm, TokenModel, lively  # noqa: E402

PROMPT, NEW = 64, 256
POOL = 200


def tokens(*shape):
    return torch.randint(0, VOCAB, shape)


def optimizer(model):
    """Matrices decay, the rest doesn't."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), eps=1e-8)


def training(model, batch):
    """A step: forward, backward, clipping, AdamW."""
    optim = optimizer(model)

    def step(autocast):
        with autocast():
            loss = model.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        optim.zero_grad(set_to_none=True)
        return loss.item()

    return step


def calm():
    return lively(Calm(lively(Autoencoder())))


def draw_chunk(model, hidden):
    """Temperature 1: one draw."""
    return model.autoencoder.decode(model.head.sample(hidden)).argmax(-1)


def draw_cold_chunk(model, hidden, power=2):
    """Temperature 1/2 by the plain batch rule over POOL draws."""
    drawn = draw_chunk(model, hidden.repeat(POOL, 1))
    counts = Counter(tuple(chunk) for chunk in drawn.tolist())
    for m in range(power, 0, -1):
        chosen = {chunk: math.comb(c, m) for chunk, c in counts.items() if c >= m}
        if chosen:
            weights = torch.tensor(list(chosen.values()), dtype=torch.float)
            return torch.tensor([list(chosen)[torch.multinomial(weights, 1).item()]])
    raise AssertionError("a pool that is not empty has a chunk")


def calm_generation(draw):
    model = calm().eval()

    @torch.no_grad()
    def generate(autocast):
        cache, given, made = Cache(), tokens(1, PROMPT), 0
        with autocast():
            while made < NEW:
                hidden = model.hidden(given, cache)[:, -1]
                given = draw(model, hidden)
                made += K

    return generate


def token_generation():
    model = lively(TokenModel()).eval()

    @torch.no_grad()
    def generate(autocast):
        cache, given = Cache(), tokens(1, PROMPT)
        with autocast():
            for _ in range(NEW):
                logits = model.logits(given, cache, last_only=True)[:, -1]
                given = torch.multinomial(logits.float().softmax(-1), 1)

    return generate


def evaluation():
    """Brier-1 to Brier-4 from two draws at every chunk."""
    model, text = calm().eval(), tokens(1, 1024)

    @torch.no_grad()
    def score(autocast):
        with autocast():
            hidden = model.hidden(text[:, :-K])[0]
            a, b = draw_chunk(model, hidden), draw_chunk(model, hidden)
        target = text[0, K:].view(-1, K)

        def same(x, y):
            return (x == y).cumprod(-1).float()

        return (same(a, target) + same(b, target) - same(a, b)).mean(0).tolist()

    return score


JOBS = {
    "ae-train-2048": (2048, lambda: training(lively(Autoencoder()), tokens(512, K))),
    "ae-train-8192": (8192, lambda: training(lively(Autoencoder()), tokens(2048, K))),
    "calm-train": (4096, lambda: training(calm(), tokens(4, 1024))),
    "ar-train-4x1024": (4096, lambda: training(lively(TokenModel()), tokens(4, 1024))),
    "ar-train-16x256": (4096, lambda: training(lively(TokenModel()), tokens(16, 256))),
    "calm-gen": (NEW, lambda: calm_generation(draw_chunk)),
    "calm-gen-cold": (NEW, lambda: calm_generation(draw_cold_chunk)),
    "ar-gen": (NEW, token_generation),
    "eval": (1024, evaluation),
}


def matmul_peak(dtype):
    """Best of several products of 1536 x 1536 matrices, in FLOP/s."""
    n = 1536
    a, b = torch.randn(n, n, dtype=dtype), torch.randn(n, n, dtype=dtype)
    best, begun = math.inf, time.perf_counter()
    for _ in range(12):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
        # bf16 on a processor without it takes seconds a product.
        if time.perf_counter() - begun > 5:
            break
    return 2 * n**3 / best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", choices=sorted(JOBS))
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    dtype = torch.float32 if args.dtype == "f32" else torch.bfloat16

    def autocast():
        if args.dtype == "f32":
            return contextlib.nullcontext()
        return torch.autocast("cpu", dtype=torch.bfloat16)

    count, make = JOBS[args.job]
    run = make()
    run(autocast)
    run(autocast)
    times, started = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - started < args.seconds:
        before = time.perf_counter()
        run(autocast)
        times.append(time.perf_counter() - before)
    median = sorted(times)[len(times) // 2]
    peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result = {
        "name": args.job,
        "tokens_per_s": count / median,
        "seconds": median,
        "threads": args.threads,
        "dtype": args.dtype,
        "peak_rss_bytes": peak_rss,
        "start_rss_bytes": IMPORT_RSS,
        "matmul_peak": matmul_peak(dtype),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
