// Around the QR decomposition in f64: from and to the f32 of banks, and identities.
#include "common.cuh"

#define EACH(i, n) for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x)

extern "C" __global__ void __launch_bounds__(256)
widen(const float *__restrict__ from, double *__restrict__ to, i64 count) {
    EACH(i, count) to[i] = from[i];
}

extern "C" __global__ void __launch_bounds__(256)
narrow(const double *__restrict__ from, float *__restrict__ to, i64 count) {
    EACH(i, count) to[i] = (float)from[i];
}

// Matrices [n, n] one after the other, `count` entries in all.
extern "C" __global__ void __launch_bounds__(256) identity(double *to, i64 n, i64 count) {
    EACH(i, count) to[i] = i % (n * n) % (n + 1) == 0;
}
