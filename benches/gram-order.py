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
    "polar-express": [(a / 1.01, b / 1.01**3, c / 1.01**5) for a, b, c in [
        (8.2872, -23.5959, 17.3004), (4.1071, -2.9478, 0.5448), (3.9487, -2.9089, 0.5518), (3.3184, -2.4885, 0.5100),
        (2.3007, -1.6689, 0.4188)]],
}
BLOCK = 256
FORMS = {"whole": 2, "halves": 2, "apart": 2, "gram.rs": 2, "q by halves": 2, "later": 3, "f16": 9}  # the step before which X is made anew


def rounded(x, to=torch.bfloat16):
    return x.to(to).float()


def mirrored(d, to=torch.bfloat16):
    for i in range(0, len(d), BLOCK):
        d[:i, i:i + BLOCK] = d[i:i + BLOCK, :i].T
    return rounded(d, to)


def halves(a, b, s=0.0, c=0.0, alpha=1.0, diagonal=0.0, to=torch.bfloat16):
    return mirrored(alpha * (a @ b.T) + s * c + diagonal * torch.eye(len(a)), to)


def whole(a, b, s=0.0, c=0.0, alpha=1.0):
    return rounded(alpha * (a @ b) + s * c)


def gram(x, steps, form):
    """The steps as crates/optim/src/ortho/gram.rs has them, and as it had them.

    `whole`: Z = b R + c R^2, Q <- Q Z + a Q, R <- Z (R Z + a R) + ..; `halves`: the same, by halves; `apart`: Z R and W Z
    by halves, Q whole, P = Z + a I rounded for Q alone; `gram.rs`: P rounded for both; `q by halves`: Q too;
    `later`: that with X made anew later; `f16`: R, P and Q in f16, X never made anew.
    """
    by_halves, restart = form != "whole", FORMS[form]
    product, old = halves if by_halves else whole, form in ("whole", "halves")
    to = torch.float16 if form == "f16" else torch.bfloat16
    x = rounded(x / x.norm())
    r, q = product(x, x, to=to) if by_halves else whole(x, x.T), None
    for i, (a, b, c) in enumerate(steps):
        if i == restart:
            x = rounded((q if old else q.T) @ x)
            r = product(x, x if by_halves else x.T)
        first, last = i in (0, restart), i + 1 in (restart, len(steps))
        if form in ("gram.rs", "q by halves", "later", "f16"):
            p = halves(r, r, b, r, c, a, to)
            if not first:
                q = whole(q, p) if form == "gram.rs" else halves(q, p, to=to)
            if not last:
                r = halves(halves(p, r, to=to), p, to=to)
            q = p if first else q
            continue
        z = product(r, r, b, r, c)
        if not first:
            q = product(q, z, a, q) if old else whole(q, z, a, q)
        if not last:
            w = product(r, z, a, r) if old else halves(z, r, a, r)
            r = product(z, w, a, w) if old else halves(w, z, a, w)
        if first:
            q = rounded(z + a * torch.eye(len(r)))
    return rounded((q if old else rounded(q).T) @ x)


def main():
    numbers = [int(word) for word in sys.argv[1:]] or [64, 256, 256, 768, 768, 1536, 768, 2048]
    for rank, length in zip(numbers[::2], numbers[1::2]):
        torch.manual_seed(0)
        normal = torch.randn(rank, length)
        left, right = (torch.linalg.qr(torch.randn(n, rank))[0] for n in (rank, length))
        sets = [("normal", normal), ("columns of condition 100", normal * torch.logspace(0, -2, length)),
                ("condition 1e4", left * torch.logspace(0, -4, rank) @ right.T),
                ("one at 1, the rest at 0.01", left * torch.tensor([1.0] + [0.01] * (rank - 1)) @ right.T)]
        for kind, x in sets:
            for name, steps in SETS.items():
                told = []
                for form in FORMS:
                    y = gram(x, steps, form)
                    h = y @ (x / x.norm()).T
                    asymmetry = (h - h.T).norm() / h.norm()
                    orthogonality = (y @ y.T - torch.eye(rank)).norm() / rank**0.5
                    told.append(f"{form} {asymmetry:.4f} {orthogonality:.3f}")
                print(f"{rank} x {length} {kind}, {name}: asymmetry, orthogonality: {'; '.join(told)}", flush=True)


main()
