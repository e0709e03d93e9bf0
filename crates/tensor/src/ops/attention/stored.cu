// What attention needs besides matrix products: heads gathered and put back, rotated on the way; the causal softmax
// and its gradient.
#include "common.cuh"

template <int W, typename T> DEVICE void load_some(const T *p, float (&x)[W]) {
    if constexpr (W == Vec<T>::N) {
        load_vec(p, x);
    } else if constexpr (W == 4) { // 4 bf16
        uint2 v = *reinterpret_cast<const uint2 *>(p);
        x[0] = __uint_as_float(v.x << 16), x[1] = __uint_as_float(v.x & 0xffff0000u);
        x[2] = __uint_as_float(v.y << 16), x[3] = __uint_as_float(v.y & 0xffff0000u);
    } else {
        static_assert(W == 1, "one element, four, or 16 bytes");
        x[0] = load(*p);
    }
}

template <int W, typename T> DEVICE void store_some(T *p, const float (&x)[W]) {
    if constexpr (W == Vec<T>::N) {
        store_vec(p, x);
    } else if constexpr (W == 4) {
        *reinterpret_cast<uint2 *>(p) = make_uint2(round_bf16x2(x[0], x[1]), round_bf16x2(x[2], x[3]));
    } else {
        static_assert(W == 1, "one element, four, or 16 bytes");
        *p = store_as<T>(x[0]);
    }
}

// From heads in [B T, stride] to [B, heads, T, dim] (`gather`) or back. With tables [T, dim / 2], pairs (j, j + dim /
// 2) turn by their angle, `turn` = 1, or back, -1. A thread has W columns, or W pairs.
template <int W>
DEVICE void move_heads(elem *in_rows, elem *apart, const float *cos, const float *sin, i64 rows, i64 stride, int len,
                       int heads, int dim, int gather, float turn) {
    int span = cos ? dim / 2 : dim, units = span / W;
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * heads * units) return;
    int j = (int)(i % units) * W, head = (int)(i / units % heads);
    i64 row = i / units / heads, sequence = row / len, t = row % len;
    in_rows += row * stride + head * dim + j;
    apart += ((sequence * heads + head) * len + t) * dim + j;
    const elem *source = gather ? in_rows : apart;
    elem *target = gather ? apart : in_rows;
    float a[W];
    load_some(source, a);
    if (cos) {
        float b[W];
        load_some(source + span, b);
#pragma unroll
        for (int k = 0; k < W; k++) {
            float c = cos[t * span + j + k], s = turn * sin[t * span + j + k];
            float x = a[k], y = b[k];
            a[k] = x * c - y * s;
            b[k] = y * c + x * s;
        }
        store_some(target + span, b);
    }
    store_some(target, a);
}

extern "C" __global__ void attention_heads(elem *in_rows, elem *apart, const float *cos, const float *sin, i64 rows,
                                           i64 stride, int len, int heads, int dim, int gather, float turn) {
    move_heads<1>(in_rows, apart, cos, sin, rows, stride, len, heads, dim, gather, turn);
}

// The same for 16-byte pointers and a head's (half) width of whole 16 bytes.
extern "C" __global__ void attention_heads_vec(elem *in_rows, elem *apart, const float *cos, const float *sin, i64 rows,
                                               i64 stride, int len, int heads, int dim, int gather, float turn) {
    move_heads<VEC>(in_rows, apart, cos, sin, rows, stride, len, heads, dim, gather, turn);
}

// p = softmax of the first t + 1 scores of each row, t = row % len, zeros after them. A warp a row, W columns at once.
template <int W> DEVICE void softmax(elem *p, const float *scores, i64 rows, int len) {
    i64 row = (i64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return; // the whole warp
    int seen = (int)(row % len) + 1, first = threadIdx.x % 32 * W;
    scores += row * len;
    p += row * len;
    float most = Max::empty();
    for (int c = first; c < seen; c += 32 * W) {
        float x[W];
        load_some(scores + c, x);
#pragma unroll
        for (int k = 0; k < W; k++)
            if (c + k < seen) most = fmaxf(most, x[k]);
    }
    most = warp_max(most);
    float sum = 0.0f;
    for (int c = first; c < seen; c += 32 * W) {
        float x[W];
        load_some(scores + c, x);
#pragma unroll
        for (int k = 0; k < W; k++)
            if (c + k < seen) sum += expf(x[k] - most);
    }
    sum = warp_sum(sum);
    for (int c = first; c < len; c += 32 * W) {
        float x[W] = {};
        if (c < seen) load_some(scores + c, x);
#pragma unroll
        for (int k = 0; k < W; k++) x[k] = c + k < seen ? expf(x[k] - most) / sum : 0.0f;
        store_some(p + c, x);
    }
}

extern "C" __global__ void attention_softmax(elem *p, const float *scores, i64 rows, int len) {
    softmax<1>(p, scores, rows, len);
}

// The same for `len` a multiple of 4 and 16-byte pointers.
extern "C" __global__ void attention_softmax_vec(elem *p, const float *scores, i64 rows, int len) {
    softmax<4>(p, scores, rows, len);
}

// ds = p (dp - sum of p dp), zeros above the diagonal, where `dp` is not read. A warp a row.
template <int W> DEVICE void softmax_grad(elem *ds, const elem *p, const float *dp, i64 rows, int len) {
    i64 row = (i64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return; // the whole warp
    int seen = (int)(row % len) + 1, first = threadIdx.x % 32 * W;
    ds += row * len;
    p += row * len;
    dp += row * len;
    float delta = 0.0f;
    for (int c = first; c < seen; c += 32 * W) {
        float x[W], y[W];
        load_some(p + c, x);
        load_some(dp + c, y);
#pragma unroll
        for (int k = 0; k < W; k++)
            if (c + k < seen) delta = fmaf(x[k], y[k], delta);
    }
    delta = warp_sum(delta);
    for (int c = first; c < len; c += 32 * W) {
        float x[W] = {}, y[W] = {};
        if (c < seen) {
            load_some(p + c, x);
            load_some(dp + c, y);
        }
#pragma unroll
        for (int k = 0; k < W; k++) x[k] = c + k < seen ? x[k] * (y[k] - delta) : 0.0f;
        store_some(ds + c, x);
    }
}

extern "C" __global__ void attention_softmax_grad(elem *ds, const elem *p, const float *dp, i64 rows, int len) {
    softmax_grad<1>(ds, p, dp, rows, len);
}

// The same for `len` a multiple of 4 and 16-byte pointers.
extern "C" __global__ void attention_softmax_grad_vec(elem *ds, const elem *p, const float *dp, i64 rows, int len) {
    softmax_grad<4>(ds, p, dp, rows, len);
}
