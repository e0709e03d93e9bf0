// The passes of the orthogonalisers over banks [L, size]: grid (parts of a member, members).
#include "common.cuh"

// W elements at a time; the kernels take more than one where vec is set, every member's size being a multiple then.
#define EACH(i, n, W) \
    for (i64 i = (blockIdx.x * (i64)blockDim.x + threadIdx.x) * W; i < n; i += (i64)gridDim.x * blockDim.x * W)

DEVICE u32 warp_max_bits(u32 x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x = max(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

template <int W> DEVICE void largest_of(const float* x, i64 size, u32* maxima) {
    __shared__ u32 partial[32];
    u32 most = 0;
    EACH(i, size, W) {
        float v[W];
        load_many<W>(x + i, v);
#pragma unroll
        for (int j = 0; j < W; j++) most = max(most, __float_as_uint(v[j]) & 0x7fffffffu);
    }
    most = warp_max_bits(most);
    if ((threadIdx.x & 31) == 0) partial[threadIdx.x >> 5] = most;
    __syncthreads();
    if (threadIdx.x < 32) {
        most = warp_max_bits(threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0);
        if (threadIdx.x == 0) maxima[blockIdx.y * gridDim.x + blockIdx.x] = most;
    }
}

// Bits of the largest absolute value of each part: of finite numbers in their order, infinity above, NaN above that.
extern "C" __global__ void largest(const float* x, i64 size, u32* maxima, int vec) {
    x += blockIdx.y * size;
    if (vec) largest_of<16>(x, size, maxima);
    else largest_of<1>(x, size, maxima);
}

// Sum of squares of each part, in double: neither 1e-30 nor 1e+30 leaves its range.
extern "C" __global__ void square_sums(const float* x, i64 size, double* sums, int vec) {
    x += blockIdx.y * size;
    double sum = 0.0;
    if (vec) {
        EACH(i, size, 16) {
            float v[16];
            load_many<16>(x + i, v);
#pragma unroll
            for (int j = 0; j < 16; j++) sum += (double)v[j] * v[j];
        }
    } else {
        EACH(i, size, 1) sum += (double)x[i] * x[i];
    }
    sum = block_sum_double(sum);
    if (threadIdx.x == 0) sums[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// y = x / norm; 0 where the norm is.
extern "C" __global__ void normalized(elem* y, const float* x, i64 size, const double* sums, int vec) {
    double sum = 0.0;
    for (int b = threadIdx.x & 31; b < gridDim.x; b += 32) sum += sums[blockIdx.y * gridDim.x + b];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    // In two factors: the inverse of 1e-39 is no float.
    double inverse = sum == 0.0 ? 0.0 : 1.0 / sqrt(sum);
    float first = inverse > 1e30 ? 1e30f : 1.0f, second = (float)(inverse / first);
    x += blockIdx.y * size;
    y += blockIdx.y * size;
    if (vec) {
        EACH(i, size, 16) {
            float v[16];
            load_many<16>(x + i, v);
#pragma unroll
            for (int j = 0; j < 16; j++) v[j] = v[j] * first * second;
            store_many<16>(y + i, v);
        }
    } else {
        EACH(i, size, 1) y[i] = store(x[i] * first * second);
    }
}

// y = x as elem, and the sum of squares of each part of x, in double: neither 1e-30 nor 1e+30 leaves its range.
extern "C" __global__ void taken(elem* y, const float* x, i64 size, double* sums, int vec) {
    x += blockIdx.y * size;
    y += blockIdx.y * size;
    double sum = 0.0;
    if (vec) {
        // Four groups of four in flight, each a line of the block's.
        i64 stride = (i64)gridDim.x * blockDim.x * 4;
        for (i64 i = (blockIdx.x * (i64)blockDim.x + threadIdx.x) * 4; i < size; i += 4 * stride) {
            float v[4][4];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                if (i + k * stride < size) load_many<4>(x + i + k * stride, v[k]);
            }
#pragma unroll
            for (int k = 0; k < 4; k++) {
                if (i + k * stride < size) {
                    store_many<4>(y + i + k * stride, v[k]);
#pragma unroll
                    for (int j = 0; j < 4; j++) sum += (double)v[k][j] * v[k][j];
                }
            }
        }
    } else {
        EACH(i, size, 1) {
            y[i] = store(x[i]);
            sum += (double)x[i] * x[i];
        }
    }
    sum = block_sum_double(sum);
    if (threadIdx.x == 0) sums[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// by = 1 / norm of each member, 0 for zeros. A member whose norm is outside [2^-40, 2^40], so that products of its
// entries might leave the range of a float, is divided by its norm in place, and its by is 1.
extern "C" __global__ void tamed(elem* y, i64 size, const double* sums, int parts, float* by) {
    double sum = 0.0;
    for (int b = threadIdx.x; b < parts; b += blockDim.x) sum += sums[blockIdx.y * (i64)parts + b];
    sum = block_sum_double(sum);
    double inverse = sum == 0.0 ? 0.0 : 1.0 / sqrt(sum);
    bool wild = inverse > 1099511627776.0 || (inverse < 1.0 / 1099511627776.0 && inverse > 0.0);
    if (blockIdx.x == 0 && threadIdx.x == 0) by[blockIdx.y] = wild ? 1.0f : (float)inverse;
    if (!wild) return;
    // In two factors: the inverse of 1e-39 is no float.
    float first = inverse > 1e30 ? 1e30f : 1.0f, second = (float)(inverse / first);
    y += blockIdx.y * size;
    EACH(i, size, 1) y[i] = store(load(y[i]) * first * second);
}

// y = x * factors[member]
extern "C" __global__ void scaled(float* y, const float* x, i64 size, const float* factors) {
    float factor = factors[blockIdx.y];
    EACH(i, size, 1) y[blockIdx.y * size + i] = x[blockIdx.y * size + i] * factor;
}

// Columns of U [rows, rank] whose singular value is at most share of the first become 0.
extern "C" __global__ void drop_columns(float* u, const float* s, int rows, int rank, float share) {
    u += blockIdx.y * (i64)rows * rank;
    s += blockIdx.y * rank;
    EACH(i, (i64)rows * rank, 1) {
        if (s[i % rank] <= share * s[0]) u[i] = 0.0f;
    }
}

// ---- f32 as two numbers of half precision, 22 bits: x = high + low ----

DEVICE u16 to_half(float x) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

DEVICE float from_half(u16 bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

template <int W> DEVICE void store_halves(u16* p, const u16 (&x)[W]) {
    if constexpr (W == 8) {
        *reinterpret_cast<uint4*>(p) = make_uint4(x[0] | (u32)x[1] << 16, x[2] | (u32)x[3] << 16,
                                                  x[4] | (u32)x[5] << 16, x[6] | (u32)x[7] << 16);
    } else {
        p[0] = x[0];
    }
}

template <int W> DEVICE void split(const float (&x)[W], float scale, u16 (&high)[W], u16 (&low)[W]) {
#pragma unroll
    for (int j = 0; j < W; j++) {
        float y = x[j] * scale;
        high[j] = to_half(y);
        low[j] = to_half(y - from_half(high[j]));
    }
}

template <int W>
DEVICE void split_matrix_of(const float* x, u16* halves, int rows, int cols, int tall, float scale) {
    i64 size = (i64)rows * cols;
    EACH(i, size, W) {
        float v[W];
        u16 high[W], low[W];
        load_many<W>(x + i, v);
        split<W>(v, scale, high, low);
        i64 at = tall ? i / cols * 3 * cols + i % cols : i, step = tall ? cols : size;
        store_halves<W>(halves + at, low);
        store_halves<W>(halves + at + step, high);
        store_halves<W>(halves + at + 2 * step, high);
    }
}

// X [rows, cols] times scale as low, high, high: one below the other [3 rows, cols], or for a tall X side by side
// [rows, 3 cols]. With maxima ([parts] for each member) the scale is the power of two that brings the largest entry
// into [2^11, 2^12); where that is not finite, all become NaN.
extern "C" __global__ void split_matrix(const float* x, u16* halves, int rows, int cols, int tall, float scale,
                                        const u32* maxima, int parts, int vec) {
    if (maxima) {
        u32 most = 0;
        for (int b = threadIdx.x & 31; b < parts; b += 32) most = max(most, maxima[blockIdx.y * parts + b]);
        int exponent = (int)(warp_max_bits(most) >> 23);
        // 2^(138 - exponent), which brings the largest entry into [2^11, 2^12); below 1e-35 as far as a float goes.
        scale = __int_as_float(exponent == 255 ? 0x7fc00000 : (265 - max(exponent, 12)) << 23);
    }
    i64 size = (i64)rows * cols;
    x += blockIdx.y * size;
    halves += blockIdx.y * 3 * size;
    if (vec) split_matrix_of<8>(x, halves, rows, cols, tall, scale);
    else split_matrix_of<1>(x, halves, rows, cols, tall, scale);
}

// ---- The small square matrices [rank, rank] of each member ----

DEVICE u16 half_of(float x, float scale, u16& low) {
    u16 high = to_half(x * scale);
    low = to_half(x * scale - from_half(high));
    return high;
}

// R = P + P^T, and the sums of squares of each part of R and of R - I; with halves also R times scale, split as
// split_square does. Grid (tiles, tiles, members), block (32, 8).
extern "C" __global__ void fold(const float* p, float* r, int rank, float* sums, float* off_sums, u16* halves,
                                float scale) {
    __shared__ float turned[32][33];
    p += blockIdx.z * (i64)rank * rank;
    r += blockIdx.z * (i64)rank * rank;
    int row0 = blockIdx.y * 32, col0 = blockIdx.x * 32;
    for (int y = threadIdx.y; y < 32; y += 8) {
        int row = col0 + y, col = row0 + threadIdx.x;
        turned[y][threadIdx.x] = row < rank && col < rank ? p[(i64)row * rank + col] : 0.0f;
    }
    __syncthreads();
    float sum = 0.0f, off = 0.0f;
    for (int y = threadIdx.y; y < 32; y += 8) {
        int row = row0 + y, col = col0 + threadIdx.x;
        if (row < rank && col < rank) {
            i64 at = (i64)row * rank + col;
            float x = p[at] + turned[threadIdx.x][y];
            float e = row == col ? x - 1.0f : x;
            r[at] = x;
            if (halves) {
                u16 low, high = half_of(x, scale, low);
                u16* to = halves + (blockIdx.z * (i64)rank + row) * 4 * rank + col;
                to[0] = high, to[rank] = low, to[2 * rank] = high, to[3 * rank] = high;
            }
            sum += x * x;
            off += e * e;
        }
    }
    sum = block_sum(sum);
    off = block_sum(off);
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        i64 at = ((i64)blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
        sums[at] = sum;
        off_sums[at] = off;
    }
}

// Sums of squares of each part of a, or of a - b.
extern "C" __global__ void squares(const float* a, const float* b, i64 size, float* sums) {
    a += blockIdx.y * size;
    b += blockIdx.y * size;
    float sum = 0.0f;
    EACH(i, size, 1) {
        float x = a[i] - (b == a ? 0.0f : b[i]);
        sum += x * x;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// Square root of the sum of each member's parts. Grid (1, members), one warp.
extern "C" __global__ void norms(const float* sums, int parts, float* norm) {
    double sum = 0.0;
    for (int b = threadIdx.x; b < parts; b += 32) sum += sums[(i64)blockIdx.y * parts + b];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (threadIdx.x == 0) norm[blockIdx.y] = (float)sqrt(sum);
}

// Of n = norm(R): by = 1 / n. Then of m = norm((R / n)^2): by = m^(-1/2), and for X = (n m^(1/2))^(-1/2). Zeros stay.
extern "C" __global__ void first_scales(const float* n, float* by, int members) {
    EACH(i, members, 1) by[i] = n[i] == 0.0f ? 0.0f : 1.0f / n[i];
}
extern "C" __global__ void second_scales(const float* n, const float* m, float* by, float* for_x, int members) {
    EACH(i, members, 1) {
        by[i] = m[i] == 0.0f ? 0.0f : 1.0f / sqrtf(m[i]);
        for_x[i] = n[i] == 0.0f ? 0.0f : 1.0f / (sqrtf(n[i]) * sqrtf(sqrtf(m[i])));
    }
}

// Four numbers of one row of a small matrix times scale, as high, low, high, high: columns [0, 3 rank) of one matrix
// and [rank, 4 rank) of another make high low + low high + high high, the small terms first.
template <int W> DEVICE void split_row(u16* halves, i64 row, i64 col, int rank, const float (&v)[W], float scale) {
    u16 high[W], low[W];
    i64 at = row * 4 * rank + col;
    split<W>(v, scale, high, low);
    store_halves<W>(halves + at, high);
    store_halves<W>(halves + at + rank, low);
    store_halves<W>(halves + at + 2 * rank, high);
    store_halves<W>(halves + at + 3 * rank, high);
}

template <int W>
DEVICE void split_square_of(const float* src, int rank, float factor, float* copy, u16* halves, float scale) {
    EACH(i, (i64)rank * rank, W) {
        float v[W];
        load_many<W>(src + i, v);
#pragma unroll
        for (int j = 0; j < W; j++) v[j] *= factor;
        if (copy) store_many<W>(copy + i, v);
        split_row<W>(halves, i / rank, i % rank, rank, v, scale);
    }
}

// src times the member's factor (1 without): as floats into copy (unless null), and split [rank, 4 rank].
extern "C" __global__ void split_square(const float* src, int rank, const float* factors, float* copy, u16* halves,
                                        float scale, int vec) {
    i64 size = (i64)rank * rank;
    src += blockIdx.y * size;
    if (copy) copy += blockIdx.y * size;
    halves += blockIdx.y * 4 * size;
    float factor = factors ? factors[blockIdx.y] : 1.0f;
    if (vec) split_square_of<8>(src, rank, factor, copy, halves, scale);
    else split_square_of<1>(src, rank, factor, copy, halves, scale);
}

template <int W>
DEVICE void split_first_of(const float* r, const float* z, int rank, float a, float b, float c, u16* halves,
                           float scale) {
    EACH(i, (i64)rank * rank, W) {
        float x[W], y[W];
        i64 row = i / rank, col = i % rank;
        load_many<W>(r + i, x);
        load_many<W>(z + i, y);
#pragma unroll
        for (int j = 0; j < W; j++) x[j] = b * x[j] + c * y[j] + (col + j == row ? a : 0.0f);
        split_row<W>(halves, row, col, rank, x, scale);
    }
}

// Q = for_x (a I + b by R + c by^2 Z), split; by and for_x are the member's.
extern "C" __global__ void split_first(const float* r, const float* z, int rank, const float* by, const float* for_x,
                                       float a, float b, float c, u16* halves, float scale, int vec) {
    i64 size = (i64)rank * rank;
    r += blockIdx.y * size;
    z += blockIdx.y * size;
    halves += blockIdx.y * 4 * size;
    float f = for_x[blockIdx.y], s = by[blockIdx.y];
    a *= f, b *= f * s, c *= f * s * s;
    if (vec) split_first_of<8>(r, z, rank, a, b, c, halves, scale);
    else split_first_of<1>(r, z, rank, a, b, c, halves, scale);
}

// C = src + diagonal I, as floats (unless null) and as halves times scale [rank, rank].
extern "C" __global__ void half_square(const float* src, int rank, float diagonal, float* copy, u16* halves,
                                       float scale) {
    i64 size = (i64)rank * rank;
    src += blockIdx.y * size;
    if (copy) copy += blockIdx.y * size;
    halves += blockIdx.y * size;
    EACH(i, size, 1) {
        float x = src[i] + (i % rank == i / rank ? diagonal : 0.0f);
        if (copy) copy[i] = x;
        halves[i] = to_half(x * scale);
    }
}

// y = round(round(a x) + z), or without z y = round(a x), in bf16.
extern "C" __global__ void combine(elem* y, const elem* x, const elem* z, i64 size, float a) {
    y += blockIdx.y * size, x += blockIdx.y * size;
    if (z) z += blockIdx.y * size;
    EACH(i, size, 1) {
        elem scaled = store(a * load(x[i]));
        y[i] = z ? store(load(scaled) + load(z[i])) : scaled;
    }
}
