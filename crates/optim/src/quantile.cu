// Radix select over the magnitudes of each member of a bank. Grid (parts, members). State of a member: the bits found
// so far, the rank among the magnitudes that have them (the number of those equal to it after the last pass), the least
// magnitude above.
#include "common.cuh"

#define EACH(i, n) for (i64 i = blockIdx.x * (i64)blockDim.x + threadIdx.x; i < n; i += (i64)gridDim.x * blockDim.x)

DEVICE u32 magnitude(elem x) { return __float_as_uint(load(x)) & 0x7fffffffu; }

// Counts the next `bits` bits, those from `shift` on, of the magnitudes that begin with what was found.
extern "C" __global__ void count(const elem *x, i64 size, const u32 *state, int shift, int bits, u32 *counts) {
    __shared__ u32 local[2048];
    int bins = 1 << bits;
    for (int i = threadIdx.x; i < bins; i += blockDim.x) local[i] = 0;
    __syncthreads();
    x += blockIdx.y * size;
    u32 found = state[3 * blockIdx.y];
    EACH(i, size) {
        u32 m = magnitude(x[i]);
        if ((u64)m >> (shift + bits) == (u64)found >> (shift + bits)) atomicAdd(&local[m >> shift & (bins - 1)], 1u);
    }
    __syncthreads();
    counts += blockIdx.y * 2048ll;
    for (int i = threadIdx.x; i < bins; i += blockDim.x)
        if (local[i]) atomicAdd(&counts[i], local[i]);
}

// Finds the bin that holds the rank; `rank` is given in the first pass and -1 after.
extern "C" __global__ void choose(u32 *state, int shift, int bits, const u32 *counts, int rank) {
    if (threadIdx.x) return;
    state += 3 * blockIdx.y, counts += blockIdx.y * 2048ll;
    u32 left = rank < 0 ? state[1] : (u32)rank, bin = 0;
    while (left >= counts[bin]) left -= counts[bin++];
    state[0] |= bin << shift;
    // After the last pass: whether the next in order is equal.
    state[1] = shift == 0 ? (left + 1 < counts[bin] ? 1u : 0u) : left;
    state[2] = 0x7f800000u;
}

extern "C" __global__ void next_above(const elem *x, i64 size, u32 *state) {
    x += blockIdx.y * size, state += 3 * blockIdx.y;
    u32 found = state[0], least = 0x7f800000u;
    EACH(i, size) {
        u32 m = magnitude(x[i]);
        if (m > found && m < least) least = m;
    }
    for (int d = 16; d; d /= 2) least = min(least, __shfl_xor_sync(~0u, least, d));
    if (threadIdx.x % 32 == 0) atomicMin(&state[2], least);
}

extern "C" __global__ void interpolate(const u32 *state, float part, float *out) {
    if (threadIdx.x) return;
    state += 3 * blockIdx.y;
    float low = __uint_as_float(state[0]);
    // The largest of all has none above.
    float high = state[1] || state[2] == 0x7f800000u ? low : __uint_as_float(state[2]);
    out[blockIdx.y] = low + part * (high - low);
}
