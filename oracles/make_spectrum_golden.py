"""Golden facts on singular values, by NumPy in float64: what erank, stable rank and entropy of a few matrices are.

spectra.safetensors holds for each case <name>.x [m, n] f32, <name>.s [min(m, n)] f64, its singular values, and
<name>.facts [3] f64:
erank         exp(H), H = -sum p_i ln p_i, p_i = s_i / sum s
stable rank   sum s_i^2 / max s_i^2
entropy       H / ln min(m, n)

Usage:  python make_spectrum_golden.py
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def orthogonal(rng, m, n):
    return np.linalg.qr(rng.standard_normal((m, n)))[0]


def with_spectrum(rng, s, n):
    return (orthogonal(rng, len(s), len(s)) * s) @ orthogonal(rng, n, len(s)).T


def facts(s):
    p = s / s.sum()
    h = -(p[p > 0] * np.log(p[p > 0])).sum()
    return np.array([np.exp(h), (s**2).sum() / s.max() ** 2, h / np.log(len(s))])


def main():
    rng = np.random.default_rng(11)
    low = rng.standard_normal((24, 3)) @ rng.standard_normal((3, 40))
    cases = {
        "gaussian": rng.standard_normal((24, 40)),
        "square": rng.standard_normal((32, 32)),
        "tall": rng.standard_normal((40, 24)),
        "low-rank": low + 1e-3 * rng.standard_normal((24, 40)),
        "geometric-1e2": with_spectrum(rng, np.geomspace(1, 1e-2, 24), 40),
        "geometric-1e6": with_spectrum(rng, np.geomspace(1, 1e-6, 24), 40),
        "power-law": with_spectrum(rng, 1 / np.arange(1.0, 25.0), 40),
        "equal": with_spectrum(rng, np.full(24, 0.5), 40),
    }
    tensors = {}
    for name, x in cases.items():
        x = np.ascontiguousarray(x, dtype=np.float32)
        s = np.linalg.svd(x.astype(np.float64), compute_uv=False)
        tensors |= {f"{name}.x": x, f"{name}.s": s, f"{name}.facts": facts(s)}
        print(f"{name:14s} erank {facts(s)[0]:.4f}, stable rank {facts(s)[1]:.4f}, entropy {facts(s)[2]:.4f}")
    path = Path(__file__).parent / "spectra.safetensors"
    save_file(tensors, path)
    path.chmod(0o644)


if __name__ == "__main__":
    main()
