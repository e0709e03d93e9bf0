// The element-wise parts of the optimizers. One thread takes elements a whole grid apart. Gradients, buffers and
// moments are f32; an update is `elem`; weights are f32 or bf16.
#include "common.cuh"

#define EACH(i, n) for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x)

DEVICE float sigmoid_of(float x) { return 1.0f / (1.0f + expf(-x)); }

// 0: none, 1: tanh(g) |g|, 2: sigmoid(g) g, 3: max(g, 0).
DEVICE float gated(float g, int gate) {
    switch (gate) {
    case 1: return tanhf(g) * fabsf(g);
    case 2: return sigmoid_of(g) * g;
    case 3: return fmaxf(g, 0.0f);
    default: return g;
    }
}

extern "C" __global__ void axpby(float *y, float a, const float *x, float b, i64 n) {
    EACH(i, n) y[i] = a * y[i] + b * x[i];
}

extern "C" __global__ void scale(float *x, float a, i64 n) {
    EACH(i, n) x[i] *= a;
}

extern "C" __global__ void momentum(float *m, const float *g, float decay, float weight, int gate, i64 n) {
    EACH(i, n) m[i] = decay * m[i] + weight * gated(g[i], gate);
}

// What is orthogonalised: the buffer, or with Nesterov the gradient plus the decayed buffer; then x sigmoid(x).
extern "C" __global__ void compose(float *x, const float *m, const float *g, float keep, float weight, int gate,
                                   int self_gate, i64 n) {
    EACH(i, n) {
        float value = weight == 0.0f ? m[i] : weight * gated(g[i], gate) + keep * m[i];
        x[i] = self_gate ? value * sigmoid_of(value) : value;
    }
}

// Scales the buffer where the gradient exceeds its member's threshold. Grid (parts, members).
extern "C" __global__ void scale_above(float *m, const float *g, const float *thresholds, float factor, i64 size) {
    float threshold = thresholds[blockIdx.y];
    m += blockIdx.y * size, g += blockIdx.y * size;
    EACH(i, size) if (fabsf(g[i]) > threshold) m[i] *= factor;
}

// ---- Weights of record ----

// The finaliser of SplitMix64, as in random.rs.
DEVICE u64 mixed(u64 z) {
    z += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// Rounding of weights: 0 keeps f32, 1 rounds to the nearest bf16, 2 to one of the two neighbours at random.
DEVICE float rounded(float x, int rounding, u64 stream, i64 i) {
    if (rounding == 0) return x;
    if (rounding == 1) return load(round_bf16(x));
    u32 random = (u32)(mixed(stream + (u64)i * 0x9e3779b97f4a7c15ull) >> 48);
    return __uint_as_float((__float_as_uint(x) + random) & 0xffff0000u);
}

struct Change {
    float asked, moved, same, weight;
};

// Moves one weight by `delta`, to what its type can hold, and takes down what became of it.
template <typename W>
DEVICE void commit(W *w, bf16 *copy, i64 i, float old, float delta, int rounding, u64 stream, Change &change) {
    float now = rounded(old + delta, rounding, stream, i);
    w[i] = store_as<W>(now);
    if (copy) copy[i] = round_bf16(now);
    float moved = now - old;
    change.asked += delta * delta;
    change.moved += moved * moved;
    change.same += moved == 0.0f ? 1.0f : 0.0f;
    change.weight += now * now;
}

// Four sums for each block.
DEVICE void put(float *stats, const Change &change) {
    if (!stats) return;
    float sums[4] = {change.asked, change.moved, change.same, change.weight};
    for (int k = 0; k < 4; k++) {
        float sum = block_sum(sums[k]);
        if (threadIdx.x == 0) stats[4 * blockIdx.x + k] = sum;
        __syncthreads();
    }
}

template <typename W>
DEVICE void apply(W *w, bf16 *copy, const elem *update, float decay, float factor, int rounding, u64 stream,
                  float *stats, i64 n) {
    Change change = {};
    EACH(i, n) {
        float old = load(w[i]);
        commit(w, copy, i, old, factor * load(update[i]) - decay * old, rounding, stream, change);
    }
    put(stats, change);
}

extern "C" __global__ void apply_f32(float *w, bf16 *copy, const elem *update, float decay, float factor,
                                     int rounding, u64 stream, float *stats, i64 n) {
    apply(w, copy, update, decay, factor, rounding, stream, stats, n);
}

extern "C" __global__ void apply_bf16(bf16 *w, bf16 *copy, const elem *update, float decay, float factor,
                                      int rounding, u64 stream, float *stats, i64 n) {
    apply(w, copy, update, decay, factor, rounding, stream, stats, n);
}

template <typename W>
DEVICE void adamw(W *w, bf16 *copy, const float *g, float *m, float *v, float b1, float b2, float eps, float decay,
                  float rate, float root, int rounding, u64 stream, float *stats, i64 n) {
    Change change = {};
    EACH(i, n) {
        float first = m[i] = b1 * m[i] + (1.0f - b1) * g[i];
        float second = v[i] = b2 * v[i] + (1.0f - b2) * g[i] * g[i];
        float old = load(w[i]);
        float delta = -decay * old - rate * first / (sqrtf(second) * root + eps);
        commit(w, copy, i, old, delta, rounding, stream, change);
    }
    put(stats, change);
}

extern "C" __global__ void adamw_f32(float *w, bf16 *copy, const float *g, float *m, float *v, float b1, float b2,
                                     float eps, float decay, float rate, float root, int rounding, u64 stream,
                                     float *stats, i64 n) {
    adamw(w, copy, g, m, v, b1, b2, eps, decay, rate, root, rounding, stream, stats, n);
}

extern "C" __global__ void adamw_bf16(bf16 *w, bf16 *copy, const float *g, float *m, float *v, float b1, float b2,
                                      float eps, float decay, float rate, float root, int rounding, u64 stream,
                                      float *stats, i64 n) {
    adamw(w, copy, g, m, v, b1, b2, eps, decay, rate, root, rounding, stream, stats, n);
}

// ---- Norms ----

// Sum of squares of what each block reads, in f64, as a float and a power of two. Grid (parts, members).
extern "C" __global__ void partial_squares(const float *x, float *partial, i64 size) {
    x += blockIdx.y * size;
    double sum = 0.0;
    EACH(i, size) sum += (double)x[i] * x[i];
    __shared__ double lanes[32];
    for (int d = 16; d; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
    if (threadIdx.x % 32 == 0) lanes[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x) return;
    double total = 0.0;
    for (int i = 0; i < blockDim.x / 32; i++) total += lanes[i];
    int exponent = 0;
    double mantissa = frexp(total, &exponent);
    partial += 2 * (blockIdx.y * gridDim.x + blockIdx.x);
    partial[0] = (float)mantissa;
    partial[1] = (float)exponent;
}

// ---- Neurons (NorMuon): lines along the in axis of matrices ----

// One block a line: line l of member k begins at k size + l line_step, its elements are step apart. Renews the mean
// square of the line and leaves its factor 1 / (sqrt(mean) + eps) and the square norm it will have.
extern "C" __global__ void neuron_moments(const elem *x, float *moments, float *factors, float *squares, i64 size,
                                          int lines, int length, i64 line_step, i64 step, float beta, float eps) {
    i64 line = blockIdx.x % lines, member = blockIdx.x / lines;
    x += member * size + line * line_step;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < length; i += blockDim.x) {
        float value = load(x[i * step]);
        sum += value * value;
    }
    sum = block_sum(sum);
    if (threadIdx.x) return;
    float moment = moments[blockIdx.x] = beta * moments[blockIdx.x] + (1.0f - beta) * sum / length;
    float factor = factors[blockIdx.x] = 1.0f / (sqrtf(moment) + eps);
    squares[blockIdx.x] = sum * factor * factor;
}

// Scales every line by its factor, and the whole member to norm `target`. Grid (parts, members).
extern "C" __global__ void neuron_scale(elem *x, const float *factors, const float *squares, i64 size, int lines,
                                        i64 line_step, i64 line_period, float target) {
    squares += blockIdx.y * (i64)lines, factors += blockIdx.y * (i64)lines, x += blockIdx.y * size;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < lines; i += blockDim.x) sum += squares[i];
    __shared__ float whole;
    sum = block_sum(sum);
    if (threadIdx.x == 0) whole = sum > 0.0f ? target / sqrtf(sum) : 0.0f;
    __syncthreads();
    EACH(i, size) x[i] = store(load(x[i]) * factors[i % line_period / line_step] * whole);
}
