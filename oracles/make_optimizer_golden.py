"""Golden traces for the optimizers: six steps on random gradients, by plain PyTorch on the CPU.

optimizers/<name>.safetensors holds <weight>.0 (the start), <weight>.grad.<t> and <weight>.<t> (after step t) for
t = 1..6 and the weights tall, wide, square and, where AdamW has a part in it, vector; and rate [6], the learning rate
of each step: base * min(1, t / 3). All f32. The file's metadata `replay` says what follows it: the row of the
optimizer, then its keys, `key=value`. Every step should be met to 1e-4, relative to the distance moved by then, or to
2e-2 where `ortho_dtype=bf16` or `ortho=jordan-bf16` is among the keys.

M is the momentum, M <- 0.95 M + G; with Nesterov N = G + 0.95 M, without it N = M. polar(U S V^T) = U V^T.

muon-svd            base 1e-2: W <- W - rate polar(M); the vector by AdamW at 3e-4, not warmed up, betas 0.9 and 0.95,
                    eps 1e-8, weight decay 0.01.
muon-options        base 1e-2: W <- (1 - 0.1 rate) W - rate sqrt(out/in) polar(N), momentum 0.9: the switches of `muon`.
nolah-<gate>-<s>    base 1e-2: G' = tanh(G) |G|, sigmoid(G) G or max(G, 0); M <- 0.95 M + G'; entries of M where |G| is
                    above its 95th percentile times s, which stays in the buffer; W <- W - rate polar(M sigmoid(M)).
adamw               base 1e-3: every weight by AdamW, the rest as above.
muon-nesterov       base 1e-2: W <- W - rate sqrt(max(1, out/in)) quintic(N); Jordan's coefficients, five steps.
moonlight           base 1e-3: W <- (1 - 0.1 rate) W - rate 0.2 sqrt(max(out, in)) quintic(N).
normuon             base 1e-3, as its paper's algorithm: O = quintic(M); v <- 0.95 v + 0.05 mean of O^2 over each row;
                    O' = O / (sqrt(v) + 1e-8); W <- (1 - 0.1 rate) W - rate 0.2 sqrt(out in) O' / |O'|_F.
block-periodic-16   base 1e-3: M in tiles of 16 x 16 (smaller at the edges), each 0.2 sqrt(max(its sides))
                    quintic(tile), at half the rate; in steps 1 and 4 instead the whole matrix,
                    0.2 sqrt(max(out, in)) quintic(M), at the full rate; weight decay 0.1 at the rate of the step.
block-muon-16-block base 1e-3: tiles of N scaled by their own sides, weight decay 0.1.
These compute in float64 and are held to 1e-4. The following use bfloat16 in the quintic and are held to 2e-2. Jordan's
coefficients amplify roundings, so that only the same order of roundings stays below that (see README.md):
torch-muon-original, torch-muon-match-rms
                    torch.optim.Muon itself (PyTorch 2.11 and later): muon-nesterov and moonlight, both with weight
                    decay 0.1; bases 1e-2 and 1e-3.
block-muon-<b>      base 1e-3: tiles of N of b x b, all scaled by 0.2 sqrt(max(out, in)) of the whole; weight decay 0.1.

Usage:  python make_optimizer_golden.py                  write all of them
        python make_optimizer_golden.py --check FOLDER   recompute the traces in FOLDER from their starts and gradients
"""

import argparse
import math
import re
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

STEPS = 6
SHAPES = {"tall": (34, 18), "wide": (18, 34), "square": (20, 20), "vector": (16,)}
JORDAN = (3.4445, -4.7750, 2.0315)
EXACT, ROUNDED = 1e-4, 2e-2  # bounds, relative to the distance moved
WRITTEN = [
    "adamw",
    "block-muon-16",
    "block-muon-16-block",
    "block-muon-32",
    "block-periodic-16",
    "moonlight",
    "muon-nesterov",
    "muon-options",
    "muon-svd",
    "nolah-relu-0.99",
    "nolah-sigmoid-0.90",
    "nolah-tanh-0.95",
    "normuon",
    "torch-muon-match-rms",
    "torch-muon-original",
]


def polar(x):
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    return u @ vt


def quintic(x):
    """Jordan's iteration, X <- a X + (b X X^T + c (X X^T)^2) X, five times from X / |X|_F, on the short side."""
    a, b, c = JORDAN
    y = x.T if x.size(0) > x.size(1) else x
    y = y / y.norm()
    for _ in range(5):
        gram = y @ y.T
        y = a * y + (b * gram + c * gram @ gram) @ y
    return y.T if x.size(0) > x.size(1) else y


def rounded_quintic(x):
    """The same in bfloat16 with every product and sum rounded, as Jordan's own code has it."""
    a, b, c = JORDAN
    y = x.bfloat16()
    y = y.T if x.size(0) > x.size(1) else y
    y = y / (y.norm() + 1e-7)
    for _ in range(5):
        gram = y @ y.T
        y = a * y + (b * gram + (c * gram) @ gram) @ y
    return (y.T if x.size(0) > x.size(1) else y).double()


def match_rms(shape):
    return 0.2 * math.sqrt(max(shape))


class Momentum:
    """M <- mu M + G; gives M, or G + mu M with Nesterov."""

    def __init__(self, nesterov=False, mu=0.95):
        self.buffer, self.nesterov, self.mu = 0.0, nesterov, mu

    def __call__(self, gradient):
        self.buffer = self.mu * self.buffer + gradient
        return gradient + self.mu * self.buffer if self.nesterov else self.buffer


class Rule:
    """W <- (1 - rate decay) W - rate update(G), in float64."""

    decay = 0.0
    bound = EXACT
    vector = False  # whether the trace has the vector too, by AdamW

    def start(self, weight):
        self.weight, self.steps = weight.double(), 0

    def step(self, gradient, rate):
        self.steps += 1
        self.weight = (1 - rate * self.decay) * self.weight - rate * self.update(gradient.double())
        return self.weight.float()


class Muon(Rule):
    optimizer, settings, base, vector = "muon", "ortho=svd", 1e-2, True

    def __init__(self):
        self.momentum = Momentum()

    def update(self, gradient):
        return polar(self.momentum(gradient))


class Options(Rule):
    optimizer, base, decay = "muon", 1e-2, 0.1
    settings = "ortho=svd nesterov=true momentum=0.9 scale=spectral weight_decay=0.1"

    def __init__(self):
        self.momentum = Momentum(nesterov=True, mu=0.9)

    def update(self, gradient):
        out, into = gradient.shape
        return math.sqrt(out / into) * polar(self.momentum(gradient))


class Nolah(Rule):
    optimizer, base, vector = "nolah", 1e-2, True
    gates = {
        "tanh": lambda g: g.tanh() * g.abs(),
        "sigmoid": lambda g: g.sigmoid() * g,
        "relu": lambda g: g.clamp(min=0),
    }

    def __init__(self, gate, scale):
        self.gate, self.scale = self.gates[gate], float(scale)
        self.momentum = Momentum()
        self.settings = f"ortho=svd gate={gate} momentum_scale={scale} quantile=0.95"

    def update(self, gradient):
        m = self.momentum(self.gate(gradient))
        large = gradient.abs() > gradient.abs().quantile(0.95)
        self.momentum.buffer = m = torch.where(large, self.scale * m, m)
        return polar(m * m.sigmoid())


class Nesterov(Rule):
    optimizer, base = "muon-nesterov", 1e-2
    settings = "ortho=newton-schulz coefficients=jordan ortho_steps=5 ortho_dtype=f32"

    def __init__(self):
        self.momentum = Momentum(nesterov=True)

    def update(self, gradient):
        out, into = gradient.shape
        return math.sqrt(max(1, out / into)) * quintic(self.momentum(gradient))


class Moonlight(Rule):
    optimizer, base, decay = "moonlight", 1e-3, 0.1
    settings = f"{Nesterov.settings} weight_decay=0.1"

    def __init__(self):
        self.momentum = Momentum(nesterov=True)

    def update(self, gradient):
        return match_rms(gradient.shape) * quintic(self.momentum(gradient))


class NorMuon(Rule):
    optimizer, base, decay = "normuon", 1e-3, 0.1
    settings = f"{Nesterov.settings} nesterov=false beta2=0.95 eps=1e-8 weight_decay=0.1"

    def __init__(self):
        self.momentum, self.squares = Momentum(), 0.0

    def update(self, gradient):
        o = quintic(self.momentum(gradient))
        self.squares = 0.95 * self.squares + 0.05 * o.square().mean(dim=1, keepdim=True)
        o = o / (self.squares.sqrt() + 1e-8)
        return 0.2 * math.sqrt(o.numel()) / o.norm() * o


class Blocks(Rule):
    """Tiles of the momentum, each by itself."""

    optimizer, base, decay = "block-muon", 1e-3, 0.1

    def __init__(self, size, shape):
        self.size, self.shape = int(size), shape
        self.momentum = Momentum(nesterov=True)
        self.quintic, self.bound, method = {
            "block": (quintic, EXACT, "newton-schulz ortho_dtype=f32"),
            "full": (rounded_quintic, ROUNDED, "jordan-bf16"),
        }[shape]
        self.settings = (
            f"block_size={size} scale_shape={shape} nesterov=true ortho={method} coefficients=jordan "
            f"ortho_steps=5 scale=match-rms weight_decay=0.1"
        )

    def update(self, gradient):
        return self.tiles(self.momentum(gradient))

    def tiles(self, m):
        result = torch.empty_like(m)
        for i in range(0, m.size(0), self.size):
            for j in range(0, m.size(1), self.size):
                part = (slice(i, i + self.size), slice(j, j + self.size))
                scale = match_rms(m.shape if self.shape == "full" else m[part].shape)
                result[part] = scale * self.quintic(m[part])
        return result


class Periodic(Blocks):
    optimizer = "block-periodic"

    def __init__(self, size):
        super().__init__(size, "block")
        self.momentum = Momentum()
        self.settings = (
            f"block_size={size} period=3 block_lr_ratio=0.5 nesterov=false ortho=newton-schulz coefficients=jordan "
            "ortho_steps=5 ortho_dtype=f32 scale=match-rms weight_decay=0.1"
        )

    def step(self, gradient, rate):
        return super().step(gradient, rate if self.steps % 3 == 0 else rate / 2)

    def update(self, gradient):
        m = self.momentum(gradient)
        return match_rms(m.shape) * quintic(m) if self.steps % 3 == 1 else self.tiles(m)


class Torch(Rule):
    """An optimizer of PyTorch, in float32."""

    def start(self, weight):
        self.weight = torch.nn.Parameter(weight.clone())
        self.inner = self.make(self.weight)

    def step(self, gradient, rate):
        self.inner.param_groups[0]["lr"] = rate
        self.weight.grad = gradient.clone()
        self.inner.step()
        return self.weight.detach().clone()


class AdamW(Torch):
    optimizer, settings, base, vector = "adamw", "", 1e-3, True

    def make(self, weight):
        return torch.optim.AdamW([weight], betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)


class TorchMuon(Torch):
    bound = ROUNDED

    def __init__(self, scale):
        self.optimizer, self.adjust, self.base = {
            "original": ("muon-nesterov", "original", 1e-2),
            "match-rms": ("moonlight", "match_rms_adamw", 1e-3),
        }[scale]
        self.settings = (
            "ortho=newton-schulz coefficients=jordan ortho_steps=5 ortho_dtype=bf16 weight_decay=0.1"
        )

    def make(self, weight):
        return torch.optim.Muon([weight], weight_decay=0.1, momentum=0.95, adjust_lr_fn=self.adjust)


RULES = {
    r"muon-svd": Muon,
    r"muon-options": Options,
    r"nolah-(tanh|sigmoid|relu)-(0\.\d+)": Nolah,
    r"adamw": AdamW,
    r"muon-nesterov": Nesterov,
    r"moonlight": Moonlight,
    r"normuon": NorMuon,
    r"block-periodic-(\d+)": Periodic,
    r"block-muon-(\d+)(?:-(block))?": lambda size, shape: Blocks(size, shape or "full"),
    r"torch-muon-(original|match-rms)": TorchMuon,
}


def rule(name):
    """A fresh rule for the trace of this name."""
    for pattern, make in RULES.items():
        if match := re.fullmatch(pattern, name):
            return make(*match.groups())
    sys.exit(f"no rule makes {name}")


def trace(name, start, gradients, rates):
    """The values of one weight after each step."""
    vector = start.dim() == 1 and name != "adamw"
    maker = AdamW() if vector else rule(name)
    maker.start(start)
    return [maker.step(gradient, 3e-4 if vector else rate) for gradient, rate in zip(gradients, rates)]


def write(name, path):
    generator = torch.Generator().manual_seed(20)
    made = rule(name)
    rates = torch.tensor([made.base * min(1.0, t / 3) for t in range(1, STEPS + 1)])
    tensors = {"rate": rates}
    for weight, shape in SHAPES.items():
        start = 0.1 * torch.randn(shape, generator=generator)
        gradients = [0.2 * torch.randn(shape, generator=generator) for _ in range(STEPS)]
        if weight == "vector" and not made.vector:
            continue
        tensors[f"{weight}.0"] = start
        for t, (gradient, value) in enumerate(zip(gradients, trace(name, start, gradients, rates.tolist())), 1):
            tensors[f"{weight}.grad.{t}"] = gradient
            tensors[f"{weight}.{t}"] = value
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path, {"replay": f"{made.optimizer} {made.settings}".strip()})
    path.chmod(0o644)
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


def check(name, path):
    stored = load_file(path)
    weights = [weight for weight in SHAPES if f"{weight}.0" in stored]
    worst = 0.0
    for weight in weights:
        start = stored[f"{weight}.0"]
        gradients = [stored[f"{weight}.grad.{t}"] for t in range(1, STEPS + 1)]
        for t, value in enumerate(trace(name, start, gradients, stored["rate"].tolist()), 1):
            expected = stored[f"{weight}.{t}"]
            worst = max(worst, ((value - expected).norm() / (expected - start).norm()).item())
    bound = rule(name).bound
    print(f"{path}: {worst:.1e} of the distance moved, bound {bound:.0e}, {', '.join(weights)}")
    return worst <= bound


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.check:
        paths = sorted(arguments.check.glob("*.safetensors"))
        good = [check(path.stem, path) for path in paths]
        sys.exit(0 if good and all(good) else 1)
    for name in WRITTEN:
        write(name, Path(__file__).parent / "optimizers" / f"{name}.safetensors")


if __name__ == "__main__":
    main()
