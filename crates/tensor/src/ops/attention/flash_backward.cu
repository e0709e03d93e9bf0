#line 2 "flash_backward.cu"
#ifdef ELEM_BF16
// With P the softmax, made again from the logs of its denominators, and delta = rowsum(dO O):
//   dV = P^T dO,  dS = P (dO V^T - delta),  dQ = scale dS K,  dK = scale dS^T Q.
// Two kernels, each of which owns what it writes: one has rows of queries and goes over keys, the other has rows of
// keys and goes over the queries of all heads that read them. Both form S and dO V^T; nothing is added up in memory.

// dQ, turned back where there are tables, and delta [B, heads, T].
// Grid: heads and sequences; tiles of queries, those with most keys first.
extern "C" __global__ void __launch_bounds__(32 * QUERIES_WARPS, QUERIES_BLOCKS)
    flash_backward_queries(bf16 *dq, float *delta, const bf16 *dout, const bf16 *out, const float *lse, const bf16 *q,
                           const bf16 *k, const bf16 *v, const float *cos, const float *sin, i64 dq_stride,
                           i64 q_stride, i64 k_stride, i64 v_stride, int len, int heads, int group, float scale) {
    constexpr int M = QUERIES_TILES, KEYS = QUERIES_KEYS, SUB = QUERIES_SUB, N = SUB / 8, ROWS = 16 * M * QUERIES_WARPS;
    extern __shared__ __align__(128) u8 memory[];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int head = blockIdx.x % heads, q0 = (gridDim.y - 1 - blockIdx.y) * ROWS, w0 = q0 + 16 * M * warp;
    i64 row0 = (i64)(blockIdx.x / heads) * len, stride = (i64)heads * DIM, statistics = (i64)blockIdx.x * len;
    u32 q_tile = shared_address(memory), do_tile = q_tile + tile_bytes(ROWS), stages = do_tile + tile_bytes(ROWS);
    Head<32 * QUERIES_WARPS> q_head(q, q_stride, row0, head), do_head(dout, stride, row0, head),
        k_head(k, k_stride, row0, head / group), v_head(v, v_stride, row0, head / group);
    auto fetch_keys = [&](int n0) {
        u32 stage = stages + n0 / KEYS % 2 * tile_bytes(2 * KEYS);
        k_head.fetch<KEYS>(stage, n0, len);
        v_head.fetch<KEYS>(stage + tile_bytes(KEYS), n0, len);
    };
    q_head.fetch<ROWS>(q_tile, q0, len);
    do_head.fetch<ROWS>(do_tile, q0, len);
    fetch_keys(0);

    float own[M][2], log2_sum[M][2];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int t = w0 + 16 * m + lane / 4 + 8 * h;
            float part = 0.0f;
            log2_sum[m][h] = 0.0f;
            if (t < len) {
                log2_sum[m][h] = lse[statistics + t] * LOG2E;
#pragma unroll
                for (int i = 0; i < DIM / 32; i++) {
                    float x[8], y[8];
                    i64 from = (row0 + t) * stride + head * DIM + (lane % 4 + 4 * i) * 8;
                    load_vec(out + from, x), load_vec(dout + from, y);
#pragma unroll
                    for (int j = 0; j < 8; j++) part = fmaf(x[j], y[j], part);
                }
            }
            own[m][h] = row_sum(part);
            if (lane % 4 == 0 && t < len) delta[statistics + t] = own[m][h];
        }

    Rows<M, QUERIES_KEPT> q_rows{q_tile + warp * tile_bytes(16 * M)}, do_rows{do_tile + warp * tile_bytes(16 * M)};
    float d[M][DIM / 8][4] = {};
    float factor = scale * LOG2E;
    for (int n0 = 0; n0 < min(q0 + ROWS, len); n0 += KEYS) {
        copy_wait_all();
        __syncthreads(); // these keys are there for all, and no one reads those before them
        if (n0 + KEYS < min(q0 + ROWS, len)) fetch_keys(n0 + KEYS);
        if (n0 == 0) q_rows.keep(), do_rows.keep();
        u32 k_tile = stages + n0 / KEYS % 2 * tile_bytes(2 * KEYS), v_tile = k_tile + tile_bytes(KEYS);
#pragma unroll
        for (int s0 = n0; s0 < n0 + KEYS; s0 += SUB, k_tile += tile_bytes(SUB), v_tile += tile_bytes(SUB)) {
            if (s0 >= w0 + 16 * M || w0 >= len) break; // all masked, or no rows
            float s[M][N][4], ds[M][N][4];
            over_width(s, q_rows, k_tile);
            over_width(ds, do_rows, v_tile);
            bool masked = s0 + SUB - 1 > w0;
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int n = 0; n < N; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        float p = exp2_fast(fmaf(s[m][n][i], factor, -log2_sum[m][i / 2]));
                        int t = w0 + 16 * m + lane / 4 + i / 2 * 8, key = s0 + 8 * n + lane % 4 * 2 + i % 2;
                        if (masked && key > t) p = 0.0f;
                        ds[m][n][i] = p * (ds[m][n][i] - own[m][i / 2]);
                    }
            over_positions(d, ds, k_tile);
        }
    }
    if (w0 >= len) return;
    if (cos) turn_back(d, cos, sin, w0, len);
    float factors[M][2];
#pragma unroll
    for (int m = 0; m < M; m++) factors[m][0] = factors[m][1] = scale;
    store_rows(dq + (row0 + w0) * dq_stride + head * DIM, dq_stride, len - w0, memory + warp * tile_bytes(16 * M), d,
               factors);
}

// dK, turned back where there are tables, and dV. Products are transposed: their rows are keys, their columns queries.
// Grid: key heads and sequences; tiles of keys, those with most queries first.
extern "C" __global__ void __launch_bounds__(32 * KEYS_WARPS, KEYS_BLOCKS)
    flash_backward_keys(bf16 *dk, bf16 *dv, const bf16 *dout, const float *lse, const float *delta, const bf16 *q,
                        const bf16 *k, const bf16 *v, const float *cos, const float *sin, i64 dk_stride, i64 dv_stride,
                        i64 q_stride, i64 k_stride, i64 v_stride, int len, int heads, int group, float scale) {
    constexpr int M = KEYS_TILES, QUERIES = KEYS_QUERIES, SUB = KEYS_SUB, N = SUB / 8, THREADS = 32 * KEYS_WARPS;
    constexpr int ROWS = THREADS / 2 * M;
    static_assert(2 * QUERIES <= THREADS, "a thread fetches one number of one query");
    constexpr int STAGE = tile_bytes(2 * QUERIES) + 2 * QUERIES * (int)sizeof(float);
    extern __shared__ __align__(128) u8 memory[];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, key_heads = heads / group;
    int key_head = blockIdx.x % key_heads, k0 = blockIdx.y * ROWS, w0 = k0 + 16 * M * warp;
    i64 sequence = blockIdx.x / key_heads, row0 = sequence * len, stride = (i64)heads * DIM;
    u32 k_tile = shared_address(memory), v_tile = k_tile + tile_bytes(ROWS);
    u8 *stages = memory + 2 * tile_bytes(ROWS);
    Head<THREADS>(k, k_stride, row0, key_head).fetch<ROWS>(k_tile, k0, len);
    Head<THREADS>(v, v_stride, row0, key_head).fetch<ROWS>(v_tile, k0, len);
    // Step i: some queries of one head, from the first tile that sees a key of this block. Rows beyond the end are
    // zeros, of dO and delta too, and so are their parts of the sums.
    int first = k0 / QUERIES, tiles = ceil_div(len, QUERIES) - first;
    auto fetch_queries = [&](int step) {
        int head = key_head * group + step / tiles, t0 = (first + step % tiles) * QUERIES;
        u8 *stage = stages + step % 2 * STAGE;
        Head<THREADS>(q, q_stride, row0, head).fetch<QUERIES>(shared_address(stage), t0, len);
        Head<THREADS>(dout, stride, row0, head).fetch<QUERIES>(shared_address(stage) + tile_bytes(QUERIES), t0, len);
        if (threadIdx.x < 2 * QUERIES) {
            int t = threadIdx.x % QUERIES;
            const float *from = (threadIdx.x < QUERIES ? lse : delta) + (sequence * heads + head) * len;
            bool valid = t0 + t < len;
            copy_async<4>(shared_address(stage) + tile_bytes(2 * QUERIES) + 4 * threadIdx.x,
                          from + (valid ? t0 + t : 0), valid);
        }
    };
    fetch_queries(0);

    Rows<M, KEYS_KEPT> k_rows{k_tile + warp * tile_bytes(16 * M)}, v_rows{v_tile + warp * tile_bytes(16 * M)};
    float dks[M][DIM / 8][4] = {}, dvs[M][DIM / 8][4] = {};
    float factor = scale * LOG2E;
    for (int step = 0; step < tiles * group; step++) {
        copy_wait_all();
        __syncthreads(); // these queries are there for all, and no one reads those before them
        if (step + 1 < tiles * group) fetch_queries(step + 1);
        if (step == 0) k_rows.keep(), v_rows.keep();
        if (w0 >= len) continue;
        u8 *stage = stages + step % 2 * STAGE;
        const float *lses = reinterpret_cast<const float *>(stage + tile_bytes(2 * QUERIES));
        int t0 = (first + step % tiles) * QUERIES;
#pragma unroll
        for (int s0 = 0; s0 < QUERIES; s0 += SUB) {
            if (t0 + s0 + SUB <= w0) continue; // all masked
            u32 q_tile = shared_address(stage) + tile_bytes(s0), do_tile = q_tile + tile_bytes(QUERIES);
            float p[M][N][4], ds[M][N][4];
            over_width(p, k_rows, q_tile);
            bool masked = t0 + s0 < w0 + 16 * M - 1;
#pragma unroll
            for (int n = 0; n < N; n++) {
                int column = s0 + 8 * n + lane % 4 * 2;
                float2 log_sum = *reinterpret_cast<const float2 *>(lses + column);
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        float x = (i % 2 ? log_sum.y : log_sum.x) * LOG2E;
                        p[m][n][i] = exp2_fast(fmaf(p[m][n][i], factor, -x));
                        int key = w0 + 16 * m + lane / 4 + i / 2 * 8;
                        if (masked && key > t0 + column + i % 2) p[m][n][i] = 0.0f;
                    }
            }
            over_positions(dvs, p, do_tile);
            over_width(ds, v_rows, do_tile);
#pragma unroll
            for (int n = 0; n < N; n++) {
                float2 own = *reinterpret_cast<const float2 *>(lses + QUERIES + s0 + 8 * n + lane % 4 * 2);
#pragma unroll
                for (int m = 0; m < M; m++)
#pragma unroll
                    for (int i = 0; i < 4; i++) ds[m][n][i] = p[m][n][i] * (ds[m][n][i] - (i % 2 ? own.y : own.x));
            }
            over_positions(dks, ds, q_tile);
        }
    }
    if (w0 >= len) return;
    if (cos) turn_back(dks, cos, sin, w0, len);
    float scales[M][2], ones[M][2];
#pragma unroll
    for (int m = 0; m < M; m++) scales[m][0] = scales[m][1] = scale, ones[m][0] = ones[m][1] = 1.0f;
    int own = warp * tile_bytes(16 * M);
    store_rows(dk + (row0 + w0) * dk_stride + key_head * DIM, dk_stride, len - w0, memory + own, dks, scales);
    store_rows(dv + (row0 + w0) * dv_stride + key_head * DIM, dv_stride, len - w0,
               memory + tile_bytes(ROWS) + own, dvs, ones);
}
#endif
