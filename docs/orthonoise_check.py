"""Numbers behind orthonoise-theory.md: each formula there against plain numpy, printed in the order of its sections.

Usage:  python docs/orthonoise_check.py        about 15 s; fails where a formula does not hold
"""

import math

import numpy as np

RNG = np.random.default_rng(7)


def svd(x):
    return np.linalg.svd(x, full_matrices=False)


def polar(x):
    u, _, vt = svd(x)
    return u @ vt


def gaussian(m, n):
    return RNG.standard_normal((m, n))


def qr_raw(m, n):
    return np.linalg.qr(gaussian(m, n))


def haar(m, n):
    """Semi-orthogonal m x n: Q of a Gaussian n x m, the diagonal of R made positive, transposed when wide."""
    q, r = qr_raw(max(m, n), min(m, n))
    q = q * np.sign(np.diag(r))
    return q.T if m < n else q


def control(m, n):
    """Gaussian of the same Frobenius norm as a semi-orthogonal matrix."""
    r = gaussian(m, n)
    return r * math.sqrt(min(m, n)) / np.linalg.norm(r)


KINDS = {"orthogonal": haar, "Gaussian": control}


def with_spectrum(s, n):
    """An m x n matrix of these singular values, m = len(s)."""
    u, v = haar(len(s), len(s)), haar(n, len(s))
    return u, v, (u * s) @ v.T


def erank(s):
    p = s[s > 0] / s.sum()
    return math.exp(-(p * np.log(p)).sum())


def show(text, value, expected, tolerance):
    good = abs(value - expected) <= tolerance * max(abs(expected), 1e-300)
    print(f"  {text:58s} {value:12.5g}   formula {expected:12.5g}{'' if good else '   FAILS'}")
    assert good, text


def section(text):
    print(f"\n{text}")


def haar_moments():
    section("1. QR of a Gaussian is Haar (6 x 6, 40000 draws)")
    n, draws = 6, 40_000
    a = RNG.standard_normal((draws, n, n))
    q, r = np.linalg.qr(a)
    print(f"  mean of the raw Q_11 (LAPACK's signs)                      {q[:, 0, 0].mean():12.5g}")
    expected = -math.gamma(n / 2) / (math.sqrt(math.pi) * math.gamma((n + 1) / 2))
    show("the same, against -E|a_11|/|a|", q[:, 0, 0].mean(), expected, 0.02)
    q = q * np.sign(np.einsum("lii->li", r))[:, None, :]
    error = 0.41 / math.sqrt(draws)
    print(f"  mean of Q_11 after the sign fix (standard error {error:.1g})     {q[:, 0, 0].mean():12.5g}")
    assert abs(q[:, 0, 0].mean()) < 0.01
    show("E Q_11^2", (q[:, 0, 0] ** 2).mean(), 1 / n, 0.03)
    show("E Q_11^4", (q[:, 0, 0] ** 4).mean(), 3 / (n * (n + 2)), 0.05)
    show("E Q_11^2 Q_12^2", (q[:, 0, 0] ** 2 * q[:, 0, 1] ** 2).mean(), 1 / (n * (n + 2)), 0.05)
    both = (q[:, 0, 0] ** 2 * q[:, 1, 1] ** 2).mean()
    show("E Q_11^2 Q_22^2", both, (n + 1) / (n * (n - 1) * (n + 2)), 0.05)
    # det of O(n): both signs equally often, so the draw covers both components of the group.
    show("share of draws with det Q > 0", (np.linalg.det(q) > 0).mean(), 0.5, 0.03)


def spectrum():
    section("2. a momentum of rank k = 3, 20 x 30, s = 1, eps = 0.01")
    m, n, k, eps = 20, 30, 3, 0.01
    s = np.concatenate([np.ones(k), np.zeros(m - k)])
    for kind, draw in KINDS.items():
        values = svd(with_spectrum(s, n)[2] + eps * draw(m, n))[1] / eps
        at = int((abs(values - 1) < 1e-9).sum())
        above, lowest = int((values > 1 + 1e-9).sum()), values[k:]
        low, high = lowest[-1], lowest[0]
        print(f"  {kind:10s} {at:2d} values at eps, {above} above; lowest {m - k}: {low:.3f} to {high:.3f} eps")
        if kind == "orthogonal":
            assert at == m - 2 * k
    s = np.geomspace(1, 0.1, m)
    u, v, momentum = with_spectrum(s, n)
    q = haar(m, n)
    x = u.T @ (momentum + eps * q)
    ps = u.T @ q @ v * s
    gap = np.linalg.norm(x @ x.T - np.diag(s**2) - eps * (ps + ps.T) - eps**2 * np.eye(m))
    print(f"  X X^T = S^2 + eps (P S + S P^T) + eps^2 I, residual        {gap:12.2g}")
    assert gap < 1e-13


def shifts():
    section("3. mean shift of singular values, 20 x 30, condition 10, eps = 0.003, 4000 draws of +Q and -Q")
    m, n, eps, draws = 20, 30, 0.003, 4000
    s = np.geomspace(1, 0.1, m)
    _, _, momentum = with_spectrum(s, n)
    others = [sum((a * a + b * b) / (a * a - b * b) for b in s if b != a) for a in s]
    expected = eps**2 / (2 * s) * ((n - 1) / n + np.array(others) / n)
    for kind, draw in KINDS.items():
        total = np.zeros(m)
        jitter = 0.0
        for _ in range(draws):
            q = draw(m, n)
            up, down = (svd(momentum + sign * eps * q)[1] for sign in (1, -1))
            total += (up + down) / 2 - s
            jitter += ((up - down) / 2) ** 2
        mean = total / draws
        show(f"{kind}: largest value, shift / eps^2", mean[0] / eps**2, expected[0] / eps**2, 0.1)
        show(f"{kind}: smallest value, shift / eps^2", mean[-1] / eps**2, expected[-1] / eps**2, 0.1)
        rms = math.sqrt((jitter / draws).mean()) / eps
        show(f"{kind}: rms of the first-order term / eps", rms, 1 / math.sqrt(n), 0.03)


def first_order():
    section("4. polar factor, 40 x 60, condition 10, eps = 0.001, 300 draws")
    m, n, eps, draws = 40, 60, 1e-3, 300
    s = np.geomspace(1, 0.1, m)
    u, v, momentum = with_spectrum(s, n)
    y = u @ v.T
    pairs = 1 / (s[:, None] + s[None, :])
    np.fill_diagonal(pairs, 0)
    moved = eps**2 / n * (2 * (pairs**2).sum() + (n - m) * (1 / s**2).sum())
    lost = eps**2 / (2 * n) * (pairs.sum() + (n - m) * (1 / s).sum())
    for kind, draw in KINDS.items():
        worst, square, loss = 0.0, 0.0, 0.0
        for _ in range(draws):
            q = draw(m, n)
            p, beyond = u.T @ q @ v, q - q @ v @ v.T
            delta = u @ (eps * (p - p.T) * pairs) @ v.T + u @ (eps / s[:, None] * (u.T @ beyond))
            actual = polar(momentum + eps * q) - y
            worst = max(worst, np.linalg.norm(actual - delta) / np.linalg.norm(delta))
            square += np.linalg.norm(actual) ** 2 / draws
            loss += (s.sum() - (momentum * (y + actual)).sum()) / draws
        print(f"  {kind}: worst |actual - first order| / |first order|      {worst:9.2g}")
        show(f"{kind}: E |polar(X) - polar(M)|^2 / r", square / m, moved / m, 0.03)
        show(f"{kind}: E (|M|_* - <M, polar(X)>) / |M|_*", loss / s.sum(), lost / s.sum(), 0.03)


def overlap(t, c):
    d = math.sqrt(1 + (1 - c) * t * t)
    return t * (1 - c + d) / (d * math.sqrt(2 + t * t + 2 * d))


def one_direction():
    section("5. one direction s u v^T in noise eps: overlap u^T polar(X) v (r = 300, 10 draws)")
    m = 300
    for n in (300, 1200):
        for t in (0.3, 1, 2, 5, 20):
            measured = {}
            for kind, draw in KINDS.items():
                u, v = haar(m, 1)[:, 0], haar(n, 1)[:, 0]
                measured[kind] = np.mean([u @ polar(t * np.outer(u, v) + draw(m, n)) @ v for _ in range(10)])
            expected = overlap(t, m / n)
            q, r = measured.values()
            print(f"  n = {n:4d}, s/eps = {t:4}: orthogonal {q:.3f}, formula {expected:.3f}; Gaussian {r:.3f}")
            assert abs(q - expected) < 0.03


def cubic(x, steps=3):
    for _ in range(steps):
        x = 1.5 * x - 0.5 * x @ x.T @ x
    return x


def jordan(x):
    x = x / np.linalg.norm(x)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


def reorthogonalize():
    section("6. three cubic steps before the polar factor, 64 x 96: |difference|_F / sqrt(64)")
    for condition in (1e1, 1e2, 1e4, 1e6):
        _, _, x = with_spectrum(np.geomspace(1, 1 / condition, 64), 96)
        double = np.linalg.norm(polar(cubic(x)) - polar(x)) / 8
        single = x.astype(np.float32)
        rounded = np.linalg.norm(polar(cubic(single).astype(float)) - polar(single.astype(float))) / 8
        quintic = np.linalg.norm(jordan(cubic(x)) - jordan(x)) / 8
        text = f"f64 {double:.1e}, cubic in f32 {rounded:.1e}, before Jordan's five steps {quintic:.2f}"
        print(f"  condition {condition:.0e}: {text}")
        assert double < 1e-15 * condition * 10
    print("  one value under the unscaled cubic, three steps: ", end="")
    print(", ".join(f"{s} -> {cubic(np.array([[s]]))[0, 0]:.3g}" for s in (0.01, 1.5, 1.8, 2.2, 2.3, 4.0)))


def eranks():
    section("7. erank / r")
    for m, n in ((256, 256), (256, 1024)):
        print(f"  Gaussian {m} x {n}: {erank(svd(gaussian(m, n))[1]) / m:.3f}")
    x = (np.arange(200_000) + 0.5) / 100_000
    density = np.sqrt(4 - x * x) / math.pi
    mean = np.average(x, weights=density)
    limit = math.exp(-np.average(x / mean * np.log(x / mean), weights=density))
    print(f"  Gaussian, square, in the limit: {limit:.4f}")
    for condition in (10, 100, 193, 1000, 10_000):
        s = np.geomspace(1, 1 / condition, 2048)
        span = math.log(condition)
        h = 1 + math.log((1 - 1 / condition) / span) - span / (condition - 1)
        show(f"geometric, condition {condition}", erank(s) / len(s), math.exp(h), 0.01)
    s = np.geomspace(1, 1e-2, 256)
    print(f"  geometric 1e2 (r = 256): {erank(s):.1f}; with 256 zeros more: {erank(np.concatenate([s, 0 * s])):.1f}")
    eps = 0.01
    for rank in (4, 32):
        s = np.concatenate([np.ones(rank), np.full(256 - 2 * rank, eps), np.full(rank, eps / 2)])
        print(f"  rank {rank}, r = 256, s = 1: {rank}; plus eps Q, eps = {eps}: about {erank(s):.1f}")


def sizes():
    section("8. |eps Q|_F / |M|_F = eps / s_rms at alpha = 1e-2, mu = 0.95")
    for r in (64, 256, 768):
        independent, alike = 0.01 * math.sqrt(r * (1 - 0.95**2)), 0.01 * math.sqrt(r) * (1 - 0.95)
        print(f"  r = {r}: gradients independent {independent:.3f}, all alike {alike:.4f}")


def main():
    np.set_printoptions(precision=4)
    for part in (haar_moments, spectrum, shifts, first_order, one_direction, reorthogonalize, eranks, sizes):
        part()


if __name__ == "__main__":
    main()
