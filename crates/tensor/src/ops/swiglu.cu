// silu(gate) * up and its backward pass. Blocks of 32 x 8 threads: a warp has 32 * W columns of a row.
#include "common.cuh"

constexpr int WARPS = 8;

template <int W>
DEVICE void forward(elem *__restrict__ out, const elem *__restrict__ gate, i64 gate_stride,
                    const elem *__restrict__ up, i64 up_stride, i64 rows, int width) {
    int column = (blockIdx.x * 32 + threadIdx.x) * W;
    if (column >= width) return;
    for (i64 row = (i64)blockIdx.y * WARPS + threadIdx.y; row < rows; row += (i64)gridDim.y * WARPS) {
        float g[W], u[W];
        load_many<W>(gate + row * gate_stride + column, g);
        load_many<W>(up + row * up_stride + column, u);
#pragma unroll
        for (int i = 0; i < W; i++) u[i] *= silu(g[i]);
        store_many<W>(out + row * width + column, u);
    }
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
swiglu_forward(elem *out, const elem *gate, i64 gate_stride, const elem *up, i64 up_stride, i64 rows, int width,
               int vec) {
    if (vec) forward<VEC>(out, gate, gate_stride, up, up_stride, rows, width);
    else forward<1>(out, gate, gate_stride, up, up_stride, rows, width);
}

// The gradients have the strides of the values; they may be columns of one buffer. again, if any, is the result
// once more, maybe in the place of dout.
template <int W>
DEVICE void backward(elem *__restrict__ dgate, elem *__restrict__ dup, elem *again,
                     const elem *dout, const elem *__restrict__ gate, i64 gate_stride,
                     const elem *__restrict__ up, i64 up_stride, i64 rows, int width) {
    int column = (blockIdx.x * 32 + threadIdx.x) * W;
    if (column >= width) return;
    for (i64 row = (i64)blockIdx.y * WARPS + threadIdx.y; row < rows; row += (i64)gridDim.y * WARPS) {
        float d[W], g[W], u[W], y[W];
        load_many<W>(dout + row * width + column, d);
        load_many<W>(gate + row * gate_stride + column, g);
        load_many<W>(up + row * up_stride + column, u);
#pragma unroll
        for (int i = 0; i < W; i++) {
            float s = sigmoid(g[i]), gated = g[i] * s;
            y[i] = u[i] * gated;
            u[i] *= d[i] * s * (1.0f + g[i] * (1.0f - s));
            d[i] *= gated;
        }
        if (again) store_many<W>(again + row * width + column, y);
        store_many<W>(dgate + row * gate_stride + column, u);
        store_many<W>(dup + row * up_stride + column, d);
    }
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
swiglu_backward(elem *dgate, elem *dup, elem *again, const elem *dout, const elem *gate, i64 gate_stride,
                const elem *up, i64 up_stride, i64 rows, int width, int vec) {
    if (vec) backward<VEC>(dgate, dup, again, dout, gate, gate_stride, up, up_stride, rows, width);
    else backward<1>(dgate, dup, again, dout, gate, gate_stride, up, up_stride, rows, width);
}
