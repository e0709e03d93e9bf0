// Tiles of bf16 in shared memory, for the fragments of tensor_cores.cuh.
#include "tensor_cores.cuh"

// Steps in a chunk, state size, and columns of a head that are worked on at once.
constexpr int CHUNK = 64, STATE = 128, SLICE = 32;
// Threads of a team, four warps.
constexpr int TEAM = 128;

// The number of a warp in its team, and of a team in its block: known to be the same in all lanes of a warp.
DEVICE int warp_of_team() { return __shfl_sync(0xffffffffu, (int)(threadIdx.x / 32 % 4), 0); }
DEVICE int team_of_block() { return __shfl_sync(0xffffffffu, (int)(threadIdx.x / TEAM), 0); }

// Where a piece of 16 bytes of a row of W elements lies, such that eight rows at one piece, as ldmatrix reads them, are
// in different banks: wide rows are one piece apart, in others the pieces are moved about.
template <int W> constexpr int ROW_BYTES = W == STATE ? W * 2 + 16 : W * 2;
template <int W> DEVICE u32 place(u32 tile, int row, int piece) {
    if constexpr (W == STATE) {
        return tile + row * ROW_BYTES<W> + piece * 16;
    } else if constexpr (W == SLICE) {
        return tile + row * ROW_BYTES<W> + ((piece ^ (row >> 1 & 3)) << 4);
    } else {
        return tile + row * ROW_BYTES<W> + ((piece ^ (row & 7)) << 4);
    }
}

template <int W> constexpr int TILE_BYTES = CHUNK * ROW_BYTES<W>;
constexpr int STATE_BYTES = STATE * ROW_BYTES<SLICE>;

// What chunk_steps leaves of the steps of a chunk of a head, CHUNK each: dt; the log2 of the decay from the begin of
// the chunk through the step; that decay; dt times the decay from after the step to the chunk's end; the derivative of
// dt.
enum { DT, LOG, DECAY, WEIGHT, SLOPE, PARTS };
constexpr int PART_BYTES = CHUNK * 4;

// The 16 x 16 block whose first row and piece are given, as A; or, from a tile that holds A^T, with rows along k.
template <int W> DEVICE void read_a(u32 (&a)[4], u32 tile, int row, int piece) {
    int lane = threadIdx.x % 32;
    load_matrices<false>(a, place<W>(tile, row + lane % 16, piece + lane / 16));
}
template <int W> DEVICE void read_a_of_transpose(u32 (&a)[4], u32 tile, int row, int piece) {
    int lane = threadIdx.x % 32;
    load_matrices<true>(a, place<W>(tile, row + lane % 8 + lane / 16 * 8, piece + lane / 8 % 2));
}
// The same as B of two column tiles, b[0..2] and b[2..4]: from a tile with rows along k, or from B^T with k along rows.
template <int W> DEVICE void read_b(u32 (&b)[4], u32 tile, int row, int piece) {
    int lane = threadIdx.x % 32;
    load_matrices<true>(b, place<W>(tile, row + lane % 16, piece + lane / 16));
}
template <int W> DEVICE void read_b_of_transpose(u32 (&b)[4], u32 tile, int row, int piece) {
    int lane = threadIdx.x % 32;
    load_matrices<false>(b, place<W>(tile, row + lane % 8 + lane / 16 * 8, piece + lane / 8 % 2));
}

// C += A B for two column tiles.
DEVICE void mma2(float (&c0)[4], float (&c1)[4], const u32 (&a)[4], const u32 (&b)[4]) {
    mma(c0, a, b[0], b[1]);
    mma(c1, a, b[2], b[3]);
}

// The first `live` rows of W columns into a tile, zeros below; by COUNT threads.
template <int W, int COUNT> DEVICE void copy_tile(u32 tile, const bf16 *from, int stride, int live, u32 thread) {
    constexpr int PIECES = W / 8, STEP = COUNT / PIECES; // rows at a time
    static_assert(COUNT % PIECES == 0 && STEP % 8 == 0, "the place in a row stays the same");
    int row = thread / PIECES, piece = thread % PIECES;
    u32 to = place<W>(tile, row, piece);
    const bf16 *at = from + row * stride + piece * 8;
#pragma unroll
    for (int i = 0; i < CHUNK; i += STEP) {
        bool real = row + i < live;
        if (CHUNK % STEP == 0 || row + i < CHUNK) copy_async(to + i * ROW_BYTES<W>, at + i * stride, real);
    }
}
// A state [N, 32], whole in memory; by COUNT threads.
template <int COUNT> DEVICE void copy_state(u32 tile, const bf16 *from, u32 thread) {
    u32 to = place<SLICE>(tile, thread / 4, thread % 4);
#pragma unroll
    for (int i = 0; i < STATE * SLICE; i += COUNT * 8) copy_async(to + i * 2, from + i + thread * 8, true);
}
// COUNT parts of the steps of a chunk of a head.
template <int COUNT> DEVICE void copy_steps(u32 to, const float *from, u32 thread) {
    if (thread < COUNT * CHUNK / 4) copy_async(to + thread * 16, from + thread * 4, true);
}

DEVICE u32 read_word(u32 from) {
    u32 x;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(from));
    return x;
}
DEVICE void write_word(u32 to, u32 x) { asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(x) : "memory"); }

DEVICE u32 scale_pair(u32 pair, float of_low, float of_high) {
    return round_bf16x2(low(pair) * of_low, high(pair) * of_high);
}

// Among the four lanes of a quad: word k of lane q goes to word q of lane k.
DEVICE void transpose_quad(u32 (&x)[4]) {
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2) {
        bool upper = threadIdx.x & bit;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (k & bit) continue;
            u32 got = __shfl_xor_sync(0xffffffffu, upper ? x[k] : x[k | bit], bit);
            if (upper) {
                x[k] = got;
            } else {
                x[k | bit] = got;
            }
        }
    }
}

DEVICE float quad_sum(float x) { return warp_reduce<Sum, 4>(x); }

// Where a block's chunk lies, and what a head takes part in. Rows of the batch: sequence b, step t is row b len + t.
struct Sizes {
    int len, chunks, heads, slices, groups;

    __device__ __forceinline__ Sizes(int len, int heads, int slices, int groups)
        : len(len), chunks(ceil_div(len, CHUNK)), heads(heads), slices(slices), groups(groups) {}

    // Slices of all heads; the columns of x are SLICE times as many.
    __device__ __forceinline__ int wide() const { return heads * slices; }
    __device__ __forceinline__ int stride() const { return wide() * SLICE + 2 * groups * STATE; }
    __device__ __forceinline__ int inner() const { return wide() * SLICE; }
    __device__ __forceinline__ int group(int slice) const { return slice / (wide() / groups); }
    // First columns of B and C.
    __device__ __forceinline__ int b(int group) const { return wide() * SLICE + group * STATE; }
    __device__ __forceinline__ int c(int group) const { return b(group) + groups * STATE; }
    // Steps of a chunk that are real.
    __device__ __forceinline__ int live(int chunk) const { return min(CHUNK, len - chunk * CHUNK); }
    __device__ __forceinline__ int head(int slice) const { return slices == 1 ? slice : slice / slices; }
    // Place of a chunk of a slice's head in steps [B, H, chunks, PARTS, CHUNK].
    __device__ __forceinline__ i64 steps(int sequence, int slice, int chunk) const {
        return (((i64)sequence * heads + head(slice)) * chunks + chunk) * (PARTS * CHUNK);
    }
    // Place of a state in [B, chunks, H slices, N, P].
    __device__ __forceinline__ i64 state(int sequence, int slice, int chunk) const {
        return (((i64)sequence * chunks + chunk) * wide() + slice) * (STATE * SLICE);
    }
};
