// Whether two results are the same, bit for bit.
#include "common.cuh"

// *count += how many of the `n` 32-bit words differ.
extern "C" __global__ void __launch_bounds__(256) count_differences(const u32 *a, const u32 *b, u32 *count, i64 n) {
    u32 found = 0;
    for (i64 i = (i64)blockIdx.x * 256 + threadIdx.x; i < n; i += (i64)gridDim.x * 256) found += a[i] != b[i];
    if (__syncthreads_or(found != 0) && found) atomicAdd(count, found);
}
