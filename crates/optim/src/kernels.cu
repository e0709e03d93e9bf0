// The element-wise parts of the optimizers. Buffers and moments are f32 or bf16; an update is `elem`; weights are f32 or
// bf16, gradients of the same type. What changes from step to step comes from `scalars` in the device's memory, so that a
// captured step can be launched again.
#include "common.cuh"

#define EACH(i, n) for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x)

// ---- Passes over long arrays: an operation has at<W>(i), which does all there is to do to W elements from i on ----

template <int W, typename Op> DEVICE void sweep(Op &op, i64 from, i64 to) {
    i64 first = from + (blockIdx.x * (i64)blockDim.x + threadIdx.x) * W;
    for (i64 i = first; i < to; i += (i64)gridDim.x * blockDim.x * W) op.template at<W>(i);
}

// All n elements: W at a time where vec says that the arrays are aligned to so many.
template <int W = 4, typename Op> DEVICE void pass(Op &op, i64 n, int vec) {
    i64 whole = vec ? n / W * W : 0;
    sweep<W>(op, 0, whole);
    sweep<1>(op, whole, n);
}

// ---- Rounding at random, as in rounding.rs ----

// The finaliser of SplitMix64, as in random.rs.
DEVICE u64 mixed(u64 z) {
    z += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// Number i of a stream.
DEVICE u64 drawn(u64 stream, u64 i) { return mixed(stream + i * 0x9e3779b97f4a7c15ull); }

// The stream of the member that the block works on; 0 where nothing is rounded at random.
DEVICE u64 own_stream(const u64 *streams) { return streams ? streams[blockIdx.y] : 0; }

// One of the two bf16 that enclose x, by 16 random bits; NaN stays.
DEVICE float stochastic(float x, u32 random) {
    return x != x ? x : __uint_as_float((__float_as_uint(x) + random) & 0xffff0000u);
}

// Entries i to i + W - 1 of part `part` of a weight's state, as it is kept: f32 as it is, bf16 rounded at random.
template <int W> DEVICE void keep_part(float *to, i64 i, const float (&x)[W], u64, int) { store_many<W>(to + i, x); }

template <int W> DEVICE void keep_part(bf16 *to, i64 i, const float (&x)[W], u64 stream, int part) {
    static_assert(W == 1 || W == 4, "where W is four, i is a multiple of it");
    u64 bits = drawn(stream, ((u64)part << 40) + ((u64)i >> 2)) >> (W == 1 ? 16 * (i & 3) : 0);
    u32 y[W];
#pragma unroll
    for (int j = 0; j < W; j++) y[j] = __float_as_uint(stochastic(x[j], (u32)(bits >> 16 * j) & 0xffffu));
    if constexpr (W == 1) {
        to[i].bits = (u16)(y[0] >> 16);
    } else {
        // Of two words the upper halves.
        *reinterpret_cast<uint2 *>(to + i) = make_uint2(__byte_perm(y[0], y[1], 0x7632), __byte_perm(y[2], y[3], 0x7632));
    }
}

struct Keep {
    const float *x;
    bf16 *to;
    u64 stream;
    int part;

    template <int W> __device__ __forceinline__ void at(i64 i) {
        float value[W];
        load_many<W>(x + i, value);
        keep_part(to, i, value, stream, part);
    }
};

// x rounded into a part of the state. Grid (parts, members).
extern "C" __global__ void __launch_bounds__(256)
keep_state(const float *x, bf16 *to, const u64 *streams, int part, int vec, i64 size) {
    i64 at = blockIdx.y * size;
    Keep op = {x + at, to + at, own_stream(streams), part};
    pass(op, size, vec);
}

// ---- Momentum ----

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

// The momentum pass: m = decay m + weight gate(g), and where x is kept, what is orthogonalised, with its sum of squares:
// m, or with Nesterov weight gate(g) + keep m (`lead` is the weight, else 0); with self_gate that times its sigmoid.
template <typename M, typename G> struct Momentum {
    M *m;
    u64 stream;
    const G *g;
    elem *x;
    float decay, weight, keep, lead;
    int gate, self_gate;
    double squares;

    template <int W> __device__ __forceinline__ void at(i64 i) {
        float gradient[W], buffer[W], out[W];
        load_many<W>(g + i, gradient);
        load_many<W>(m + i, buffer);
#pragma unroll
        for (int j = 0; j < W; j++) {
            float entering = gated(gradient[j], gate);
            buffer[j] = decay * buffer[j] + weight * entering;
            float value = lead == 0.0f ? buffer[j] : lead * entering + keep * buffer[j];
            out[j] = self_gate ? value * sigmoid_of(value) : value;
        }
        keep_part(m, i, buffer, stream, 1);
        if (!x) return;
        store_many<W>(x + i, out);
#pragma unroll
        for (int j = 0; j < W; j++) squares += (double)out[j] * out[j];
    }
};

extern "C" __global__ void __launch_bounds__(256)
momentum(float *m, const elem *g, float decay, float weight, int gate, int vec, i64 n) {
    Momentum<float, elem> op = {m, 0, g, nullptr, decay, weight, 0.0f, 0.0f, gate, 0, 0.0};
    pass(op, n, vec);
}

// The same for members of `size` elements, with x and the sums of squares [members, parts] of the parts of each member, in
// double: neither 1e-30 nor 1e+30 leaves its range. Grid (parts, members).
template <typename M, typename G>
DEVICE void take_momentum(M *m, const u64 *streams, const G *g, elem *x, double *sums, float decay, float weight,
                          float keep, float lead, int gate, int self_gate, int vec, i64 size) {
    i64 at = blockIdx.y * size;
    Momentum<M, G> op = {m + at, own_stream(streams), g + at, x + at, decay, weight, keep, lead, gate, self_gate, 0.0};
    pass(op, size, vec);
    double sum = block_sum_double(op.squares);
    if (threadIdx.x == 0) sums[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

#define MOMENTUM_TAKEN(NAME, M, G)                                                                                    \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
    NAME(M *m, const u64 *streams, const G *g, elem *x, double *sums, float decay, float weight, float keep,          \
         float lead, int gate, int self_gate, int vec, i64 size) {                                                    \
        take_momentum(m, streams, g, x, sums, decay, weight, keep, lead, gate, self_gate, vec, size);                 \
    }
MOMENTUM_TAKEN(momentum_taken_f32_f32, float, float)
MOMENTUM_TAKEN(momentum_taken_f32_bf16, float, bf16)
MOMENTUM_TAKEN(momentum_taken_bf16_f32, bf16, float)
MOMENTUM_TAKEN(momentum_taken_bf16_bf16, bf16, bf16)

extern "C" __global__ void axpby(float *y, float a, const float *x, float b, i64 n) {
    EACH(i, n) y[i] = a * y[i] + b * x[i];
}

// x *= *a; nothing is read where that is 1.
extern "C" __global__ void scale(elem *x, const float *a, i64 n) {
    float factor = *a;
    if (factor == 1.0f) return;
    EACH(i, n) x[i] = store(load(x[i]) * factor);
}

// What is orthogonalised: the buffer, or with Nesterov the gradient plus the decayed buffer; then x sigmoid(x).
extern "C" __global__ void compose(float *x, const float *m, const elem *g, float keep, float weight, int gate,
                                   int self_gate, i64 n) {
    EACH(i, n) {
        float value = weight == 0.0f ? m[i] : weight * gated(load(g[i]), gate) + keep * m[i];
        x[i] = self_gate ? value * sigmoid_of(value) : value;
    }
}

// Scales the buffer where the gradient exceeds its member's threshold. Grid (parts, members).
extern "C" __global__ void scale_above(float *m, const elem *g, const float *thresholds, float factor, i64 size) {
    float threshold = thresholds[blockIdx.y];
    m += blockIdx.y * size, g += blockIdx.y * size;
    EACH(i, size) if (fabsf(load(g[i])) > threshold) m[i] *= factor;
}

// ---- Weights of record ----

// Rounding of weights: 0 keeps f32, 1 rounds to the nearest bf16, 2 to one of the two neighbours at random.
DEVICE float rounded(float x, int rounding, u64 stream, i64 i) {
    if (rounding == 0) return x;
    if (rounding == 1) return load(round_bf16(x));
    return stochastic(x, (u32)(drawn(stream, i) >> 48));
}

struct Change {
    float asked, moved, same, weight;
};

// Moves weights by `delta`, to what their type can hold, and takes down what became of them: those of the member that the
// block works on, or of a whole bank where nothing is rounded at random.
template <typename T> struct Weights {
    T *w;
    bf16 *copy;
    int rounding;
    u64 stream;
    Change change;

    template <int W> __device__ __forceinline__ void commit(i64 i, float (&w_old)[W], const float (&delta)[W]) {
        float now[W];
#pragma unroll
        for (int j = 0; j < W; j++) {
            now[j] = rounded(w_old[j] + delta[j], rounding, stream, i + j);
            float moved = now[j] - w_old[j];
            change.asked += delta[j] * delta[j];
            change.moved += moved * moved;
            change.same += moved == 0.0f ? 1.0f : 0.0f;
            change.weight += now[j] * now[j];
        }
        store_many<W>(w + i, now);
        if (copy) store_many<W>(copy + i, now);
    }

    // Four sums for each block.
    __device__ __forceinline__ void put(float *stats) {
        if (!stats) return;
        float sums[4] = {change.asked, change.moved, change.same, change.weight};
        for (int k = 0; k < 4; k++) {
            float sum = block_sum(sums[k]);
            if (threadIdx.x == 0) stats[4 * (blockIdx.y * gridDim.x + blockIdx.x) + k] = sum;
        }
    }
};

template <typename T> DEVICE Weights<T> weights_of(T *w, bf16 *copy, int rounding, const u64 *streams, i64 size) {
    i64 at = blockIdx.y * size;
    return {w + at, copy ? copy + at : nullptr, rounding, own_stream(streams), {}};
}

// w <- w - decay w + factor update
template <typename T> struct Apply {
    Weights<T> weights;
    const elem *update;
    float decay, factor;

    template <int W> __device__ __forceinline__ void at(i64 i) {
        float old[W], delta[W];
        load_many<W>(update + i, delta);
        load_many<W>(weights.w + i, old);
#pragma unroll
        for (int j = 0; j < W; j++) delta[j] = factor * delta[j] - decay * old[j];
        weights.commit(i, old, delta);
    }
};

// scalars: decay, rate. Grid (parts, members).
template <typename T>
DEVICE void apply(T *w, bf16 *copy, const elem *update, const float *scalars, float factor, int rounding,
                  const u64 *streams, float *stats, int vec, i64 size) {
    Weights<T> weights = weights_of(w, copy, rounding, streams, size);
    Apply<T> op = {weights, update + blockIdx.y * size, scalars[0], -scalars[1] * factor};
    pass(op, size, vec);
    op.weights.put(stats);
}

extern "C" __global__ void __launch_bounds__(256)
apply_f32(float *w, bf16 *copy, const elem *update, const float *scalars, float factor, int rounding,
          const u64 *streams, float *stats, int vec, i64 size) {
    apply(w, copy, update, scalars, factor, rounding, streams, stats, vec, size);
}

extern "C" __global__ void __launch_bounds__(256)
apply_bf16(bf16 *w, bf16 *copy, const elem *update, const float *scalars, float factor, int rounding,
           const u64 *streams, float *stats, int vec, i64 size) {
    apply(w, copy, update, scalars, factor, rounding, streams, stats, vec, size);
}

// The four sums over all blocks. One block of 1024 threads.
extern "C" __global__ void __launch_bounds__(1024) total_change(const float4 *stats, float *total, int blocks) {
    double sums[4] = {};
#pragma unroll 4
    for (int i = threadIdx.x; i < blocks; i += blockDim.x) {
        float4 of_block = stats[i];
        sums[0] += of_block.x, sums[1] += of_block.y, sums[2] += of_block.z, sums[3] += of_block.w;
    }
    for (int k = 0; k < 4; k++) {
        double sum = block_sum_double(sums[k]);
        if (threadIdx.x == 0) total[k] = (float)sum;
    }
}

// Moments are of type `elem`.
template <typename T> struct AdamW {
    Weights<T> weights;
    const T *g;
    elem *m, *v;
    float b1, b2, eps, decay, rate, root;

    template <int W> __device__ __forceinline__ void at(i64 i) {
        float old[W], gradient[W], first[W], second[W], delta[W];
        load_many<W>(g + i, gradient);
        load_many<W>(m + i, first);
        load_many<W>(v + i, second);
        load_many<W>(weights.w + i, old);
#pragma unroll
        for (int j = 0; j < W; j++) {
            first[j] = b1 * first[j] + (1.0f - b1) * gradient[j];
            second[j] = b2 * second[j] + (1.0f - b2) * gradient[j] * gradient[j];
            delta[j] = -decay * old[j] - rate * first[j] / (sqrtf(second[j]) * root + eps);
        }
        keep_part(m, i, first, weights.stream, 1);
        keep_part(v, i, second, weights.stream, 2);
        weights.commit(i, old, delta);
    }
};

// scalars: rate times decay, rate / (1 - b1^t), 1 / sqrt(1 - b2^t). Grid (parts, members).
template <typename T>
DEVICE void adamw(T *w, bf16 *copy, const T *g, elem *m, elem *v, const float *scalars, float b1, float b2, float eps,
                  int rounding, const u64 *streams, float *stats, int vec, i64 size) {
    i64 at = blockIdx.y * size;
    Weights<T> weights = weights_of(w, copy, rounding, streams, size);
    AdamW<T> op = {weights, g + at, m + at, v + at, b1, b2, eps, scalars[0], scalars[1], scalars[2]};
    pass(op, size, vec);
    op.weights.put(stats);
}

extern "C" __global__ void __launch_bounds__(256)
adamw_f32(float *w, bf16 *copy, const float *g, elem *m, elem *v, const float *scalars, float b1, float b2, float eps,
          int rounding, const u64 *streams, float *stats, int vec, i64 size) {
    adamw(w, copy, g, m, v, scalars, b1, b2, eps, rounding, streams, stats, vec, size);
}

extern "C" __global__ void __launch_bounds__(256)
adamw_bf16(bf16 *w, bf16 *copy, const bf16 *g, elem *m, elem *v, const float *scalars, float b1, float b2, float eps,
           int rounding, const u64 *streams, float *stats, int vec, i64 size) {
    adamw(w, copy, g, m, v, scalars, b1, b2, eps, rounding, streams, stats, vec, size);
}

// ---- Norms ----

struct Squares {
    const elem *x;
    double sum;

    template <int W> __device__ __forceinline__ void at(i64 i) {
        float value[W];
        load_many<W>(x + i, value);
#pragma unroll
        for (int j = 0; j < W; j++) sum += (double)value[j] * value[j];
    }
};

// Sum of squares of what each block reads, 16 bytes at a time, in double. Grid (parts, members).
extern "C" __global__ void __launch_bounds__(256) partial_squares(const elem *x, double *partial, int vec, i64 size) {
    Squares op = {x + blockIdx.y * size, 0.0};
    pass<VEC>(op, size, vec);
    double sum = block_sum_double(op.sum);
    if (threadIdx.x == 0) partial[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// The sum of each member's parts, as a float and a power of two. One block a member.
extern "C" __global__ void __launch_bounds__(256) total_squares(const double *partial, float *total, int parts) {
    partial += blockIdx.x * (i64)parts;
    double sum = 0.0;
    for (int i = threadIdx.x; i < parts; i += blockDim.x) sum += partial[i];
    sum = block_sum_double(sum);
    if (threadIdx.x) return;
    int exponent = 0;
    double mantissa = frexp(sum, &exponent);
    total[2 * blockIdx.x] = (float)mantissa;
    total[2 * blockIdx.x + 1] = (float)exponent;
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
