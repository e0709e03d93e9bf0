// Scales the members of a bank to a norm.
#include "common.cuh"

// Each member x [size] to sum of squares `square`: a block a member, sums in f64.
extern "C" __global__ void __launch_bounds__(1024) scale_to(float *x, i64 size, float square) {
    __shared__ double sums[1024];
    x += blockIdx.x * size;
    double sum = 0;
    for (i64 i = threadIdx.x; i < size; i += 1024) sum += (double)x[i] * x[i];
    sums[threadIdx.x] = sum;
    for (int half = 512; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    __syncthreads();
    double scale = sqrt((double)square / sums[0]);
    for (i64 i = threadIdx.x; i < size; i += 1024) x[i] = (float)(x[i] * scale);
}
