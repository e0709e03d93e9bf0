"""Golden traces for the optimizers: six steps on random gradients, by PyTorch in float32 on the CPU.

optimizers/<name>.safetensors holds <weight>.0 (the start), <weight>.grad.<t> and <weight>.<t> (after step t) for
t = 1..6 and the weights tall, wide, square and vector, and rate [6], the learning rate of each step:
base * min(1, t / 3).

muon-svd  base 1e-2: M <- 0.95 M + G, W <- W - rate * U V^T for M = U S V^T (the decomposition in float64); the vector
          by AdamW at 3e-4, not warmed up, betas 0.9 and 0.95, eps 1e-8, weight decay 0.01.
adamw     base 1e-3: every weight by AdamW, the rest as above.

Usage:  python make_optimizer_golden.py                  write both
        python make_optimizer_golden.py --check FOLDER   recompute the traces in FOLDER from their starts and gradients
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

STEPS = 6
SHAPES = {"tall": (24, 10), "wide": (10, 24), "square": (12, 12), "vector": (16,)}
BASE = {"muon-svd": 1e-2, "adamw": 1e-3}
BOUND = 1e-4  # relative to the distance moved


def adamw(weight, lr):
    return torch.optim.AdamW([weight], lr=lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)


def trace(rule, start, gradients, rates):
    """The values of one weight after each step."""
    weight = torch.nn.Parameter(start.clone())
    by_svd = rule == "muon-svd" and weight.dim() == 2
    optimizer = None if by_svd else adamw(weight, 3e-4)
    momentum = torch.zeros_like(start)
    values = []
    for gradient, rate in zip(gradients, rates):
        if by_svd:
            momentum = 0.95 * momentum + gradient
            u, _, vt = torch.linalg.svd(momentum.double(), full_matrices=False)
            weight.data -= rate * (u @ vt).float()
        else:
            if rule == "adamw":
                optimizer.param_groups[0]["lr"] = rate
            weight.grad = gradient.clone()
            optimizer.step()
        values.append(weight.detach().clone())
    return values


def write(rule, path):
    generator = torch.Generator().manual_seed(20)
    rates = [BASE[rule] * min(1.0, t / 3) for t in range(1, STEPS + 1)]
    tensors = {"rate": torch.tensor(rates)}
    for name, shape in SHAPES.items():
        start = 0.1 * torch.randn(shape, generator=generator)
        gradients = [0.02 * torch.randn(shape, generator=generator) for _ in range(STEPS)]
        tensors[f"{name}.0"] = start
        for t, (gradient, value) in enumerate(zip(gradients, trace(rule, start, gradients, rates)), 1):
            tensors[f"{name}.grad.{t}"] = gradient
            tensors[f"{name}.{t}"] = value
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path)
    path.chmod(0o644)
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


def check(rule, path):
    stored = load_file(path)
    worst = 0.0
    for name in SHAPES:
        start = stored[f"{name}.0"]
        gradients = [stored[f"{name}.grad.{t}"] for t in range(1, STEPS + 1)]
        for t, value in enumerate(trace(rule, start, gradients, stored["rate"].tolist()), 1):
            expected = stored[f"{name}.{t}"]
            worst = max(worst, ((value - expected).norm() / (expected - start).norm()).item())
    print(f"{path}: worst difference {worst:.1e} of the distance moved")
    return worst <= BOUND


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.check:
        good = [check(rule, arguments.check / f"{rule}.safetensors") for rule in BASE]
        sys.exit(0 if all(good) else 1)
    for rule in BASE:
        write(rule, Path(__file__).parent / "optimizers" / f"{rule}.safetensors")


if __name__ == "__main__":
    main()
