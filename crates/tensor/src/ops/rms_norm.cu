// y = w n with n = x / rms(x), y in elem; and the addition of a branch to the stream x before it. The stream is f32 or,
// with "_low", in elem. A warp has a row at a time; a lane has W columns of every 32 * W. Rows of up to BATCH such
// pieces stay in registers between the two passes over them (HELD).
#include "common.cuh"

constexpr int BATCH = 4;

// Whether n is kept for the backward pass, in elem, because it takes less than x; else x is.
template <typename Stream> constexpr bool KEEPS_N = sizeof(Stream) > sizeof(elem);

template <int W, bool HELD, typename Stream>
DEVICE void forward(elem *__restrict__ y, elem *__restrict__ kept, float *__restrict__ inverse, Stream *sum,
                    const Stream *__restrict__ x, const elem *__restrict__ branch, float m,
                    const float *__restrict__ weight, float eps, i64 rows, int width) {
    constexpr int STEP = 32 * W;
    i64 row = (i64)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    x += row * width;
    y += row * width;
    if (kept) kept += row * width;
    if (branch) sum += row * width, branch += row * width;
    float v[BATCH][W], squares = 0;
    int base = threadIdx.x * W;
    do {
        load_batch(x, base, width, v);
        if (branch) {
            float b[BATCH][W];
            load_batch(branch, base, width, b);
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
#pragma unroll
                for (int i = 0; i < W; i++) v[k][i] = load(store_as<Stream>(fmaf(m, b[k][i], v[k][i])));
                if (base + k * STEP < width) store_many<W>(sum + base + k * STEP, v[k]);
            }
        }
#pragma unroll
        for (int k = 0; k < BATCH; k++)
#pragma unroll
            for (int i = 0; i < W; i++) squares = fmaf(v[k][i], v[k][i], squares);
        base += BATCH * STEP;
    } while (!HELD && base < width);
    float r = 1.0f / sqrtf(warp_sum(squares) / (float)width + eps);
    if (threadIdx.x == 0) inverse[row] = r;
    base = threadIdx.x * W;
    do {
        float w[BATCH][W];
        if (!HELD) load_batch(branch ? sum : x, base, width, v);
        load_batch(weight, base, width, w);
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            int at = base + k * STEP;
            if (at >= width) continue;
#pragma unroll
            for (int i = 0; i < W; i++) v[k][i] *= r;
            if constexpr (KEEPS_N<Stream>) {
                // Rounded before the weight multiplies it, so that y can be made again from what is kept.
#pragma unroll
                for (int i = 0; i < W; i++) v[k][i] = load(store(v[k][i]));
                if (kept) store_many<W>(kept + at, v[k]);
            }
#pragma unroll
            for (int i = 0; i < W; i++) v[k][i] *= w[k][i];
            store_many<W>(y + at, v[k]);
        }
        base += BATCH * STEP;
    } while (!HELD && base < width);
}

template <typename Stream>
DEVICE void forward_rows(elem *y, elem *kept, float *inverse, Stream *sum, const Stream *x, const elem *branch, float m,
                         const float *weight, float eps, i64 rows, int width, int vec) {
    if (vec && width <= BATCH * 32 * VEC) {
        forward<VEC, true>(y, kept, inverse, sum, x, branch, m, weight, eps, rows, width);
    } else if (vec) {
        forward<VEC, false>(y, kept, inverse, sum, x, branch, m, weight, eps, rows, width);
    } else {
        forward<1, false>(y, kept, inverse, sum, x, branch, m, weight, eps, rows, width);
    }
}

// Where the gradients go; dbranch, and again (y once more, maybe in the place of dy), only where they are not null.
template <typename Stream> struct Gradients {
    Stream *dx;
    int add; // whether dx holds a gradient already
    elem *dbranch;
    int add_branch;
    float m;
    elem *again;
};

template <int W, bool HELD, typename Stream>
DEVICE void backward(Gradients<Stream> to, float *__restrict__ partial, const elem *dy,
                     const float *__restrict__ inverse, const elem *__restrict__ kept,
                     const float *__restrict__ weight, i64 rows, int width, float *shared) {
    constexpr int STEP = 32 * W;
    // This warp's sum for the weight's gradient, in registers or in shared memory; a lane touches its own columns only.
    float held[BATCH][W];
#pragma unroll
    for (int k = 0; k < BATCH; k++)
#pragma unroll
        for (int i = 0; i < W; i++) held[k][i] = 0;
    float *dw = shared + threadIdx.y * width;
    for (int c = threadIdx.x * W; !HELD && c < width; c += STEP) store_many<W>(dw + c, held[0]);
    for (i64 row = (i64)blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += (i64)gridDim.x * blockDim.y) {
        const elem *dy_row = dy + row * width, *kept_row = kept + row * width;
        Stream *dx_row = to.dx + row * width;
        Packed<W> d[BATCH], n[BATCH];
        float old[BATCH][W], r = inverse[row], factor = KEEPS_N<Stream> ? 1.0f : r, dot = 0;
        int base = threadIdx.x * W;
        do {
            read_batch(dy_row, base, width, d);
            read_batch(kept_row, base, width, n);
            if (HELD) load_batch(dx_row, base, to.add ? width : 0, old);
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                int at = base + k * STEP;
                if (at >= width) continue;
                float a[W], b[W], w[W];
                d[k].unpack(a);
                n[k].unpack(b);
                load_many<W>(weight + at, w);
                if (!HELD) load_many<W>(dw + at, held[k]);
#pragma unroll
                for (int i = 0; i < W; i++) {
                    float product = a[i] * (b[i] * factor);
                    held[k][i] += product;
                    dot = fmaf(product, w[i], dot);
                }
                if (!HELD) store_many<W>(dw + at, held[k]);
            }
            base += BATCH * STEP;
        } while (!HELD && base < width);
        dot = warp_sum(dot) / (float)width;
        base = threadIdx.x * W;
        do {
            if (!HELD) {
                read_batch(dy_row, base, width, d);
                read_batch(kept_row, base, width, n);
                load_batch(dx_row, base, to.add ? width : 0, old);
            }
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                int at = base + k * STEP;
                if (at >= width) continue;
                float a[W], b[W], w[W];
                d[k].unpack(a);
                n[k].unpack(b);
                load_many<W>(weight + at, w);
#pragma unroll
                for (int i = 0; i < W; i++) b[i] *= factor;
#pragma unroll
                for (int i = 0; i < W; i++) old[k][i] += r * (w[i] * a[i] - b[i] * dot);
                store_many<W>(dx_row + at, old[k]);
                if (to.again) {
#pragma unroll
                    for (int i = 0; i < W; i++) b[i] *= w[i];
                    store_many<W>(to.again + row * width + at, b);
                }
                if (!to.dbranch) continue;
#pragma unroll
                for (int i = 0; i < W; i++) a[i] = 0;
                if (to.add_branch) load_many<W>(to.dbranch + row * width + at, a);
#pragma unroll
                for (int i = 0; i < W; i++) a[i] = fmaf(to.m, old[k][i], a[i]);
                store_many<W>(to.dbranch + row * width + at, a);
            }
            base += BATCH * STEP;
        } while (!HELD && base < width);
    }
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
        int at = threadIdx.x * W + k * STEP;
        if (HELD && at < width) store_many<W>(dw + at, held[k]);
    }
    __syncthreads();
    for (int c = threadIdx.y * 32 + threadIdx.x; c < width; c += 32 * blockDim.y) {
        float sum = 0;
        for (int w = 0; w < blockDim.y; w++) sum += shared[w * width + c];
        partial[(i64)blockIdx.x * width + c] = sum;
    }
}

template <typename Stream>
DEVICE void backward_rows(const Gradients<Stream> &to, float *partial, const elem *dy, const float *inverse,
                          const elem *kept, const float *weight, i64 rows, int width, int vec) {
    extern __shared__ float4 shared[];
    float *sums = reinterpret_cast<float *>(shared);
    if (vec && width <= BATCH * 32 * VEC) {
        backward<VEC, true>(to, partial, dy, inverse, kept, weight, rows, width, sums);
    } else if (vec) {
        backward<VEC, false>(to, partial, dy, inverse, kept, weight, rows, width, sums);
    } else {
        backward<1, false>(to, partial, dy, inverse, kept, weight, rows, width, sums);
    }
}

// rms_norm_forward: sum = x + m branch where there is a branch, else x itself; kept = n where it is kept and there is a
// place for it, inverse = 1 / rms.
// rms_norm_backward: dx = (dx or 0) + r (w dy - n mean(w dy n)), dbranch = (dbranch or 0) + m dx, again = w n;
// partial[block] = this block's share of the weight's gradient, the sum over rows of dy n. kept is n or x.
#define KERNELS(NAME, Stream)                                                                                          \
    extern "C" __global__ void __launch_bounds__(256) rms_norm_forward##NAME(                                          \
        elem *y, elem *kept, float *inverse, Stream *sum, const Stream *x, const elem *branch, float m,                \
        const float *weight, float eps, i64 rows, int width, int vec) {                                                \
        forward_rows(y, kept, inverse, sum, x, branch, m, weight, eps, rows, width, vec);                              \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256, 2) rms_norm_backward##NAME(                                      \
        Stream *dx, int add, elem *dbranch, int add_branch, float m, elem *again, float *partial, const elem *dy,      \
        const float *inverse, const elem *kept, const float *weight, i64 rows, int width, int vec) {                   \
        Gradients<Stream> to = {dx, add, dbranch, add_branch, m, again};                                               \
        backward_rows(to, partial, dy, inverse, kept, weight, rows, width, vec);                                       \
    }
KERNELS(, float)
#ifdef ELEM_BF16
KERNELS(_low, elem)
#endif
