#line 2 "flash.cuh"
// Tiles of attention on tensor cores (tensor_cores.cuh): rows of HEAD_DIM elements in shared memory. The kernels are in
// flash_forward.cu, flash_backward.cu and flash_whole.cu; HEAD_DIM and the sizes of tiles are defined by flash.rs and
// whole.rs. Storage is bf16 alone.
#include "tensor_cores.cuh"
#ifdef ELEM_BF16

constexpr int DIM = HEAD_DIM;
static_assert(DIM % 32 == 0, "pieces of a row go to four lanes, pairs of rotary positions to whole fragments");
constexpr int PIECES = DIM / 8; // of 16 bytes, in a row
constexpr float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;

// Bytes of a tile.
static __host__ __device__ constexpr int tile_bytes(int rows) { return rows * DIM * (int)sizeof(bf16); }

// Where a piece of a row lies in a tile: turned within TURN pieces, so that those of one place in 8 rows are in all
// banks.
constexpr int TURN = DIM % 64 == 0 ? 8 : 4;
DEVICE u32 piece(int row, int place) { return (row * PIECES + (place ^ row * TURN / 8 % TURN)) * 16; }

// From a piece whose place is 0 or 1 to the one 2 k places on.
DEVICE u32 further(u32 piece, int k) { return (piece ^ 32 * (k % (TURN / 2))) + 16 * TURN * (k / (TURN / 2)); }

// A head's matrix in rows of several heads: what a thread of a block of THREADS copies of it.
template <int THREADS> struct Head {
    static constexpr int STEP = THREADS / TURN; // rows of the whole block at a time, TURN pieces of each
    const bf16 *first;
    int stride; // elements from row to row
    __device__ __forceinline__ Head(const bf16 *rows, i64 stride, i64 row0, int head)
        : first(rows + (row0 + threadIdx.x / TURN) * stride + head * DIM + threadIdx.x % TURN * 8),
          stride((int)stride) {}
    // Begins to fill a tile with ROWS rows from t0 on; zeros from `len` on.
    template <int ROWS> __device__ __forceinline__ void fetch(u32 tile, int t0, int len) const {
        static_assert(ROWS % STEP == 0, "whole steps");
        u32 to = tile + piece(threadIdx.x / TURN, threadIdx.x % TURN);
        const bf16 *from = first + (i64)t0 * stride;
        int rows = len - t0 - (int)threadIdx.x / TURN;
#pragma unroll
        for (int row = 0; row < ROWS; row += STEP)
#pragma unroll
            for (int i = 0; i < PIECES / TURN; i++)
                copy_async<16>(to + tile_bytes(row) + 16 * TURN * i, from + row * stride + 8 * TURN * i, row < rows);
    }
};

// A warp's own 16 M rows of a tile as left operands, KEPT in registers or read anew each time.
template <int M, bool KEPT> struct Rows {
    u32 tile;
    u32 kept[KEPT ? DIM / 16 : 1][M][4];

    __device__ __forceinline__ void read(int k, u32 (&a)[M][4]) const {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int m = 0; m < M; m++)
            load_matrices<false>(a[m], tile + tile_bytes(16 * m) + further(piece(lane % 16, lane / 16), k));
    }
    // Once the tile is there.
    __device__ __forceinline__ void keep() {
        if constexpr (KEPT) {
#pragma unroll
            for (int k = 0; k < DIM / 16; k++) read(k, kept[k]);
        }
    }
    __device__ __forceinline__ void get(int k, u32 (&a)[M][4]) const {
        if constexpr (KEPT) {
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int i = 0; i < 4; i++) a[m][i] = kept[k][m][i];
        } else {
            read(k, a);
        }
    }
};

// c = a b^T over the head's width: columns of c are 8 N rows of a tile.
template <int M, int N, bool KEPT> DEVICE void over_width(float (&c)[M][N][4], const Rows<M, KEPT> &a, u32 tile) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) c[m][n][i] = 0.0f;
#pragma unroll
    for (int k = 0; k < DIM / 16; k++) {
        u32 x[M][4];
        a.get(k, x);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            u32 b[4];
            u32 at = further(piece(lane % 8 + lane / 16 * 8, lane / 8 % 2), k);
            load_matrices<false>(b, tile + tile_bytes(8 * n) + at);
#pragma unroll
            for (int m = 0; m < M; m++) mma(c[m][n], x[m], b[0], b[1]), mma(c[m][n + 1], x[m], b[2], b[3]);
        }
    }
}

// c += a b over 8 N positions: b is as many rows of a tile, a was a product's result.
template <int M, int N>
DEVICE void over_positions(float (&c)[M][DIM / 8][4], const float (&a)[M][N][4], u32 tile) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < N; k += 2) {
        u32 x[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) {
            x[m][0] = round_bf16x2(a[m][k][0], a[m][k][1]), x[m][1] = round_bf16x2(a[m][k][2], a[m][k][3]);
            x[m][2] = round_bf16x2(a[m][k + 1][0], a[m][k + 1][1]);
            x[m][3] = round_bf16x2(a[m][k + 1][2], a[m][k + 1][3]);
        }
#pragma unroll
        for (int n = 0; n < DIM / 8; n += 2) {
            u32 b[4];
            load_matrices<true>(b, tile + tile_bytes(8 * k) + further(piece(lane % 16, lane / 16), n / 2));
#pragma unroll
            for (int m = 0; m < M; m++) mma(c[m][n], x[m], b[0], b[1]), mma(c[m][n + 1], x[m], b[2], b[3]);
        }
    }
}

// Turns pairs (j, j + DIM / 2) of a warp's rows back by the angles of their positions, the first of which is t0.
template <int M>
DEVICE void turn_back(float (&c)[M][DIM / 8][4], const float *cos, const float *sin, int t0, int len) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            i64 at = min(t0 + 16 * m + lane / 4 + 8 * h, len - 1) * (i64)(DIM / 2) + lane % 4 * 2;
            float2 co[DIM / 16], si[DIM / 16];
#pragma unroll
            for (int n = 0; n < DIM / 16; n++) {
                co[n] = *reinterpret_cast<const float2 *>(cos + at + 8 * n);
                si[n] = *reinterpret_cast<const float2 *>(sin + at + 8 * n);
            }
#pragma unroll
            for (int n = 0; n < DIM / 16; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float &x = c[m][n][2 * h + j], &y = c[m][n + DIM / 16][2 * h + j];
                    float a = x, b = y, cosine = j ? co[n].y : co[n].x, sine = j ? si[n].y : si[n].x;
                    x = a * cosine + b * sine, y = b * cosine - a * sine;
                }
        }
}

// Writes factor c, a warp's 16 M rows, to memory, by way of its own rows of a tile that no one else reads any more.
template <int M>
DEVICE void store_rows(bf16 *to, i64 stride, int rows, u8 *tile, const float (&c)[M][DIM / 8][4],
                       const float (&factor)[M][2]) {
    int lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < DIM / 8; n++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                u32 pair = round_bf16x2(factor[m][h] * c[m][n][2 * h], factor[m][h] * c[m][n][2 * h + 1]);
                *reinterpret_cast<u32 *>(tile + piece(16 * m + lane / 4 + 8 * h, n) + lane % 4 * 4) = pair;
            }
    __syncwarp();
#pragma unroll
    for (int i = lane; i < 16 * M * PIECES; i += 32) {
        int row = i / PIECES, place = i % PIECES;
        if (row < rows)
            *reinterpret_cast<uint4 *>(to + row * stride + place * 8) =
                *reinterpret_cast<const uint4 *>(tile + piece(row, place));
    }
}

// Over the four lanes that have a row of a fragment.
DEVICE float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
DEVICE float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
#endif
