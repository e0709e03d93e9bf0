// Normal numbers from seeded streams: the generator and the transform of random.rs, in f64 as there.
#include "common.cuh"

DEVICE u64 mix(u64 z) {
    z += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

DEVICE double uniform(u64 state, u64 i) {
    return (double)(mix(state + i * 0x9e3779b97f4a7c15ull) >> 11) * 0x1p-53;
}

// out [members, size]: member l from the stream with state states[l]. Grid (blocks, members); a thread makes a pair.
extern "C" __global__ void __launch_bounds__(256)
normal(const u64 *__restrict__ states, i64 members, float *__restrict__ out, i64 size, float std) {
    for (i64 l = blockIdx.y; l < members; l += gridDim.y) {
        u64 state = states[l];
        float *member = out + l * size;
        i64 pairs = (size + 1) / 2;
        for (i64 pair = blockIdx.x * (i64)blockDim.x + threadIdx.x; pair < pairs; pair += (i64)gridDim.x * blockDim.x) {
            double radius = sqrt(-2.0 * log(1.0 - uniform(state, 2 * pair))) * (double)std;
            double sine, cosine;
            sincos(6.283185307179586 * uniform(state, 2 * pair + 1), &sine, &cosine);
            member[2 * pair] = (float)(radius * cosine);
            if (2 * pair + 1 < size) member[2 * pair + 1] = (float)(radius * sine);
        }
    }
}
