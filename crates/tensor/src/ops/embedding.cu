// Rows of a table and the sums of their gradients, in f32 or, with "_low", in elem. Blocks of 32 x 8 threads: a warp has
// 32 * W columns of a row.
#include "common.cuh"

constexpr int WARPS = 8;

template <int W, typename Stream>
DEVICE void gather(Stream *__restrict__ out, const i32 *__restrict__ ids, const elem *__restrict__ table, float scale,
                   i64 rows, int width) {
    int column = (blockIdx.x * 32 + threadIdx.x) * W;
    if (column >= width) return;
    for (i64 row = (i64)blockIdx.y * WARPS + threadIdx.y; row < rows; row += (i64)gridDim.y * WARPS) {
        float x[W];
        load_many<W>(table + (i64)ids[row] * width + column, x);
#pragma unroll
        for (int i = 0; i < W; i++) x[i] *= scale;
        store_many<W>(out + row * width + column, x);
    }
}

template <int W, typename Stream>
DEVICE void collect(elem *__restrict__ dtable, const Stream *__restrict__ dout, const i32 *__restrict__ unique,
                    const i32 *__restrict__ starts, const i32 *__restrict__ order, float scale, int width,
                    float *sums) {
    int column = (blockIdx.y * 32 + threadIdx.x) * W;
    int last = starts[blockIdx.x + 1];
    float sum[W];
#pragma unroll
    for (int i = 0; i < W; i++) sum[i] = 0;
    // Warp w takes every eighth row of the group, BATCH loads at a time.
    constexpr int BATCH = 32 / (W > 1 ? W : 4);
    for (int at = starts[blockIdx.x] + threadIdx.y; at < last && column < width; at += BATCH * WARPS) {
        int row[BATCH];
        float x[BATCH][W];
#pragma unroll
        for (int k = 0; k < BATCH; k++) row[k] = at + k * WARPS < last ? order[at + k * WARPS] : -1;
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            if (row[k] >= 0) {
                load_many<W>(dout + (i64)row[k] * width + column, x[k]);
            } else {
#pragma unroll
                for (int i = 0; i < W; i++) x[k][i] = 0;
            }
        }
#pragma unroll
        for (int k = 0; k < BATCH; k++)
#pragma unroll
            for (int i = 0; i < W; i++) sum[i] += x[k][i];
    }
#pragma unroll
    for (int i = 0; i < W; i++) sums[(threadIdx.y * W + i) * 32 + threadIdx.x] = sum[i];
    __syncthreads();
    elem *row = dtable + (i64)unique[blockIdx.x] * width;
    for (int c = threadIdx.y * 32 + threadIdx.x; c < 32 * W; c += 32 * WARPS) {
        column = blockIdx.y * 32 * W + c;
        if (column >= width) break;
        float total = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) total += sums[(w * W + c % W) * 32 + c / W];
        row[column] = store(fmaf(scale, total, load(row[column])));
    }
}

// embedding_forward: out[row] = scale * table[ids[row]].
// embedding_backward: dtable[id] += scale * sum of the rows of dout at that id: a block for each group and 32 * W
// columns, W those in 16 bytes where vec says that rows of dout consist of such pieces; groups may be empty. `padding`
// gets none.
#define KERNELS(NAME, Stream)                                                                                          \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) embedding_forward##NAME(                                  \
        Stream *out, const i32 *ids, const elem *table, float scale, i64 rows, int width, int vec) {                   \
        if (vec) gather<VEC>(out, ids, table, scale, rows, width);                                                     \
        else gather<1>(out, ids, table, scale, rows, width);                                                           \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) embedding_backward##NAME(                                 \
        elem *dtable, const Stream *dout, const i32 *unique, const i32 *starts, const i32 *order, float scale,         \
        int width, int padding, int vec) {                                                                             \
        constexpr int W = Vec<Stream>::N;                                                                              \
        __shared__ float sums[WARPS * 32 * W];                                                                         \
        if (starts[blockIdx.x] == starts[blockIdx.x + 1] || unique[blockIdx.x] == padding) return;                     \
        if (vec) collect<W>(dtable, dout, unique, starts, order, scale, width, sums);                                  \
        else collect<1>(dtable, dout, unique, starts, order, scale, width, sums);                                      \
    }
KERNELS(, float)
#ifdef ELEM_BF16
KERNELS(_low, elem)
#endif
