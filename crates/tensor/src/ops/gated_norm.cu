// w g / rms(g) with g = y silu(z). A warp has a row at a time; a lane has W columns of every 32 * W, BATCH such pieces
// in flight. What the second pass over a row reads again is in shared memory or in the L1 cache.
#include "common.cuh"

constexpr int BATCH = 3;

template <int W>
DEVICE void forward(elem *__restrict__ out, float *__restrict__ inverse, const elem *__restrict__ y,
                    const elem *__restrict__ z, i64 z_stride, const float *__restrict__ weight, float eps, i64 rows,
                    int width, float *shared) {
    constexpr int STEP = 32 * W;
    i64 row = (i64)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    y += row * width;
    z += row * z_stride;
    out += row * width;
    // g of this row; a lane touches its own columns only.
    float *gated = shared + threadIdx.y * width;
    float squares = 0;
    for (int base = threadIdx.x * W; base < width; base += BATCH * STEP) {
        float a[BATCH][W], b[BATCH][W];
        load_batch(y, base, width, a);
        load_batch(z, base, width, b);
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            if (base + k * STEP >= width) continue;
#pragma unroll
            for (int i = 0; i < W; i++) {
                a[k][i] *= silu(b[k][i]);
                squares = fmaf(a[k][i], a[k][i], squares);
            }
            store_many<W>(gated + base + k * STEP, a[k]);
        }
    }
    float r = 1.0f / sqrtf(warp_sum(squares) / (float)width + eps);
    if (threadIdx.x == 0) inverse[row] = r;
    for (int c = threadIdx.x * W; c < width; c += STEP) {
        float g[W], w[W];
        load_many<W>(gated + c, g);
        load_many<W>(weight + c, w);
#pragma unroll
        for (int i = 0; i < W; i++) g[i] = w[i] * (g[i] * r);
        store_many<W>(out + c, g);
    }
}

extern "C" __global__ void __launch_bounds__(256)
gated_norm_forward(elem *out, float *inverse, const elem *y, const elem *z, i64 z_stride, const float *weight,
                   float eps, i64 rows, int width, int vec) {
    extern __shared__ float4 shared[];
    float *gated = reinterpret_cast<float *>(shared);
    if (vec) forward<VEC>(out, inverse, y, z, z_stride, weight, eps, rows, width, gated);
    else forward<1>(out, inverse, y, z, z_stride, weight, eps, rows, width, gated);
}

// dz has the stride of z.
template <int W>
DEVICE void backward(elem *__restrict__ dy, int add, elem *__restrict__ dz, float *__restrict__ partial,
                     const elem *__restrict__ dout, const float *__restrict__ inverse, const elem *__restrict__ y,
                     const elem *__restrict__ z, i64 z_stride, const float *__restrict__ weight, i64 rows, int width,
                     float *shared) {
    constexpr int STEP = 32 * W;
    // This warp's sum for the weight's gradient; a lane touches its own columns only.
    float *dw = shared + threadIdx.y * width;
    for (int c = threadIdx.x * W; c < width; c += STEP) {
#pragma unroll
        for (int i = 0; i < W; i++) dw[c + i] = 0;
    }
    for (i64 row = (i64)blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += (i64)gridDim.x * blockDim.y) {
        const elem *d_row = dout + row * width, *y_row = y + row * width, *z_row = z + row * z_stride;
        elem *dy_row = dy + row * width, *dz_row = dz + row * z_stride;
        float r = inverse[row], dot = 0;
        for (int base = threadIdx.x * W; base < width; base += BATCH * STEP) {
            float d[BATCH][W], a[BATCH][W], b[BATCH][W];
            load_batch(d_row, base, width, d);
            load_batch(y_row, base, width, a);
            load_batch(z_row, base, width, b);
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                if (base + k * STEP >= width) continue;
                float sum[W], w[W];
                load_many<W>(dw + base + k * STEP, sum);
                load_many<W>(weight + base + k * STEP, w);
#pragma unroll
                for (int i = 0; i < W; i++) {
                    float product = d[k][i] * a[k][i] * silu(b[k][i]);
                    sum[i] = fmaf(product, r, sum[i]);
                    dot = fmaf(product, w[i], dot);
                }
                store_many<W>(dw + base + k * STEP, sum);
            }
        }
        dot = r * r * warp_sum(dot) / (float)width;
        for (int base = threadIdx.x * W; base < width; base += BATCH * STEP) {
            float d[BATCH][W], a[BATCH][W], b[BATCH][W], old[BATCH][W];
            load_batch(d_row, base, width, d);
            load_batch(y_row, base, width, a);
            load_batch(z_row, base, width, b);
            load_batch(dy_row, base, add ? width : 0, old);
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                if (base + k * STEP >= width) continue;
                float w[W];
                load_many<W>(weight + base + k * STEP, w);
#pragma unroll
                for (int i = 0; i < W; i++) {
                    float s = sigmoid(b[k][i]), gate = b[k][i] * s;
                    float dg = r * (w[i] * d[k][i] - a[k][i] * gate * dot);
                    old[k][i] = fmaf(dg, gate, old[k][i]);
                    a[k][i] *= dg * s * (1.0f + b[k][i] * (1.0f - s));
                }
                store_many<W>(dy_row + base + k * STEP, old[k]);
                store_many<W>(dz_row + base + k * STEP, a[k]);
            }
        }
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
gated_norm_backward(elem *dy, int add, elem *dz, float *partial, const elem *dout, const float *inverse, const elem *y,
                    const elem *z, i64 z_stride, const float *weight, i64 rows, int width, int vec) {
    extern __shared__ float4 shared[];
    float *sums = reinterpret_cast<float *>(shared);
    if (vec) backward<VEC>(dy, add, dz, partial, dout, inverse, y, z, z_stride, weight, rows, width, sums);
    else backward<1>(dy, add, dz, partial, dout, inverse, y, z, z_stride, weight, rows, width, sums);
}
