#line 2 "flash_whole.cu"
// The backward pass of whole heads on an H100: a block has one head of one sequence of at most 512 positions, and forms
// each score once. It goes over tiles of keys and, within one, over the tiles of queries from the diagonal on. Its two
// groups of four warps have 64 keys each, whose dK and dV stay in registers; products are transposed, so that their
// rows are keys, and P^T and dS^T come as left factors for dV and dK as they are. dS goes through shared memory for dQ,
// of which each group has 64 rows; parts of dQ wait in shared memory for the tile on the diagonal, the last one added.
#ifdef ELEM_BF16
#include "warpgroup.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
constexpr int TILE = 128, TILES = 4, GROUP = 128, THREADS = 2 * GROUP;
constexpr int BYTES = tile_bytes(TILE), HALF = BYTES / 2;

// Shared memory: keys and values; two stages of queries and dO; dS; parts of dQ of all tiles but the first, in whose
// place outputs wait for delta before, and keys and values of the third tile come after; delta of all queries; logs of
// the denominators of two stages.
constexpr int AT_STAGES = 2 * BYTES, AT_DS = AT_STAGES + 4 * BYTES, AT_PARTS = AT_DS + 2 * BYTES,
              AT_DELTA = AT_PARTS + (TILES - 1) * 2 * BYTES, AT_LOGS = AT_DELTA + 4 * TILES * TILE;
DEVICE int keys_at(int j) { return j == 2 ? AT_PARTS : 0; }
DEVICE int queries_at(int stage) { return AT_STAGES + stage * 2 * BYTES; }
// Of the queries of one group.
DEVICE int part_at(int i, int group) { return AT_PARTS + (2 * i - 2 + group) * BYTES; }
// Where there is no part of dQ before the tile is done.
DEVICE int output_at(int i) { return part_at(i == 0 ? 2 : i, 0); }

DEVICE void prefetch(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// The four warps of a group meet.
DEVICE void meet(int group) { asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory"); }

// The angles of a warp's 16 rows: a lane has 4 neighbours of every fourth row.
struct Turns {
    float cos[4][4], sin[4][4];
    __device__ __forceinline__ void read(const float *cosines, const float *sines, int t0, int len) {
        int t = t0 + threadIdx.x % 32 / 8, column = threadIdx.x % 8 * 4;
#pragma unroll
        for (int r = 0; r < 4; r++) {
            i64 at = min(t + 4 * r, len - 1) * (i64)(DIM / 2) + column;
            load_vec(cosines + at, cos[r]), load_vec(sines + at, sin[r]);
        }
    }
    __device__ __forceinline__ void none() {
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
            for (int i = 0; i < 4; i++) cos[r][i] = 1.0f, sin[r][i] = 0.0f;
    }
};

// Writes factor c, a warp's 16 rows, turned back, to memory, by way of 4096 bytes of its own.
DEVICE void store_turned(bf16 *to, i64 stride, int rows, u8 *own, const float (&c)[8][4], float factor,
                         const Turns &turns) {
    int lane = threadIdx.x % 32, column = lane % 8 * 4;
    __syncwarp();
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int row = lane / 4 + 8 * h, place = 2 * n + lane % 4 / 2;
            *reinterpret_cast<float2 *>(own + row * 256 + (place ^ 2 * (row % 4)) * 16 + lane % 2 * 8) =
                make_float2(c[n][2 * h], c[n][2 * h + 1]);
        }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < 4; r++) {
        int row = lane / 8 + 4 * r;
        const u8 *from = own + row * 256 + (lane % 8 ^ 2 * (row % 4)) * 16;
        float x[4], y[4], first[4], second[4];
        load_vec(reinterpret_cast<const float *>(from), x), load_vec(reinterpret_cast<const float *>(from + 128), y);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float co = turns.cos[r][i], si = turns.sin[r][i];
            first[i] = factor * (x[i] * co + y[i] * si), second[i] = factor * (y[i] * co - x[i] * si);
        }
        if (row < rows) {
            store_many<4>(to + row * stride + column, first);
            store_many<4>(to + row * stride + DIM / 2 + column, second);
        }
    }
}
#endif

// dQ, dK and dV, the first two turned back where there are tables. Grid: heads and sequences.
extern "C" __global__ void __launch_bounds__(256, 1)
    flash_whole(bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dout, const bf16 *out, const float *lse, const bf16 *q,
                const bf16 *k, const bf16 *v, const float *cos, const float *sin, i64 dq_stride, i64 dk_stride,
                i64 dv_stride, i64 q_stride, i64 k_stride, i64 v_stride, int len, int heads, float scale) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) u8 memory[];
    int lane = threadIdx.x % 32, group = threadIdx.x / GROUP, warp = threadIdx.x / 32 % 4;
    int head = blockIdx.x % heads, tiles = ceil_div(len, TILE);
    i64 row0 = (i64)(blockIdx.x / heads) * len, stride = (i64)heads * DIM;
    u32 base = shared_address(memory);
    float *delta = reinterpret_cast<float *>(memory + AT_DELTA), *logs = reinterpret_cast<float *>(memory + AT_LOGS);
    lse += (i64)blockIdx.x * len;

    auto fetch_k = [&](int j) { Head<THREADS>(k, k_stride, row0, head).fetch<TILE>(base + keys_at(j), j * TILE, len); };
    auto fetch_v = [&](int j) {
        Head<THREADS>(v, v_stride, row0, head).fetch<TILE>(base + keys_at(j) + BYTES, j * TILE, len);
    };
    auto fetch_q = [&](int stage, int i) {
        Head<THREADS>(q, q_stride, row0, head).fetch<TILE>(base + queries_at(stage), i * TILE, len);
    };
    auto fetch_others = [&](int stage, int i, bool with_output) {
        Head<THREADS>(dout, stride, row0, head).fetch<TILE>(base + queries_at(stage) + BYTES, i * TILE, len);
        if (threadIdx.x < TILE) {
            int t = i * TILE + threadIdx.x;
            copy_async<4>(base + AT_LOGS + 4 * (stage * TILE + threadIdx.x), lse + (t < len ? t : 0), t < len);
        }
        if (with_output) Head<THREADS>(out, stride, row0, head).fetch<TILE>(base + output_at(i), i * TILE, len);
    };
    fetch_k(0), fetch_q(0, 0);
    copy_commit();
    fetch_v(0), fetch_others(0, 0, true);
    copy_commit();

    if (threadIdx.x < TILE && threadIdx.x + TILE < len) { // the only keys that no one fetches ahead
        i64 row = row0 + TILE + threadIdx.x;
        prefetch(k + row * k_stride + head * DIM), prefetch(v + row * v_stride + head * DIM);
    }

    float dks[8][4], dvs[8][4];
    float factor = scale * LOG2E;
    u8 *own = memory + AT_DS + group * BYTES + warp * (BYTES / 4); // of this half of dS only the group reads
    u32 ds_tile = base + AT_DS + group * BYTES;
    int stage = 0;
    for (int j = 0; j < tiles; j++) {
        u32 k_tile = base + keys_at(j), v_tile = k_tile + BYTES;
        int t = j * TILE + 64 * group + 16 * warp;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) dks[n][i] = 0.0f, dvs[n][i] = 0.0f;
        for (int i = j; i < tiles; i++, stage ^= 1) {
            u32 q_tile = base + queries_at(stage), do_tile = q_tile + BYTES;
            bool last = i + 1 == tiles;
            if (i == 0) copy_wait<1>(); // keys and queries are enough to begin with
            else copy_wait_all();
            show_products();
            __syncthreads(); // this step's tiles are there for all, and no one reads those of the step before
            float s[16][4], ds[16][4];
            products_begin();
#pragma unroll
            for (int n = 0; n < 4; n++)
                multiply<16>(s, factor_at(k_tile + group * HALF + 32 * n), factor_at(q_tile + 32 * n), n);
            products_end();
            if (i == 0) {
                copy_wait_all();
                show_products();
                __syncthreads();
            }
            products_begin();
#pragma unroll
            for (int n = 0; n < 4; n++)
                multiply<16>(ds, factor_at(v_tile + group * HALF + 32 * n), factor_at(do_tile + 32 * n), n);
            products_end();
            int next = last ? j + 1 : i + 1;
            if (next < tiles) fetch_q(stage ^ 1, next), fetch_others(stage ^ 1, next, j == 0 && !last);
            if (j > 0 && i == j + 1) fetch_k(j + 1), fetch_v(j + 1);
            if (j == 0) {
                const u8 *o = memory + output_at(i), *dos = memory + queries_at(stage) + BYTES;
#pragma unroll 2
                for (int row = threadIdx.x / 8; row < TILE; row += THREADS / 8) {
                    uint4 x = *reinterpret_cast<const uint4 *>(o + piece(row, lane % 8));
                    uint4 y = *reinterpret_cast<const uint4 *>(dos + piece(row, lane % 8));
                    float part = low(x.x) * low(y.x) + high(x.x) * high(y.x);
                    part += low(x.y) * low(y.y) + high(x.y) * high(y.y);
                    part += low(x.z) * low(y.z) + high(x.z) * high(y.z);
                    part += low(x.w) * low(y.w) + high(x.w) * high(y.w);
                    part = warp_reduce<Sum, 8>(part);
                    if (lane % 8 == 0) delta[i * TILE + row] = part;
                }
                __syncthreads();
            }

            products_wait<1>();
            settle(s);
            if (i == j) {
                int key = 64 * group + 16 * warp + lane / 4 - lane % 4 * 2;
#pragma unroll
                for (int n = 0; n < 16; n++)
#pragma unroll
                    for (int m = 0; m < 4; m++)
                        if (key + m / 2 * 8 > 8 * n + m % 2) s[n][m] = Max::empty();
            }
#pragma unroll
            for (int n = 0; n < 16; n++) {
                float2 log = *reinterpret_cast<const float2 *>(logs + stage * TILE + 8 * n + lane % 4 * 2);
                log.x *= LOG2E, log.y *= LOG2E;
#pragma unroll
                for (int m = 0; m < 4; m++) s[n][m] = exp2_fast(fmaf(s[n][m], factor, -(m % 2 ? log.y : log.x)));
            }
            u32 left[8][4];
            as_left(left, s);
            settle(left);
            products_begin();
#pragma unroll
            for (int n = 0; n < 8; n++) multiply_turned(dvs, left[n], factor_at(do_tile + 2048 * n));
            products_end();
            products_wait<1>();
            settle(ds);
#pragma unroll
            for (int n = 0; n < 16; n++) {
                float2 of = *reinterpret_cast<const float2 *>(delta + i * TILE + 8 * n + lane % 4 * 2);
#pragma unroll
                for (int m = 0; m < 4; m++) ds[n][m] = s[n][m] * (ds[n][m] - (m % 2 ? of.y : of.x));
            }
            u32 right[8][4];
            as_left(right, ds);
            // dS^T: of each half of the queries a row for each key.
#pragma unroll
            for (int n = 0; n < 8; n++)
                store_matrices<false>(base + AT_DS + n / 4 * BYTES +
                                   further(piece(64 * group + 16 * warp + lane % 16, lane / 16), n % 4),
                               right[n]);
            show_products();
            settle(right);
            float d[8][4];
            float4 *parts = reinterpret_cast<float4 *>(memory + part_at(i, group)) + threadIdx.x % GROUP;
            if (j > 0) {
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    float4 x = parts[GROUP * n];
                    d[n][0] = x.x, d[n][1] = x.y, d[n][2] = x.z, d[n][3] = x.w;
                }
            } else {
#pragma unroll
                for (int n = 0; n < 8; n++)
#pragma unroll
                    for (int m = 0; m < 4; m++) d[n][m] = 0.0f;
            }
            __syncthreads(); // dS is there for all
            settle(d);
            products_begin();
#pragma unroll
            for (int n = 0; n < 8; n++)
                multiply_turned(d, factor_at(ds_tile + 2048 * n), factor_at(k_tile + 2048 * n));
            products_end();
#pragma unroll
            for (int n = 0; n < 8; n++) multiply_turned(dks, right[n], factor_at(q_tile + 2048 * n));
            products_end();
            products_wait<1>();
            settle(d);
            if (i > j) {
#pragma unroll
                for (int n = 0; n < 8; n++) parts[GROUP * n] = make_float4(d[n][0], d[n][1], d[n][2], d[n][3]);
            } else {
                Turns turns;
                if (cos) turns.read(cos, sin, t, len);
                else turns.none();
                meet(group); // its products have read dS
                store_turned(dq + (row0 + t) * dq_stride + head * DIM, dq_stride, len - t, own, d, scale, turns);
            }
            products_wait<0>();
            settle(dks), settle(dvs);
            if (!last) continue;
            if (j == 0 && tiles > 1) {
                __syncthreads(); // no one reads the first keys any more
                fetch_k(1), fetch_v(1);
            }
            Turns turns;
            if (cos) turns.read(cos, sin, t, len);
            else turns.none();
            meet(group);
            store_turned(dk + (row0 + t) * dk_stride + head * DIM, dk_stride, len - t, own, dks, scale, turns);
            turns.none();
            store_turned(dv + (row0 + t) * dv_stride + head * DIM, dv_stride, len - t, own, dvs, 1.0f, turns);
        }
    }
#else
    __trap();
#endif
}
#endif
