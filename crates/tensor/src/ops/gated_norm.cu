// w g / rms(g) with g = y silu(z). Forward a warp has a row at a time; a lane has W columns of every 32 * W. Rows of up
// to BATCH such pieces stay in registers between the two passes over them (HELD). Backward a block has a row at a time
// where it has a thread for each piece.
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

// Over the block, in the order of the warps; every thread gets the result. Between two calls with one `stage` lies one
// with the other.
DEVICE float sum_of_warps(float x, int stage) {
    __shared__ float partial[2][16];
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) partial[stage][threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0;
    for (int warp = 0; warp < blockDim.x / 32; warp++) sum += partial[stage][warp];
    return sum;
}

// dz has the stride of z. again, if any, is the result once more, maybe in the place of dout. A block has a row at a
// time, a thread W columns of it and those of the row after, which are on their way.
template <int W> struct Pieces {
    Packed<W> d, y, z;
    float r;
    __device__ __forceinline__ void read(const elem *dout, const elem *ys, const elem *zs, i64 z_stride,
                                         const float *inverse, i64 row, i64 rows, int at, int width) {
        if (row < rows && at < width) {
            d.read(dout + row * width + at), y.read(ys + row * width + at), z.read(zs + row * z_stride + at);
            r = inverse[row];
        } else {
            d.clear(), y.clear(), z.clear();
            r = 0;
        }
    }
};

template <int W>
DEVICE void backward_of_pieces(elem *__restrict__ dy, int add, elem *__restrict__ dz, elem *again,
                               float *__restrict__ partial, const elem *dout, const float *__restrict__ inverse,
                               const elem *__restrict__ y, const elem *__restrict__ z, i64 z_stride,
                               const float *__restrict__ weight, i64 rows, int width) {
    int at = threadIdx.x * W, stage = 0;
    bool mine = at < width;
    float w[W], dw[W];
#pragma unroll
    for (int i = 0; i < W; i++) w[i] = 0, dw[i] = 0;
    if (mine) load_many<W>(weight + at, w);
    Pieces<W> next;
    next.read(dout, y, z, z_stride, inverse, blockIdx.x, rows, at, width);
    for (i64 row = blockIdx.x; row < rows; row += gridDim.x, stage ^= 1) {
        Pieces<W> now = next;
        next.read(dout, y, z, z_stride, inverse, row + gridDim.x, rows, at, width);
        float dv[W], yv[W], zv[W], open[W], slope[W], dot = 0, r = now.r;
        now.d.unpack(dv), now.y.unpack(yv), now.z.unpack(zv);
#pragma unroll
        for (int i = 0; i < W; i++) {
            float s = sigmoid(zv[i]);
            open[i] = zv[i] * s, slope[i] = s * (1.0f + zv[i] * (1.0f - s));
            float product = dv[i] * (yv[i] * open[i]);
            dw[i] = fmaf(product, r, dw[i]);
            dot = fmaf(product, w[i], dot);
        }
        dot = r * r * sum_of_warps(dot, stage) / (float)width;
        if (!mine) continue;
        float old[W];
#pragma unroll
        for (int i = 0; i < W; i++) old[i] = 0;
        if (add) load_many<W>(dy + row * width + at, old);
#pragma unroll
        for (int i = 0; i < W; i++) {
            float g = yv[i] * open[i], dg = r * (w[i] * dv[i] - g * dot);
            old[i] = fmaf(dg, open[i], old[i]);
            zv[i] = dg * yv[i] * slope[i];
            yv[i] = w[i] * (g * r);
        }
        store_many<W>(dy + row * width + at, old);
        store_many<W>(dz + row * z_stride + at, zv);
        if (again) store_many<W>(again + row * width + at, yv);
    }
    if (mine) store_many<W>(partial + (i64)blockIdx.x * width + at, dw);
}

// The same with a warp a row, which reads it twice.
template <int W>
DEVICE void backward(elem *__restrict__ dy, int add, elem *__restrict__ dz, elem *again,
                     float *__restrict__ partial, const elem *dout, const float *__restrict__ inverse,
                     const elem *__restrict__ y, const elem *__restrict__ z, i64 z_stride,
                     const float *__restrict__ weight, i64 rows, int width, float *shared) {
    // This warp's sum for the weight's gradient; a lane touches its own columns only.
    float *dw = shared + threadIdx.y * width, zero[W];
#pragma unroll
    for (int i = 0; i < W; i++) zero[i] = 0;
    for (int c = threadIdx.x * W; c < width; c += 32 * W) store_many<W>(dw + c, zero);
    for (i64 row = (i64)blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += (i64)gridDim.x * blockDim.y) {
        const elem *d_row = dout + row * width, *y_row = y + row * width, *z_row = z + row * z_stride;
        float r = inverse[row], dot = 0;
        for (int at = threadIdx.x * W; at < width; at += 32 * W) {
            float sum[W], w[W], dv[W], yv[W], zv[W];
            load_many<W>(d_row + at, dv), load_many<W>(y_row + at, yv), load_many<W>(z_row + at, zv);
            load_many<W>(dw + at, sum), load_many<W>(weight + at, w);
#pragma unroll
            for (int i = 0; i < W; i++) {
                float product = dv[i] * (yv[i] * silu(zv[i]));
                sum[i] = fmaf(product, r, sum[i]);
                dot = fmaf(product, w[i], dot);
            }
            store_many<W>(dw + at, sum);
        }
        dot = r * r * warp_sum(dot) / (float)width;
        for (int at = threadIdx.x * W; at < width; at += 32 * W) {
            float w[W], dv[W], yv[W], zv[W], old[W];
            load_many<W>(d_row + at, dv), load_many<W>(y_row + at, yv), load_many<W>(z_row + at, zv);
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
    }
    __syncthreads();
    for (int c = threadIdx.y * 32 + threadIdx.x; c < width; c += 32 * blockDim.y) {
        float sum = 0;
        for (int w = 0; w < blockDim.y; w++) sum += shared[w * width + c];
        partial[(i64)blockIdx.x * width + c] = sum;
    }
}

// partial[block] = this block's share of the weight's gradient. Threads [32, warps].
extern "C" __global__ void __launch_bounds__(256, 2)
gated_norm_backward(elem *dy, int add, elem *dz, elem *again, float *partial, const elem *dout, const float *inverse,
                    const elem *y, const elem *z, i64 z_stride, const float *weight, i64 rows, int width, int vec) {
    extern __shared__ float4 shared[];
    float *sums = reinterpret_cast<float *>(shared);
    if (vec) backward<VEC>(dy, add, dz, again, partial, dout, inverse, y, z, z_stride, weight, rows, width, sums);
    else backward<1>(dy, add, dz, again, partial, dout, inverse, y, z, z_stride, weight, rows, width, sums);
}

// The same for rows of up to 512 pieces of 16 bytes, a thread for each.
extern "C" __global__ void __launch_bounds__(512)
gated_norm_backward_pieces(elem *dy, int add, elem *dz, elem *again, float *partial, const elem *dout,
                           const float *inverse, const elem *y, const elem *z, i64 z_stride, const float *weight,
                           i64 rows, int width) {
    backward_of_pieces<VEC>(dy, add, dz, again, partial, dout, inverse, y, z, z_stride, weight, rows, width);
}
