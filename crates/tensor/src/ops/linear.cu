// The bias of a linear layer. Blocks of 32 x 8 threads: a warp has 32 * W columns of a row.
#include "common.cuh"

constexpr int WARPS = 8;
constexpr int BATCH = 4;

template <int W> DEVICE void add_to_rows(elem *__restrict__ y, const float *__restrict__ bias, i64 rows, int width) {
    int column = (blockIdx.x * 32 + threadIdx.x) * W;
    if (column >= width) return;
    float b[W];
    load_many<W>(bias + column, b);
    for (i64 row = (i64)blockIdx.y * WARPS + threadIdx.y; row < rows; row += (i64)gridDim.y * WARPS) {
        float x[W];
        load_many<W>(y + row * width + column, x);
#pragma unroll
        for (int i = 0; i < W; i++) x[i] += b[i];
        store_many<W>(y + row * width + column, x);
    }
}

// y += bias, row by row
extern "C" __global__ void __launch_bounds__(32 * WARPS)
add_bias(elem *y, const float *bias, i64 rows, int width, int vec) {
    if (vec) add_to_rows<VEC>(y, bias, rows, width);
    else add_to_rows<1>(y, bias, rows, width);
}

template <int W>
DEVICE void sum_chunk(const elem *__restrict__ x, float *__restrict__ partial, i64 rows, i64 chunk, int width,
                      float *sums) {
    int column = (blockIdx.x * 32 + threadIdx.x) * W;
    i64 first = blockIdx.y * chunk, last = min(first + chunk, rows);
    float sum[W];
#pragma unroll
    for (int i = 0; i < W; i++) sum[i] = 0;
    if (column < width) {
        for (i64 row = first + threadIdx.y; row < last; row += BATCH * WARPS) {
            float v[BATCH][W];
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                if (row + k * WARPS < last) {
                    load_many<W>(x + (row + k * WARPS) * width + column, v[k]);
                } else {
#pragma unroll
                    for (int i = 0; i < W; i++) v[k][i] = 0;
                }
            }
#pragma unroll
            for (int k = 0; k < BATCH; k++)
#pragma unroll
                for (int i = 0; i < W; i++) sum[i] += v[k][i];
        }
    }
#pragma unroll
    for (int i = 0; i < W; i++) sums[(threadIdx.y * W + i) * 32 + threadIdx.x] = sum[i];
    __syncthreads();
    for (int c = threadIdx.y * 32 + threadIdx.x; c < 32 * W; c += 32 * WARPS) {
        column = blockIdx.x * 32 * W + c;
        if (column >= width) break;
        float total = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) total += sums[(w * W + c % W) * 32 + c / W];
        partial[(i64)blockIdx.y * width + column] = total;
    }
}

// partial[i] = sum of the rows i * chunk .. (i + 1) * chunk of x
extern "C" __global__ void __launch_bounds__(32 * WARPS)
sum_rows(const elem *x, float *partial, i64 rows, i64 chunk, int width, int vec) {
    __shared__ float sums[WARPS * 32 * VEC];
    if (vec) sum_chunk<VEC>(x, partial, rows, chunk, width, sums);
    else sum_chunk<1>(x, partial, rows, chunk, width, sums);
}
