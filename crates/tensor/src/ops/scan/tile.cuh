// What the sweeps of the scan have in common: which part of the state a thread has, how inputs come, how sums leave.
//
// One block of 128 threads has one sequence, head and slice of the head's columns, with the whole state S [N, P] in
// registers: a thread holds NT rows n and PT columns p of it. A warp has 4 x 8 threads: `nl` counts along n, `pl`
// along p; the four warps lie along n. So N <= 16 NT =: NP and a slice has up to 8 PT =: PW columns. Inputs come
// through shared memory by tiles of TT steps, as f32, zero beyond the real sizes: there the state stays zero. Shared
// memory holds two tiles, so that one barrier a tile is enough.
#include "common.cuh"

constexpr int THREADS = 128;
constexpr int WARPS = THREADS / 32;
// Steps in a tile.
constexpr int TT = 8;
// Steps between two exact values of the decay's gradient; a multiple of TT.
constexpr int EDGE = 64;
// Steps unrolled: worth its compile time for the state size of the published models.
template <int NT> constexpr int UNROLL = NT == 8 ? 4 : 1;

// Sizes and places. Rows are those of the batch: sequence b, step t is row b len + t.
struct Task {
    i64 row0;     // first row of the sequence
    i64 block;    // (b H + h) slices + slice
    i64 steps;    // place of the head's first step in dt and decay [B, H, T]
    i64 part;     // place of the block in a row of partial sums [H, slices, NP]
    int head;
    int column;   // first column of the slice in y and x
    int width;    // columns of the slice
    int b, c;     // first columns of B and C
};

DEVICE Task task_of_block(int len, int heads, int dim, int groups, int state, int slices, int slice_width) {
    Task task;
    i64 sequence_head = blockIdx.x / slices;
    int slice = blockIdx.x % slices;
    int head = (int)(sequence_head % heads);
    task.row0 = sequence_head / heads * len;
    task.block = blockIdx.x;
    task.steps = sequence_head * len;
    task.part = head * slices + slice;
    task.head = head;
    task.column = head * dim + slice * slice_width;
    task.width = min(slice_width, dim - slice * slice_width);
    task.b = heads * dim + head / (heads / groups) * state;
    task.c = task.b + groups * state;
    return task;
}

// A matrix of `width` elements a row that comes tile by tile: fetched into registers while the tile before it is worked
// on, then put into shared memory, TT x W floats with zeros beyond the real sizes.
template <int W> struct Stream {
    const elem *from;
    i64 stride;
    int width;
    bool vec; // 16 bytes at once: pointer, stride and width allow it; if not, all happens when the tile is put

    static constexpr int VECTORS = W / VEC, COUNT = ceil_div(TT * VECTORS, THREADS);
    uint4 raw[COUNT];

    __device__ __forceinline__ Stream(const elem *from, i64 stride, int width, int vec)
        : from(from), stride(stride), width(width), vec(vec) {}

    __device__ __forceinline__ void fetch(int t0, int rows) {
        if (!vec) return;
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            int at = i * THREADS + threadIdx.x, t = at / VECTORS, column = at % VECTORS * VEC;
            bool real = t < rows && column < width;
            const elem *place = from + (t0 + t) * stride + column;
            raw[i] = real ? *reinterpret_cast<const uint4 *>(place) : make_uint4(0, 0, 0, 0);
        }
    }

    __device__ __forceinline__ void put(float (&to)[TT][W], int t0, int rows) const {
        if (vec) {
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                int at = i * THREADS + threadIdx.x, t = at / VECTORS, column = at % VECTORS * VEC;
                if (t >= TT) break;
                float x[VEC];
                load_vec(reinterpret_cast<const elem *>(&raw[i]), x);
#pragma unroll
                for (int j = 0; j < VEC; j += 4)
                    *reinterpret_cast<float4 *>(&to[t][column + j]) = make_float4(x[j], x[j + 1], x[j + 2], x[j + 3]);
            }
        } else {
            for (int at = threadIdx.x; at < TT * W; at += THREADS) {
                int t = at / W, column = at % W;
                to[t][column] = t < rows && column < width ? load(from[(t0 + t) * stride + column]) : 0.0f;
            }
        }
    }
};

// dt and decay of a head, likewise.
struct Steps {
    const float *dt, *decay;
    float2 raw;

    __device__ __forceinline__ Steps(const float *dt, const float *decay) : dt(dt), decay(decay) {}

    __device__ __forceinline__ void fetch(int t0, int rows) {
        int t = threadIdx.x;
        raw = t < rows ? make_float2(dt[t0 + t], decay[t0 + t]) : make_float2(0.0f, 0.0f);
    }

    __device__ __forceinline__ void put(float2 (&to)[TT]) const {
        if (threadIdx.x < TT) to[threadIdx.x] = raw;
    }
};

// N consecutive floats of shared memory, aligned to their size up to 16 bytes.
template <int N> DEVICE void read(float (&x)[N], const float *from) {
    if constexpr (N % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            float4 v = *reinterpret_cast<const float4 *>(from + i);
            x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = from[i];
    }
}

// Sums each of x[0..COUNT) over the lanes that differ in the bits HIGH, HIGH / 2, ..., LOW, and spreads the sums over
// them: with k those bits of the lane as a number, of L lanes, the lane ends with sums COUNT / L * k + i in x[i]. With
// fewer sums than lanes, sum COUNT * k / L (rounded down) in x[0].
template <int COUNT, int HIGH, int LOW, int SIZE> DEVICE void spread_sum(float (&x)[SIZE]) {
    if constexpr (COUNT > 1) {
        bool upper = threadIdx.x & HIGH;
#pragma unroll
        for (int i = 0; i < COUNT / 2; i++) {
            float sent = upper ? x[i] : x[i + COUNT / 2];
            float kept = upper ? x[i + COUNT / 2] : x[i];
            x[i] = kept + __shfl_xor_sync(0xffffffffu, sent, HIGH);
        }
    } else {
        x[0] += __shfl_xor_sync(0xffffffffu, x[0], HIGH);
    }
    if constexpr (HIGH > LOW) spread_sum<(COUNT > 1 ? COUNT / 2 : 1), HIGH / 2, LOW>(x);
}

// Place of a thread in the state.
template <int NT, int PT> struct Place {
    int warp = threadIdx.x / 32, nl = threadIdx.x / 8 % 4, pl = threadIdx.x % 8;
    int n = (warp * 4 + nl) * NT, p = pl * PT;

    // Sums over p: x[i] for each own n, from own columns, goes to the row of partial sums `to` [NP].
    __device__ __forceinline__ void sum_columns(float (&x)[NT], float *to, bool live) const {
        spread_sum<NT, 4, 1>(x);
        if constexpr (NT >= 8) {
            constexpr int KEPT = NT / 8;
#pragma unroll
            for (int i = 0; i < KEPT; i++)
                if (live) to[n + KEPT * pl + i] = x[i];
        } else {
            constexpr int SAME = 8 / NT;
            if (live && pl % SAME == 0) to[n + pl / SAME] = x[0];
        }
    }

    // Sums over n of the warp: scale x[j] for each own p, plus `skip` times `extra` [PW] in the first warp, goes to the
    // row `to` [PW] of the warp.
    __device__ __forceinline__ void sum_rows(float (&x)[PT], float *to, float scale, float skip,
                                             const float *extra) const {
        constexpr int KEPT = PT / 4;
        spread_sum<PT, 16, 8>(x);
        float share = warp == 0 ? skip : 0.0f;
#pragma unroll
        for (int i = 0; i < KEPT; i++) {
            int at = p + KEPT * nl + i;
            to[at] = fmaf(share, extra[at], scale * x[i]);
        }
    }
};

// Adds up the warps' sums of a tile and stores the real ones, `stride` from row to row.
template <int PW>
DEVICE void store_sums(elem *to, const float (&sums)[WARPS][TT][PW], i64 stride, int rows, int width) {
    for (int i = threadIdx.x; i < rows * PW; i += THREADS) {
        int t = i / PW, p = i % PW;
        float sum = (sums[0][t][p] + sums[1][t][p]) + (sums[2][t][p] + sums[3][t][p]);
        if (p < width) to[t * stride + p] = store(sum);
    }
}
