// x + m y and its backward pass, the branch y in elem, the stream x in f32 or, with "_low", in elem; a thread has VEC
// elements in a row.
#include "common.cuh"

DEVICE i64 first_element() { return ((i64)blockIdx.x * blockDim.x + threadIdx.x) * VEC; }

template <typename Stream>
DEVICE void sum(Stream *__restrict__ out, const Stream *__restrict__ x, const elem *__restrict__ y, float m, i64 count) {
    i64 at = first_element();
    if (at + VEC <= count && aligned16(out) && aligned16(x) && aligned16(y)) {
        float a[VEC], b[VEC];
        load_many<VEC>(x + at, a);
        load_many<VEC>(y + at, b);
#pragma unroll
        for (int i = 0; i < VEC; i++) a[i] = fmaf(m, b[i], a[i]);
        store_many<VEC>(out + at, a);
    } else {
        for (i64 i = at; i < min(at + VEC, count); i++) out[i] = store_as<Stream>(fmaf(m, load(y[i]), load(x[i])));
    }
}

template <typename Stream>
DEVICE void scale(elem *__restrict__ out, const Stream *__restrict__ x, float m, int add, i64 count) {
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
            out[i] = store(fmaf(m, load(x[i]), add ? load(out[i]) : 0.0f));
        }
    }
}

// residual_sum: out = x + m y. residual_scale: out = (out or 0) + m x.
#define KERNELS(NAME, Stream)                                                                                          \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        residual_sum##NAME(Stream *out, const Stream *x, const elem *y, float m, i64 count) {                          \
        sum(out, x, y, m, count);                                                                                      \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        residual_scale##NAME(elem *out, const Stream *x, float m, int add, i64 count) {                                \
        scale(out, x, m, add, count);                                                                                  \
    }
KERNELS(, float)
#ifdef ELEM_BF16
KERNELS(_low, elem)
#endif
