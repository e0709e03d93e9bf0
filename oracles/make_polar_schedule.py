"""Coefficients of the exact polar factor's phases: optimal odd quintics one after the other (Polar Express, Amsel et al.
2025, arXiv 2505.16932, algorithm 1), each found by the exchange algorithm of Remez. Prints the tables of
crates/optim/src/ortho/polar/schedule.rs."""
import numpy as np


def optimal(l, u):
    """The odd quintic nearest to 1 on [l, u], and its error: alternates at l, q, r, u."""
    if l / u > 1 - 5e-6:
        return [15 / 8 / u, -10 / 8 / u**3, 3 / 8 / u**5], 0.0
    q, r, last = (3 * l + u) / 4, (l + 3 * u) / 4, None
    while True:
        rows = [[x, x**3, x**5, s] for x, s in ((l, 1), (q, -1), (r, 1), (u, -1))]
        a, b, c, error = np.linalg.solve(rows, np.ones(4))
        if last is not None and abs(error - last) < 1e-14:
            return [a, b, c], error
        last, root = error, np.sqrt(9 * b * b - 20 * a * c)
        q, r = np.sqrt((-3 * b - root) / (10 * c)), np.sqrt((-3 * b + root) / (10 * c))


def stretch(k, u):
    """k(x / u)"""
    return [k[0] / u, k[1] / u**3, k[2] / u**5]


def sequence(l, steps, u=1.0):
    """Singular values in [l u, u] to 1 in so many steps."""
    out, top = [], 1.0
    for _ in range(steps):
        k, error = optimal(l, top)
        out.append(k)
        l, top = 1 - error, 1 + error
    return [stretch(out[0], u)] + out[1:], error


def show(name, steps):
    print(f"{name}:")
    for k in steps:
        print("    [" + ", ".join(f"{x:.15f}" for x in k) + "],")


MARGIN = 1.01
close, error = sequence(0.08, 3, MARGIN)
show(f"CLOSE, [0.08, 1] to 1 within {error:.1e}, lifts {np.prod([k[0] for k in close]):.0f}-fold", close)
first, error = optimal(0.024, 1.0)
top = 1 + error
lift = [stretch(first, MARGIN), stretch(first, MARGIN * top), stretch(first, MARGIN * top)]
show(f"LIFT, up to {top:.2f}, lifts {np.prod([k[0] for k in lift]):.0f}-fold", lift)
after, error = sequence(0.08, 3, MARGIN * top)
show(f"CLOSE_AFTER_LIFT, to 1 within {error:.1e}, lifts {np.prod([k[0] for k in after]):.0f}-fold", after)
last, error = sequence(0.35, 2, MARGIN)
show(f"LAST, [0.35, 1] to 1 within {error:.1e}, lifts {np.prod([k[0] for k in last]):.1f}-fold", last)
print("condition: smallest and largest singular value after each phase")
for condition in [1, 5, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7]:
    x, told = np.geomspace(0.4 / condition, 0.4, 4001), []
    for phase in [close, lift, after, close, last]:
        for a, b, c in phase:
            x = a * x + b * x**3 + c * x**5
        told.append(f"{x.min():.2e}..{x.max():.4f}")
    print(f"{condition:.0e}", *told)
