#line 2 "forward.cuh"
// The output, chunk by chunk, with S the state before a chunk:
//   y_t = sum_{s <= t} (C_t.B_s) 2^(log_t - log_s) dt_s x_s + 2^log_t C_t^T S + D x_t

// Bytes of shared memory: C B^T in fragments; of a stage B and C, and of each team x and the parts of the steps before
// SLOPE.
constexpr int CB_BYTES = CHUNK * CHUNK * 4, SHARED_STAGE = 2 * TILE_BYTES<STATE>;
constexpr int FORWARD_TEAM_BYTES = TILE_BYTES<SLICE> + SLOPE * PART_BYTES;

// A team has a slice of a head, the teams of a block share B, C and the making of C B^T; blockIdx.y counts segments of
// `each` chunks, which start from `starts` if that is given, else from zero (as in chunk_states).
extern "C" __global__ void __launch_bounds__(3 * TEAM, 1)
    chunk_forward(bf16 *y, const float *starts, const bf16 *xbc, const float *steps, const float *d, int len, int heads,
                  int slices, int groups, int each) {
    extern __shared__ __align__(128) u8 shared[];
    Sizes sizes(len, heads, slices, groups);
    int teams = blockDim.x / TEAM, team = team_of_block(), thread = threadIdx.x % TEAM;
    int warp = warp_of_team(), lane = thread % 32, g = lane / 4, q = lane % 4;
    int task = blockIdx.x * teams + team, sequence = task / sizes.wide(), slice = task % sizes.wide();
    int from = blockIdx.y * each, count = min(sizes.chunks, from + each) - from, group = sizes.group(slice);
    i64 row0 = (i64)sequence * len;
    const bf16 *rows = xbc + row0 * sizes.stride();
    float skip = d[slice / slices];

    float4 *fragments = reinterpret_cast<float4 *>(shared) + warp * 256 + lane; // of this warp's 16 steps
    u32 state_tile = shared_address(shared + CB_BYTES + team * STATE_BYTES);
    u8 *stages = shared + CB_BYTES + teams * STATE_BYTES;
    auto stage = [&](int i) { return stages + i % 2 * (SHARED_STAGE + teams * FORWARD_TEAM_BYTES); };
    auto fetch = [&](int i) {
        if (i < count) {
            int chunk = from + i, live = sizes.live(chunk);
            const bf16 *chunk_rows = rows + (i64)chunk * CHUNK * sizes.stride();
            u32 to = shared_address(stage(i)), own = to + SHARED_STAGE + team * FORWARD_TEAM_BYTES;
            copy_rows(to, chunk_rows + sizes.b(group), sizes.stride(), live);
            copy_rows(to + TILE_BYTES<STATE>, chunk_rows + sizes.c(group), sizes.stride(), live);
            copy_tile<SLICE, TEAM>(own, chunk_rows + slice * SLICE, sizes.stride(), live, thread);
            copy_steps<SLOPE>(own + TILE_BYTES<SLICE>, steps + sizes.steps(sequence, slice, chunk), thread);
        }
        copy_commit();
    };
    fetch(0);
    State state = {};
    if (starts) {
        starts += (((i64)sequence * sizes.wide() + slice) * gridDim.y + blockIdx.y) * (STATE * SLICE);
        state.each([&](int at, float &x) { x = starts[at]; });
        state.put(state_tile);
    }
    int t = warp * 16 + g; // and t + 8
    for (int i = 0; i < count; i++) {
        copy_wait<0>();
        __syncthreads(); // the stage and the state are there, the other stage is free
        fetch(i + 1);
        u32 b_tile = shared_address(stage(i)), c_tile = b_tile + TILE_BYTES<STATE>;
        u8 *own = stage(i) + SHARED_STAGE + team * FORWARD_TEAM_BYTES;
        u32 x_tile = shared_address(own);
        const float *dt = reinterpret_cast<const float *>(own + TILE_BYTES<SLICE>), *log = dt + LOG * CHUNK;
        const float *decay = dt + DECAY * CHUNK, *weight = dt + WEIGHT * CHUNK;
        float log_t[2] = {log[t], log[t + 8]}, decay_t[2] = {decay[t], decay[t + 8]};
        bool entered = i > 0 || starts;

        // C S, and the team's column tiles of C B^T.
        float out[4][4] = {}, cb[4][2][4] = {};
#pragma unroll
        for (int k = 0; k < STATE / 16; k++) {
            u32 c[4], b[4];
            read_a<STATE>(c, c_tile, warp * 16, k * 2);
            if (entered) {
                read_b<SLICE>(b, state_tile, k * 16, 0);
                mma2(out[0], out[1], c, b);
                read_b<SLICE>(b, state_tile, k * 16, 2);
                mma2(out[2], out[3], c, b);
            }
#pragma unroll
            for (int n = 0; n < 4; n++) {
                int j = team + n * teams;
                if (j > warp) continue;
                read_b_of_transpose<STATE>(b, b_tile, j * 16, k * 2);
                mma2(cb[n][0], cb[n][1], c, b);
            }
        }
#pragma unroll
        for (int n = 0; n < 4; n++) {
            int j = team + n * teams;
            if (j > warp) continue;
#pragma unroll
            for (int u = 0; u < 2; u++)
                fragments[(j * 2 + u) * 32] = make_float4(cb[n][u][0], cb[n][u][1], cb[n][u][2], cb[n][u][3]);
        }
#pragma unroll
        for (int p = 0; p < 4; p++)
#pragma unroll
            for (int k = 0; k < 4; k++) out[p][k] *= decay_t[k / 2];
        __syncthreads(); // C B^T is there, and the state has been read

#pragma unroll
        for (int n = 0; n < 4; n++) { // the first is on the diagonal
            if (n > warp) continue;
            int j = warp - n;
            u32 a[4];
#pragma unroll
            for (int u = 0; u < 2; u++) {
                int s = j * 16 + u * 8 + 2 * q;
                float2 log_s = *reinterpret_cast<const float2 *>(log + s);
                float2 dt_s = *reinterpret_cast<const float2 *>(dt + s);
                float4 of_cb = fragments[(j * 2 + u) * 32];
#pragma unroll
                for (int k = 0; k < 2; k++) { // rows t and t + 8
                    float left = (k ? of_cb.z : of_cb.x) * exp2_fast(log_t[k] - log_s.x) * dt_s.x;
                    float right = (k ? of_cb.w : of_cb.y) * exp2_fast(log_t[k] - log_s.y) * dt_s.y;
                    if (n == 0) {
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
        if (i + 1 < count) {
            state.step(b_tile, x_tile, decay[CHUNK - 1], weight);
            state.put(state_tile);
        }
        int live = sizes.live(from + i);
        bf16 *to = y + (row0 + (i64)(from + i) * CHUNK) * sizes.inner() + slice * SLICE + q * 8;
#pragma unroll
        for (int k = 0; k < 2; k++) {
            int row = t + 8 * k;
            u32 word[4];
#pragma unroll
            for (int p = 0; p < 4; p++) {
                u32 x = read_word(place<SLICE>(x_tile, row, p) + 4 * q);
                word[p] = round_bf16x2(fmaf(skip, low(x), out[p][2 * k]), fmaf(skip, high(x), out[p][2 * k + 1]));
            }
            transpose_quad(word);
            if (row < live)
                *reinterpret_cast<uint4 *>(to + row * sizes.inner()) =
                    make_uint4(word[0], word[1], word[2], word[3]);
        }
    }
}
