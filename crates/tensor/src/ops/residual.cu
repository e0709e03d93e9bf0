// x + m y and its backward pass, the stream x in f32, the branch y in elem; a thread has VEC elements in a row.
#include "common.cuh"

DEVICE i64 first_element() { return ((i64)blockIdx.x * blockDim.x + threadIdx.x) * VEC; }

// out = x + m y
extern "C" __global__ void __launch_bounds__(256)
residual_sum(float *__restrict__ out, const float *__restrict__ x, const elem *__restrict__ y, float m, i64 count) {
    i64 at = first_element();
    if (at + VEC <= count && aligned16(out) && aligned16(x) && aligned16(y)) {
        float a[VEC], b[VEC];
        load_many<VEC>(x + at, a);
        load_many<VEC>(y + at, b);
#pragma unroll
        for (int i = 0; i < VEC; i++) a[i] = fmaf(m, b[i], a[i]);
        store_many<VEC>(out + at, a);
    } else {
        for (i64 i = at; i < min(at + VEC, count); i++) out[i] = fmaf(m, load(y[i]), x[i]);
    }
}

// out = (out or 0) + m x
extern "C" __global__ void __launch_bounds__(256)
residual_scale(elem *__restrict__ out, const float *__restrict__ x, float m, int add, i64 count) {
    i64 at = first_element();
    if (at + VEC <= count && aligned16(out) && aligned16(x)) {
        float a[VEC], b[VEC];
        load_many<VEC>(x + at, a);
#pragma unroll
        for (int i = 0; i < VEC; i++) b[i] = 0;
        if (add) load_many<VEC>(out + at, b);
#pragma unroll
        for (int i = 0; i < VEC; i++) b[i] = fmaf(m, a[i], b[i]);
        store_many<VEC>(out + at, b);
    } else {
        for (i64 i = at; i < min(at + VEC, count); i++) {
            out[i] = store(fmaf(m, x[i], add ? load(out[i]) : 0.0f));
        }
    }
}
