// The element-wise parts of the optimizers, f32. One thread takes elements a whole grid apart.
#include "common.cuh"

#define EACH(i, n) \
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x)

extern "C" __global__ void axpby(float* y, float a, const float* x, float b, long long n) {
    EACH(i, n) y[i] = a * y[i] + b * x[i];
}

extern "C" __global__ void scale_into(float* y, const float* x, float a, long long n) {
    EACH(i, n) y[i] = a * x[i];
}

extern "C" __global__ void adamw(float* w, const float* g, float* m, float* v, float b1, float b2, float eps,
                                 float keep, float rate, float root, long long n) {
    EACH(i, n) {
        float first = m[i] = b1 * m[i] + (1.0f - b1) * g[i];
        float second = v[i] = b2 * v[i] + (1.0f - b2) * g[i] * g[i];
        w[i] = w[i] * keep - rate * first / (sqrtf(second) * root + eps);
    }
}

// Sum of squares of what each block reads.
extern "C" __global__ void partial_squares(const float* x, float* partial, long long n) {
    float sum = 0.0f;
    EACH(i, n) sum += x[i] * x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Frobenius norm of each member of a bank in two stages: grid (blocks, members).
extern "C" __global__ void block_maxima(const float* x, long long size, float* maxima) {
    x += blockIdx.y * size;
    float max = 0.0f;
    EACH(i, size) max = fmaxf(max, fabsf(x[i]));
    max = block_max(max);
    if (threadIdx.x == 0) maxima[blockIdx.y * gridDim.x + blockIdx.x] = max;
}

__device__ float member_max(const float* maxima) {
    float max = 0.0f;
    for (int b = 0; b < gridDim.x; b++) max = fmaxf(max, maxima[blockIdx.y * gridDim.x + b]);
    return max;
}

extern "C" __global__ void block_squares(const float* x, long long size, const float* maxima, float* squares) {
    x += blockIdx.y * size;
    float max = member_max(maxima);
    float inverse = max > 0.0f ? 1.0f / max : 0.0f;
    float sum = 0.0f;
    EACH(i, size) {
        float scaled = x[i] * inverse;
        sum += scaled * scaled;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) squares[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

extern "C" __global__ void normalize(float* y, const float* x, long long size, const float* maxima,
                                     const float* squares) {
    float max = member_max(maxima), sum = 0.0f;
    for (int b = 0; b < gridDim.x; b++) sum += squares[blockIdx.y * gridDim.x + b];
    float inverse = max > 0.0f ? 1.0f / max : 0.0f;
    float scale = max > 0.0f ? 1.0f / sqrtf(sum) : 0.0f;
    x += blockIdx.y * size;
    y += blockIdx.y * size;
    EACH(i, size) y[i] = x[i] * inverse * scale;
}
