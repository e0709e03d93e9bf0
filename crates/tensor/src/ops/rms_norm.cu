// y = w x / rms(x), x in f32 and y in elem. A warp has a row at a time; a lane has W columns of every 32 * W, BATCH
// such pieces in flight. What the second pass over a row reads again is in the L1 cache.
#include "common.cuh"

constexpr int BATCH = 3;

template <int W>
DEVICE void forward(elem *__restrict__ y, float *__restrict__ inverse, const float *__restrict__ x,
                    const float *__restrict__ weight, float eps, i64 rows, int width) {
    constexpr int STEP = 32 * W;
    i64 row = (i64)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    x += row * width;
    y += row * width;
    float squares = 0;
    for (int base = threadIdx.x * W; base < width; base += BATCH * STEP) {
        float v[BATCH][W];
        load_batch(x, base, width, v);
#pragma unroll
        for (int k = 0; k < BATCH; k++)
#pragma unroll
            for (int i = 0; i < W; i++) squares = fmaf(v[k][i], v[k][i], squares);
    }
    float r = 1.0f / sqrtf(warp_sum(squares) / (float)width + eps);
    if (threadIdx.x == 0) inverse[row] = r;
    for (int base = threadIdx.x * W; base < width; base += BATCH * STEP) {
        float v[BATCH][W], w[BATCH][W];
        load_batch(x, base, width, v);
        load_batch(weight, base, width, w);
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
#pragma unroll
            for (int i = 0; i < W; i++) v[k][i] = w[k][i] * (v[k][i] * r);
            if (base + k * STEP < width) store_many<W>(y + base + k * STEP, v[k]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_forward(elem *y, float *inverse, const float *x, const float *weight, float eps, i64 rows, int width, int vec) {
    if (vec) forward<VEC>(y, inverse, x, weight, eps, rows, width);
    else forward<1>(y, inverse, x, weight, eps, rows, width);
}

template <int W>
DEVICE void backward(float *__restrict__ dx, int add, float *__restrict__ partial, const elem *__restrict__ dy,
                     const float *__restrict__ inverse, const float *__restrict__ x, const float *__restrict__ weight,
                     i64 rows, int width, float *shared) {
    constexpr int STEP = 32 * W;
    // This warp's sum for the weight's gradient; a lane touches its own columns only.
    float *dw = shared + threadIdx.y * width;
    for (int c = threadIdx.x * W; c < width; c += STEP) {
#pragma unroll
        for (int i = 0; i < W; i++) dw[c + i] = 0;
    }
    for (i64 row = (i64)blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += (i64)gridDim.x * blockDim.y) {
        const elem *dy_row = dy + row * width;
        const float *x_row = x + row * width;
        float *dx_row = dx + row * width;
        float r = inverse[row], dot = 0;
        for (int base = threadIdx.x * W; base < width; base += BATCH * STEP) {
            float d[BATCH][W], v[BATCH][W];
            load_batch(dy_row, base, width, d);
            load_batch(x_row, base, width, v);
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                if (base + k * STEP >= width) continue;
                float sum[W], w[W];
                load_many<W>(dw + base + k * STEP, sum);
                load_many<W>(weight + base + k * STEP, w);
#pragma unroll
                for (int i = 0; i < W; i++) {
                    float product = d[k][i] * v[k][i];
                    sum[i] = fmaf(product, r, sum[i]);
                    dot = fmaf(product, w[i], dot);
                }
                store_many<W>(dw + base + k * STEP, sum);
            }
        }
        dot = r * r * warp_sum(dot) / (float)width;
        for (int base = threadIdx.x * W; base < width; base += BATCH * STEP) {
            float d[BATCH][W], v[BATCH][W], old[BATCH][W];
            load_batch(dy_row, base, width, d);
            load_batch(x_row, base, width, v);
            load_batch(dx_row, base, add ? width : 0, old);
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                if (base + k * STEP >= width) continue;
                float w[W];
                load_many<W>(weight + base + k * STEP, w);
#pragma unroll
                for (int i = 0; i < W; i++) old[k][i] += r * (w[i] * d[k][i] - v[k][i] * dot);
                store_many<W>(dx_row + base + k * STEP, old[k]);
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
extern "C" __global__ void __launch_bounds__(256)
rms_norm_backward(float *dx, int add, float *partial, const elem *dy, const float *inverse, const float *x,
                  const float *weight, i64 rows, int width, int vec) {
    extern __shared__ float4 shared[];
    float *sums = reinterpret_cast<float *>(shared);
    if (vec) backward<VEC>(dx, add, partial, dy, inverse, x, weight, rows, width, sums);
    else backward<1>(dx, add, partial, dy, inverse, x, weight, rows, width, sums);
}
