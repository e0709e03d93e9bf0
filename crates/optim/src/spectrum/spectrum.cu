// Stochastic Lanczos quadrature on the Gram matrices of a bank. Formulae and reasons stand in rules.rs and lanczos.rs.
#include "common.cuh"

constexpr int PROBES = 8;     // as in rules.rs
constexpr int RULES = 4;      // likewise
constexpr int MAX_STEPS = 64; // the most that by_quadrature allows

#define EACH(i, n) for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x)

// ---- The bank in bf16, each member divided by its largest entry: grid (64 blocks, members) ----

extern "C" __global__ void __launch_bounds__(256) largest(const float *__restrict__ x, i64 size, float *maxima) {
    x += blockIdx.y * size;
    float max = 0;
    if (size % 4 == 0 && aligned16(x)) {
#pragma unroll 4
        EACH(i, size / 4) {
            float v[4];
            load_vec(x + 4 * i, v);
#pragma unroll
            for (int j = 0; j < 4; j++) max = fmaxf(max, fabsf(v[j]));
        }
    } else {
        EACH(i, size) max = fmaxf(max, fabsf(x[i]));
    }
    max = block_max(max);
    if (threadIdx.x == 0) maxima[blockIdx.y * gridDim.x + blockIdx.x] = max;
}

extern "C" __global__ void __launch_bounds__(256)
scale(const float *__restrict__ x, i64 size, const float *__restrict__ maxima, bf16 *__restrict__ y) {
    float max = 0;
    for (int i = 0; i < gridDim.x; i++) max = fmaxf(max, maxima[blockIdx.y * gridDim.x + i]);
    float inverse = max > 0 ? 1 / max : 0; // what is not finite times that is not finite
    x += blockIdx.y * size;
    y += blockIdx.y * size;
    if (size % 8 == 0 && aligned16(x) && aligned16(y)) {
#pragma unroll 2
        EACH(i, size / 8) {
            float v[8];
            load_many<8>(x + 8 * i, v);
#pragma unroll
            for (int j = 0; j < 8; j++) v[j] *= inverse;
            store_vec(y + 8 * i, v);
        }
    } else {
        EACH(i, size) y[i] = round_bf16(x[i] * inverse);
    }
}

// ---- What is known exactly: trace, and sum of squares over its square; a block a member ----

DEVICE double block_total(double x) {
    __shared__ double sums[1024];
    __syncthreads(); // an earlier call may still be reading
    sums[threadIdx.x] = x;
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    __syncthreads();
    return sums[0];
}

extern "C" __global__ void __launch_bounds__(1024) moments(const float *__restrict__ gram, int r, double *exact) {
    i64 size = (i64)r * r;
    gram += blockIdx.x * size;
    double trace = 0, square = 0;
    for (int i = threadIdx.x; i < r; i += 1024) trace += gram[(i64)i * r + i];
#pragma unroll 8
    for (i64 i = threadIdx.x; i < size; i += 1024) square += (double)gram[i] * gram[i];
    trace = block_total(trace);
    square = block_total(square);
    if (threadIdx.x == 0) {
        exact[2 * blockIdx.x] = trace;
        exact[2 * blockIdx.x + 1] = square / (trace * trace);
    }
}

// ---- The recurrence; vectors are [members, PROBES, r] ----

// The same probes for every member, and nothing before them: grid (blocks, members).
extern "C" __global__ void __launch_bounds__(256)
start(const float *__restrict__ probes, float *__restrict__ now, float *__restrict__ before, int size) {
    int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= size) return;
    now[blockIdx.y * (i64)size + i] = probes[i];
    before[blockIdx.y * (i64)size + i] = 0;
}

// next = R now for all probes, so that R is read once. Eight warps with four rows each: grid (rows / 32, members).
extern "C" __global__ void __launch_bounds__(256)
multiply(const float *__restrict__ gram, const float *__restrict__ now, float *__restrict__ next, int r) {
    constexpr int WARP_ROWS = 4, CHUNK = 1024;
    __shared__ float v[PROBES][CHUNK];
    i64 member = blockIdx.y;
    int lane = threadIdx.x & 31, row = (blockIdx.x * 8 + (threadIdx.x >> 5)) * WARP_ROWS;
    const float *rows[WARP_ROWS];
#pragma unroll
    for (int t = 0; t < WARP_ROWS; t++) rows[t] = gram + (member * r + min(row + t, r - 1)) * r;
    now += member * PROBES * r;
    next += member * PROBES * r;
    float sum[WARP_ROWS][PROBES] = {};
    for (int from = 0; from < r; from += CHUNK) {
        int width = min(CHUNK, r - from);
        __syncthreads();
        // A warp a probe, with many loads on their way at once.
        int p = threadIdx.x >> 5;
#pragma unroll 8
        for (int c = lane; c < width; c += 32) v[p][c] = now[(i64)p * r + from + c];
        __syncthreads();
#pragma unroll 8
        for (int c = lane; c < width; c += 32) {
            float x[WARP_ROWS];
#pragma unroll
            for (int t = 0; t < WARP_ROWS; t++) x[t] = rows[t][from + c];
#pragma unroll
            for (int p = 0; p < PROBES; p++) {
#pragma unroll
                for (int t = 0; t < WARP_ROWS; t++) sum[t][p] += x[t] * v[p][c];
            }
        }
    }
#pragma unroll
    for (int t = 0; t < WARP_ROWS; t++) {
#pragma unroll
        for (int p = 0; p < PROBES; p++) {
            float total = warp_sum(sum[t][p]);
            if (lane == p && row + t < r) next[(i64)p * r + row + t] = total;
        }
    }
}

// alpha = w v; w -= alpha v + beta_before u; beta = |w|; w /= beta. Grid (PROBES, members).
extern "C" __global__ void __launch_bounds__(256)
recur(const float *__restrict__ now, const float *__restrict__ before, float *__restrict__ next, float *alphas,
      float *betas, int r, int steps, int step) {
    i64 vector = (i64)blockIdx.y * PROBES + blockIdx.x;
    const float *__restrict__ v = now + vector * r, *__restrict__ u = before + vector * r;
    float *__restrict__ w = next + vector * r;
    i64 at = vector * steps + step;
    float last = step > 0 ? betas[at - 1] : 0, alpha = 0, beta = 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < r; i += 256) alpha += w[i] * v[i];
    alpha = block_sum(alpha);
#pragma unroll 4
    for (int i = threadIdx.x; i < r; i += 256) {
        float x = w[i] - (alpha * v[i] + last * u[i]);
        w[i] = x;
        beta += x * x;
    }
    beta = sqrtf(block_sum(beta));
    float inverse = beta > 0 ? 1 / beta : 0;
#pragma unroll 4
    for (int i = threadIdx.x; i < r; i += 256) w[i] *= inverse;
    if (threadIdx.x == 0) {
        alphas[at] = alpha;
        betas[at] = beta;
    }
}

// ---- The rules: one thread each, as in rules.rs ----

DEVICE void put_node_at_zero(double *diagonal, const double *beside, int k) {
    double pivot = diagonal[0];
    for (int i = 1; i < k - 1; i++) pivot = diagonal[i] - beside[i - 1] * beside[i - 1] / pivot;
    double entry = beside[k - 2] * beside[k - 2] / pivot;
    if (entry >= 0 && entry <= 1) diagonal[k - 1] = entry;
}

DEVICE void diagonalize(double *d, double *e, double *z, int n) {
    e[n - 1] = 0;
    for (int l = 0; l < n; l++) {
        for (int sweep = 0; sweep < 50; sweep++) {
            int m = l;
            while (m < n - 1 && fabs(e[m]) > 1e-15) m++;
            if (m == l) break;
            double g = (d[l + 1] - d[l]) / (2 * e[l]);
            g = d[m] - d[l] + e[l] / (g + copysign(sqrt(g * g + 1), g));
            double sine = 1, cosine = 1, shift = 0;
            bool split = false;
            for (int i = m - 1; i >= l; i--) {
                double f = sine * e[i], b = cosine * e[i], norm = sqrt(f * f + g * g);
                e[i + 1] = norm;
                if (norm == 0) {
                    d[i + 1] -= shift;
                    e[m] = 0;
                    split = true;
                    break;
                }
                sine = f / norm;
                cosine = g / norm;
                g = d[i + 1] - shift;
                double t = (d[i] - g) * sine + 2 * cosine * b;
                shift = sine * t;
                d[i + 1] = g + shift;
                g = cosine * t - b;
                double low = z[i], high = z[i + 1];
                z[i] = cosine * low - sine * high;
                z[i + 1] = sine * low + cosine * high;
            }
            if (!split) {
                d[l] -= shift;
                e[l] = g;
                e[m] = 0;
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(32)
rules(const float *__restrict__ alphas, const float *__restrict__ betas, const double *__restrict__ exact, int r,
      int steps, int members, double *__restrict__ nodes) {
    int job = blockIdx.x * 32 + threadIdx.x;
    if (job >= members * PROBES * RULES) return;
    int vector = job / RULES, rule = job % RULES, k = rule < 2 ? steps : steps / 2;
    double scale = 1 / exact[2 * (vector / PROBES)];
    double d[MAX_STEPS], e[MAX_STEPS], z[MAX_STEPS];
    for (int i = 0; i < k; i++) {
        d[i] = alphas[(i64)vector * steps + i] * scale;
        e[i] = betas[(i64)vector * steps + i] * scale;
        z[i] = i == 0;
    }
    if (rule & 1) put_node_at_zero(d, e, k);
    diagonalize(d, e, z, k);
    nodes += (i64)job * steps * 2;
    for (int i = 0; i < k; i++) {
        nodes[2 * i] = fmax(d[i], 0.0);
        nodes[2 * i + 1] = r * z[i] * z[i];
    }
}
