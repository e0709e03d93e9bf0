#line 2 "output.cuh"
// The output of a chunk from the states before it:
//   y_t = sum_{s <= t} (C_t.B_s) 2^(log_t - log_s) dt_s x_s + 2^log_t C_t^T S + D x_t

constexpr int OUTPUT_STAGE = STATE_BYTES + TILE_BYTES<SLICE> + 2 * STEPS_BYTES;

// A block has a chunk (blockIdx.x) and `members` slices of heads of one group; each of its four warps has 16 steps, with
// C B^T of them and, as fragments, C in registers.
extern "C" __global__ void __launch_bounds__(128, 3)
    chunk_output(bf16 *y, const bf16 *states, const bf16 *xbc, const float *dt, const float *log_decay, const float *d,
                 int len, int heads, int slices, int groups, int members) {
    constexpr int STAGES = 3;
    extern __shared__ __align__(128) u8 shared[];
    Sizes sizes(len, heads, slices, groups);
    int sequence = blockIdx.x / sizes.chunks, chunk = blockIdx.x % sizes.chunks, live = sizes.live(chunk);
    int first = blockIdx.y * members, group = sizes.group(first);
    int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, g = lane / 4, q = lane % 4;
    i64 row0 = (i64)sequence * len + chunk * CHUNK;
    const bf16 *rows = xbc + row0 * sizes.stride();

    u8 *stages = shared + 2 * TILE_BYTES<STATE>;
    auto stage = [&](int i) { return stages + i % STAGES * OUTPUT_STAGE; };
    auto fetch = [&](int i) {
        if (i < members) {
            int slice = first + i;
            u32 to = shared_address(stage(i));
            if (chunk > 0) copy_state(to, states + sizes.state(sequence, slice, chunk), thread, 128);
            to += STATE_BYTES;
            copy_tile<SLICE>(to, rows + slice * SLICE, sizes.stride(), live, thread, 128);
            to += TILE_BYTES<SLICE>;
            i64 steps = sizes.steps(sequence, slice, chunk);
            if (thread < 2 * CHUNK / 4)
                copy_async(to + thread * 16, (thread < CHUNK / 4 ? dt : log_decay) + steps + thread % (CHUNK / 4) * 4, true);
        }
        copy_commit();
    };
    u32 b_tile = shared_address(shared), c_tile = b_tile + TILE_BYTES<STATE>;
    copy_tile<STATE>(b_tile, rows + sizes.b(group), sizes.stride(), live, thread, 128);
    copy_tile<STATE>(c_tile, rows + sizes.c(group), sizes.stride(), live, thread, 128);
    copy_commit();
    fetch(0);
    fetch(1);
    copy_wait<2>();
    __syncthreads();
    u32 c[STATE / 16][4];
    float cb[4][2][4] = {}; // by pairs of column tiles
#pragma unroll
    for (int k = 0; k < STATE / 16; k++) {
        read_a<STATE>(c[k], c_tile, warp * 16, k * 2);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (j > warp) continue;
            u32 b[4];
            read_b_of_transpose<STATE>(b, b_tile, j * 16, k * 2);
            mma2(cb[j][0], cb[j][1], c[k], b);
        }
    }
    int t = warp * 16 + g; // and t + 8
    for (int i = 0; i < members; i++) {
        copy_wait<1>();
        __syncthreads();
        fetch(i + 2);
        u32 state_tile = shared_address(stage(i)), x_tile = state_tile + STATE_BYTES;
        const float *step = reinterpret_cast<const float *>(stage(i) + STATE_BYTES + TILE_BYTES<SLICE>);
        const float *log = step + CHUNK;
        float skip = d[(first + i) / slices], log_t[2] = {log[t], log[t + 8]};
        float out[4][4] = {};
        if (chunk > 0) {
#pragma unroll
            for (int k = 0; k < STATE / 16; k++)
#pragma unroll
                for (int p = 0; p < 4; p += 2) {
                    u32 b[4];
                    read_b<SLICE>(b, state_tile, k * 16, p);
                    mma2(out[p], out[p + 1], c[k], b);
                }
            float decay[2] = {power2(log_t[0]), power2(log_t[1])};
#pragma unroll
            for (int p = 0; p < 4; p++)
#pragma unroll
                for (int k = 0; k < 4; k++) out[p][k] *= decay[k / 2];
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (j > warp) continue;
            u32 a[4];
#pragma unroll
            for (int u = 0; u < 2; u++) {
                int s = j * 16 + u * 8 + 2 * q;
                float2 log_s = *reinterpret_cast<const float2 *>(log + s), dt_s = *reinterpret_cast<const float2 *>(step + s);
#pragma unroll
                for (int k = 0; k < 2; k++) { // rows t and t + 8
                    float left = cb[j][u][2 * k] * power2(log_t[k] - log_s.x) * dt_s.x;
                    float right = cb[j][u][2 * k + 1] * power2(log_t[k] - log_s.y) * dt_s.y;
                    if (j == warp) {
                        left = s <= t + 8 * k ? left : 0.0f;
                        right = s + 1 <= t + 8 * k ? right : 0.0f;
                    }
                    a[2 * u + k] = round_bf16x2(left, right);
                }
            }
#pragma unroll
            for (int p = 0; p < 4; p += 2) {
                u32 b[4];
                read_b<SLICE>(b, x_tile, j * 16, p);
                mma2(out[p], out[p + 1], a, b);
            }
        }
#pragma unroll
        for (int k = 0; k < 2; k++) {
            int row = t + 8 * k;
            u32 word[4];
#pragma unroll
            for (int p = 0; p < 4; p++) {
                u32 x;
                asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(place<SLICE>(x_tile, row, p) + 4 * q));
                word[p] = round_bf16x2(fmaf(skip, low(x), out[p][2 * k]), fmaf(skip, high(x), out[p][2 * k + 1]));
            }
            transpose_quad(word);
            if (row < live)
                *reinterpret_cast<uint4 *>(y + (row0 + row) * sizes.inner() + (first + i) * SLICE + q * 8) =
                    make_uint4(word[0], word[1], word[2], word[3]);
        }
    }
}
