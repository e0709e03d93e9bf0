#line 2 "flash_forward.cu"
#ifdef ELEM_BF16
// A block has query rows of a head, 16 FORWARD_TILES in each of FORWARD_WARPS warps, and goes over the keys up to the
// diagonal by FORWARD_KEYS at a time, the next ones being fetched meanwhile. Of a row it keeps the largest score so
// far, and sums of exponentials against it, made smaller where a larger score turns up.

// out = softmax(scale q k^T, causal) v and the logs of the denominators [B, heads, T].
// Grid: heads and sequences; tiles of queries, those with most keys first.
extern "C" __global__ void __launch_bounds__(32 * FORWARD_WARPS, FORWARD_BLOCKS)
    flash_forward(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v, i64 q_stride, i64 k_stride,
                  i64 v_stride, int len, int heads, int group, float scale) {
    constexpr int M = FORWARD_TILES, KEYS = FORWARD_KEYS, N = KEYS / 8, ROWS = 16 * M * FORWARD_WARPS;
    extern __shared__ __align__(128) u8 memory[];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int head = blockIdx.x % heads, q0 = (gridDim.y - 1 - blockIdx.y) * ROWS, w0 = q0 + 16 * M * warp;
    i64 row0 = (i64)(blockIdx.x / heads) * len;
    u32 q_tile = shared_address(memory), stages = q_tile + tile_bytes(ROWS);
    Head<32 * FORWARD_WARPS> q_head(q, q_stride, row0, head), k_head(k, k_stride, row0, head / group),
        v_head(v, v_stride, row0, head / group);
    auto fetch_keys = [&](int n0) {
        u32 stage = stages + n0 / KEYS % 2 * tile_bytes(2 * KEYS);
        k_head.fetch<KEYS>(stage, n0, len);
        v_head.fetch<KEYS>(stage + tile_bytes(KEYS), n0, len);
    };
    q_head.fetch<ROWS>(q_tile, q0, len);
    fetch_keys(0);

    Rows<M, FORWARD_KEPT> rows{q_tile + warp * tile_bytes(16 * M)};
    float o[M][DIM / 8][4] = {}, most[M][2], sum[M][2] = {};
#pragma unroll
    for (int m = 0; m < M; m++) most[m][0] = most[m][1] = Max::empty();
    float factor = scale * LOG2E; // exponents of 2
    for (int n0 = 0; n0 < min(q0 + ROWS, len); n0 += KEYS) {
        copy_wait_all();
        __syncthreads(); // these keys are there for all, and no one reads those before them
        if (n0 + KEYS < min(q0 + ROWS, len)) fetch_keys(n0 + KEYS);
        if (n0 == 0) rows.keep();
        if (n0 >= w0 + 16 * M || w0 >= len) continue; // all masked, or no rows
        u32 k_tile = stages + n0 / KEYS % 2 * tile_bytes(2 * KEYS);
        float s[M][N][4];
        over_width(s, rows, k_tile);
        if (n0 + KEYS - 1 > w0) {
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int n = 0; n < N; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        int t = w0 + 16 * m + lane / 4 + i / 2 * 8, key = n0 + 8 * n + lane % 4 * 2 + i % 2;
                        if (key > t) s[m][n][i] = Max::empty();
                    }
        }
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float peak = most[m][h];
#pragma unroll
                for (int n = 0; n < N; n++) peak = fmaxf(peak, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
                peak = row_max(peak);
                float shrink = exp2_fast((most[m][h] - peak) * factor), shift = peak * factor, part = 0.0f;
                most[m][h] = peak;
#pragma unroll
                for (int n = 0; n < N; n++)
#pragma unroll
                    for (int i = 2 * h; i < 2 * h + 2; i++) {
                        s[m][n][i] = exp2_fast(fmaf(s[m][n][i], factor, -shift));
                        part += s[m][n][i];
                    }
                sum[m][h] = fmaf(sum[m][h], shrink, part);
#pragma unroll
                for (int n = 0; n < DIM / 8; n++) o[m][n][2 * h] *= shrink, o[m][n][2 * h + 1] *= shrink;
            }
        over_positions(o, s, k_tile + tile_bytes(KEYS));
    }
    if (w0 >= len) return;

    float inverse[M][2];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float total = row_sum(sum[m][h]);
            inverse[m][h] = 1.0f / total;
            int t = w0 + 16 * m + lane / 4 + 8 * h;
            if (lane % 4 == 0 && t < len) lse[(i64)blockIdx.x * len + t] = most[m][h] * scale + logf(total);
        }
    i64 stride = (i64)heads * DIM;
    store_rows(out + (row0 + w0) * stride + head * DIM, stride, len - w0, memory + warp * tile_bytes(16 * M), o,
               inverse);
}

// Turns pairs (j, j + DIM / 2) of every head of q and k by the angles of their positions, into rows without gaps.
// A thread has 8 pairs.
extern "C" __global__ void flash_rotate(bf16 *q_to, bf16 *k_to, const bf16 *q, const bf16 *k, const float *cos,
                                        const float *sin, i64 q_stride, i64 k_stride, i64 rows, int len, int q_heads,
                                        int k_heads) {
    constexpr int HALF = DIM / 2, UNITS = HALF / 8;
    int heads = q_heads + k_heads;
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * heads * UNITS) return;
    int j = (int)(i % UNITS) * 8, head = (int)(i / UNITS % heads);
    i64 row = i / UNITS / heads, angle = row % len * HALF + j;
    bool is_q = head < q_heads;
    const bf16 *from = is_q ? q + row * q_stride + head * DIM : k + row * k_stride + (head - q_heads) * DIM;
    bf16 *to = is_q ? q_to + (row * q_heads + head) * DIM : k_to + (row * k_heads + head - q_heads) * DIM;
    float a[8], b[8], co[8], si[8];
    load_many<8>(from + j, a), load_many<8>(from + HALF + j, b);
    load_many<8>(cos + angle, co), load_many<8>(sin + angle, si);
#pragma unroll
    for (int n = 0; n < 8; n++) {
        float x = a[n], y = b[n];
        a[n] = x * co[n] - y * si[n], b[n] = y * co[n] + x * si[n];
    }
    store_many<8>(to + j, a), store_many<8>(to + HALF + j, b);
}
#endif
