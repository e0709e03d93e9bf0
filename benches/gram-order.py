"""What gram loses where products of polynomials in R are computed by halves: bf16 emulated in PyTorch on a CPU.

A product by halves is as by crates/tensor/src/linalg/symmetric.cu: A times the transpose of what lies where B does, blocks
of 256 above the diagonal mirrored from below. Usage: python3 gram-order.py [RANK LENGTH]...
"""
import sys

import torch

SETS = {
    "you": [(4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
            (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012)],
    "jordan": [(3.4445, -4.7750, 2.0315)] * 5,
    "polar-express": [(8.2872, -23.5959, 17.3004), (4.1071, -2.9478, 0.5448), (3.9487, -2.9089, 0.5518),
                      (3.3184, -2.4885, 0.5100), (2.3007, -1.6689, 0.4188)],
}
BLOCK, RESTART = 256, 2


def rounded(x):
    return x.bfloat16().float()


def mirrored(d):
    for i in range(0, len(d), BLOCK):
        d[:i, i:i + BLOCK] = d[i:i + BLOCK, :i].T
    return rounded(d)


def halves(a, b, s, c, alpha=1.0):
    return mirrored(alpha * (a @ b.T) + s * c)


def whole(a, b, s, c, alpha=1.0):
    return rounded(alpha * (a @ b) + s * c)


def gram(x, steps, form):
    """`whole`: every product so, in the old order; `old`: the same by halves; `new`: as crates/optim/src/ortho/gram.rs."""
    product = whole if form == "whole" else halves
    x = rounded(x / x.norm())
    square = lambda x: rounded(x @ x.T) if form == "whole" else mirrored(x @ x.T)
    r, q = square(x), None
    for i, (a, b, c) in enumerate(steps):
        if i == RESTART:
            x = rounded((q.T if form == "new" else q) @ x)
            r = square(x)
        first, last = i in (0, RESTART), i + 1 in (RESTART, len(steps))
        z = product(r, r, b, r, c)
        if not first:
            q = whole(q, z, a, q) if form == "new" else product(q, z, a, q)
        if not last and form == "new":
            w = halves(z, r, a, r)
            r = halves(w, z, a, w)
        elif not last:
            w = product(r, z, a, r)
            r = product(z, w, a, w)
        if first:
            q = rounded(z + a * torch.eye(len(r)))
    return rounded((q.T if form == "new" else q) @ x)


def main():
    numbers = [int(word) for word in sys.argv[1:]] or [256, 768, 768, 1536, 768, 2048, 768, 3376]
    for rank, length in zip(numbers[::2], numbers[1::2]):
        torch.manual_seed(0)
        normal = torch.randn(rank, length)
        for kind, x in [("normal", normal), ("columns of condition 100", normal * torch.logspace(0, -2, length))]:
            for name, steps in SETS.items():
                told = []
                for form in ("whole", "old", "new"):
                    y = gram(x, steps, form)
                    h = y @ (x / x.norm()).T
                    asymmetry = (h - h.T).norm() / h.norm()
                    orthogonality = (y @ y.T - torch.eye(rank)).norm() / rank**0.5
                    told.append(f"{form} {asymmetry:.4f} {orthogonality:.3f}")
                print(f"{rank} x {length} {kind}, {name}: asymmetry, orthogonality: {'; '.join(told)}", flush=True)


main()
