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

// Up to four sums of rows at once: total[i] = (total[i] or 0) + sum of the rows of partial[i] [count[i], width[i]], i
// the block's y. Blocks of 32 x 32 threads, 32 columns each.
extern "C" __global__ void __launch_bounds__(1024)
sum_partials(const float *partial0, int count0, float *total0, int width0, int add0,
             const float *partial1, int count1, float *total1, int width1, int add1,
             const float *partial2, int count2, float *total2, int width2, int add2,
             const float *partial3, int count3, float *total3, int width3, int add3) {
    const float *partial = partial0;
    float *total = total0;
    int count = count0, width = width0, add = add0;
    if (blockIdx.y == 1) partial = partial1, count = count1, total = total1, width = width1, add = add1;
    if (blockIdx.y == 2) partial = partial2, count = count2, total = total2, width = width2, add = add2;
    if (blockIdx.y == 3) partial = partial3, count = count3, total = total3, width = width3, add = add3;
    if (blockIdx.x * 32 >= width) return;
    __shared__ float sums[32][33];
    int column = blockIdx.x * 32 + threadIdx.x;
    float sum = 0;
    if (column < width) {
#pragma unroll 4
        for (int i = threadIdx.y; i < count; i += 32) sum += partial[(i64)i * width + column];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    sum = warp_sum(sums[threadIdx.x][threadIdx.y]);
    column = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && column < width) total[column] = add ? total[column] + sum : sum;
}
