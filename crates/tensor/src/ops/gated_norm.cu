// w g / rms(g) with g = y silu(z). A warp has a row at a time; a lane has W columns of every 32 * W. Rows of up to
// BATCH such pieces stay in registers between the two passes over them (HELD).
#include "common.cuh"

constexpr int BATCH = 6;

// g of pieces from `base` on.
template <int W>
DEVICE void gate(const elem *y, const elem *z, int base, int width, float (&g)[BATCH][W]) {
    Packed<W> a[BATCH], b[BATCH];
    read_batch(y, base, width, a);
    read_batch(z, base, width, b);
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
        float v[W];
        a[k].unpack(g[k]);
        b[k].unpack(v);
#pragma unroll
        for (int i = 0; i < W; i++) g[k][i] *= silu(v[i]);
    }
}

template <int W, bool HELD>
DEVICE void forward(elem *__restrict__ out, float *__restrict__ inverse, const elem *__restrict__ y,
                    const elem *__restrict__ z, i64 z_stride, const float *__restrict__ weight, float eps, i64 rows,
                    int width) {
    constexpr int STEP = 32 * W;
    i64 row = (i64)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    y += row * width;
    z += row * z_stride;
    out += row * width;
    float g[BATCH][W], squares = 0;
    int base = threadIdx.x * W;
    do {
        gate<W>(y, z, base, width, g);
#pragma unroll
        for (int k = 0; k < BATCH; k++)
#pragma unroll
            for (int i = 0; i < W; i++) squares = fmaf(g[k][i], g[k][i], squares);
        base += BATCH * STEP;
    } while (!HELD && base < width);
    float r = 1.0f / sqrtf(warp_sum(squares) / (float)width + eps);
    if (threadIdx.x == 0) inverse[row] = r;
    base = threadIdx.x * W;
    do {
        if (!HELD) gate<W>(y, z, base, width, g);
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            int at = base + k * STEP;
            if (at >= width) continue;
            float w[W];
            load_many<W>(weight + at, w);
#pragma unroll
            for (int i = 0; i < W; i++) g[k][i] = w[i] * (g[k][i] * r);
            store_many<W>(out + at, g[k]);
        }
        base += BATCH * STEP;
    } while (!HELD && base < width);
}

extern "C" __global__ void __launch_bounds__(256, 2)
gated_norm_forward(elem *out, float *inverse, const elem *y, const elem *z, i64 z_stride, const float *weight,
                   float eps, i64 rows, int width, int vec) {
    if (vec && width <= BATCH * 32 * VEC) {
        forward<VEC, true>(out, inverse, y, z, z_stride, weight, eps, rows, width);
    } else if (vec) {
        forward<VEC, false>(out, inverse, y, z, z_stride, weight, eps, rows, width);
    } else {
        forward<1, false>(out, inverse, y, z, z_stride, weight, eps, rows, width);
    }
}

// dz has the stride of z. again, if any, is the result once more, maybe in the place of dout.
template <int W, bool HELD>
DEVICE void backward(elem *__restrict__ dy, int add, elem *__restrict__ dz, elem *again,
                     float *__restrict__ partial, const elem *dout, const float *__restrict__ inverse,
                     const elem *__restrict__ y, const elem *__restrict__ z, i64 z_stride,
                     const float *__restrict__ weight, i64 rows, int width, float *shared) {
    constexpr int STEP = 32 * W;
    // This warp's sum for the weight's gradient; a lane touches its own columns only.
    float *dw = shared + threadIdx.y * width, zero[W];
#pragma unroll
    for (int i = 0; i < W; i++) zero[i] = 0;
    for (int c = threadIdx.x * W; c < width; c += STEP) store_many<W>(dw + c, zero);
    for (i64 row = (i64)blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += (i64)gridDim.x * blockDim.y) {
        const elem *d_row = dout + row * width, *y_row = y + row * width, *z_row = z + row * z_stride;
        Packed<W> d[BATCH], a[BATCH], b[BATCH];
        float r = inverse[row], dot = 0;
        int base = threadIdx.x * W;
        do {
            read_batch(d_row, base, width, d);
            read_batch(y_row, base, width, a);
            read_batch(z_row, base, width, b);
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                int at = base + k * STEP;
                if (at >= width) continue;
                float sum[W], w[W], dv[W], yv[W], zv[W];
                d[k].unpack(dv);
                a[k].unpack(yv);
                b[k].unpack(zv);
                load_many<W>(dw + at, sum);
                load_many<W>(weight + at, w);
#pragma unroll
                for (int i = 0; i < W; i++) {
                    float product = dv[i] * (yv[i] * silu(zv[i]));
                    sum[i] = fmaf(product, r, sum[i]);
                    dot = fmaf(product, w[i], dot);
                }
                store_many<W>(dw + at, sum);
            }
            base += BATCH * STEP;
        } while (!HELD && base < width);
        dot = r * r * warp_sum(dot) / (float)width;
        base = threadIdx.x * W;
        do {
            if (!HELD) {
                read_batch(d_row, base, width, d);
                read_batch(y_row, base, width, a);
                read_batch(z_row, base, width, b);
            }
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                int at = base + k * STEP;
                if (at >= width) continue;
                float w[W], dv[W], yv[W], zv[W], old[W];
                d[k].unpack(dv);
                a[k].unpack(yv);
                b[k].unpack(zv);
                load_many<W>(weight + at, w);
#pragma unroll
                for (int i = 0; i < W; i++) old[i] = 0;
                if (add) load_many<W>(dy + row * width + at, old);
#pragma unroll
                for (int i = 0; i < W; i++) {
                    float s = sigmoid(zv[i]), open = zv[i] * s, g = yv[i] * open;
                    float dg = r * (w[i] * dv[i] - g * dot);
                    old[i] = fmaf(dg, open, old[i]);
                    zv[i] = dg * yv[i] * (s * (1.0f + zv[i] * (1.0f - s)));
                    yv[i] = w[i] * (g * r);
                }
                store_many<W>(dy + row * width + at, old);
                store_many<W>(dz + row * z_stride + at, zv);
                if (again) store_many<W>(again + row * width + at, yv);
            }
            base += BATCH * STEP;
        } while (!HELD && base < width);
    }
    __syncthreads();
    for (int c = threadIdx.y * 32 + threadIdx.x; c < width; c += 32 * blockDim.y) {
        float sum = 0;
        for (int w = 0; w < blockDim.y; w++) sum += shared[w * width + c];
        partial[(i64)blockIdx.x * width + c] = sum;
    }
}

// partial[block] = this block's share of the weight's gradient
extern "C" __global__ void __launch_bounds__(256, 2)
gated_norm_backward(elem *dy, int add, elem *dz, elem *again, float *partial, const elem *dout, const float *inverse,
                    const elem *y, const elem *z, i64 z_stride, const float *weight, i64 rows, int width, int vec) {
    extern __shared__ float4 shared[];
    float *sums = reinterpret_cast<float *>(shared);
    if (vec && width <= BATCH * 32 * VEC) {
        backward<VEC, true>(dy, add, dz, again, partial, dout, inverse, y, z, z_stride, weight, rows, width, sums);
    } else if (vec) {
        backward<VEC, false>(dy, add, dz, again, partial, dout, inverse, y, z, z_stride, weight, rows, width, sums);
    } else {
        backward<1, false>(dy, add, dz, again, partial, dout, inverse, y, z, z_stride, weight, rows, width, sums);
    }
}
