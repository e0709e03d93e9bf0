// Copies between element types, sums of gradients, and the last stage of every sum over rows.
#include "common.cuh"

// Each thread has VEC elements in a row.
DEVICE i64 first_element() { return ((i64)blockIdx.x * blockDim.x + threadIdx.x) * VEC; }

template <typename From, typename To> DEVICE void convert(const From *__restrict__ from, To *__restrict__ to, i64 count) {
    i64 at = first_element();
    if (at + VEC <= count && aligned16(from) && aligned16(to)) {
        float x[VEC];
        load_many<VEC>(from + at, x);
        store_many<VEC>(to + at, x);
    } else {
        for (i64 i = at; i < min(at + VEC, count); i++) to[i] = store_as<To>(load(from[i]));
    }
}

extern "C" __global__ void __launch_bounds__(256) from_f32(const float *from, elem *to, i64 count) {
    convert(from, to, count);
}

extern "C" __global__ void __launch_bounds__(256) to_f32(const elem *from, float *to, i64 count) {
    convert(from, to, count);
}

// to += from
extern "C" __global__ void __launch_bounds__(256)
add_assign(elem *__restrict__ to, const elem *__restrict__ from, i64 count) {
    i64 at = first_element();
    if (at + VEC <= count && aligned16(from) && aligned16(to)) {
        float x[VEC], y[VEC];
        load_many<VEC>(from + at, x);
        load_many<VEC>(to + at, y);
#pragma unroll
        for (int i = 0; i < VEC; i++) y[i] += x[i];
        store_many<VEC>(to + at, y);
    } else {
        for (i64 i = at; i < min(at + VEC, count); i++) to[i] = store(load(to[i]) + load(from[i]));
    }
}

// total = (total or 0) + sum of the rows of partial [count, width]. Blocks of 32 x 32 threads, 32 columns each.
extern "C" __global__ void __launch_bounds__(1024)
sum_partials(const float *__restrict__ partial, i64 count, float *__restrict__ total, int width, int add) {
    __shared__ float sums[32][33];
    int column = blockIdx.x * 32 + threadIdx.x;
    float sum = 0;
    if (column < width) {
#pragma unroll 4
        for (i64 i = threadIdx.y; i < count; i += 32) sum += partial[i * width + column];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    sum = warp_sum(sums[threadIdx.x][threadIdx.y]);
    column = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && column < width) total[column] = add ? total[column] + sum : sum;
}
