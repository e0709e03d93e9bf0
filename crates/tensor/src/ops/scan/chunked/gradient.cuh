#line 2 "gradient.cuh"
// The gradients of a chunk, from the states S before it and their gradients R after it. For a head, with
// L[t, s] = 2^(log_t - log_s) for s <= t, e_t = 2^log_t, d_s = 2^(last - log_s), M = (C B^T) L and G = dy x^T, all of
// these matrices [CHUNK, CHUNK]:
//   dx_s = dt_s (sum_t M[t, s] dy_t + d_s R^T B_s) + D dy_s
//   dB_s = sum_t Z[t, s] C_t + dt_s d_s R x_s,   dC_t = sum_s Z[t, s] B_s + e_t S dy_t,   Z[t, s] = L dt_s G
// summed over heads; Z is summed before it is multiplied. The gradient of dt_s apart from the decay is
//   sum_t W[t, s] + i_s,   W = M G,   i_s = d_s x_s^T R^T B_s,
// and that of the logarithm of the decay of a step
//   f_t = sum_{s < t <= r} dt_s W[r, s] + sum_{s < t} dt_s i_s + sum_{r >= t} e_r C_r^T S dy_r + 2^last <S, R>:
// what passes t from before to after. The first sum is one over r >= t of (sum of row r) - (sum of column r) of dt W
// off its diagonal, exact but for the rounding of f32; the others have terms of one kind each, so that nothing large
// cancels where the decay is strong.
//
// A block has a chunk and `members` slices of heads of one group, two at a time, and four teams: one for dx and W of
// each of the two slices, one for dB, one for dC; a warp has 16 steps.

constexpr int BLOCK = 4 * TEAM;
constexpr int SLICE_STAGE = 2 * TILE_BYTES<SLICE> + 2 * STATE_BYTES + PARTS * PART_BYTES;

DEVICE void barrier() { asm volatile("bar.sync 1, %0;" ::"n"(BLOCK) : "memory"); }

// What the teams leave of a slice for the gradients of dt and the decay; `column` by the warp that summed.
struct Shares {
    float own[CHUNK], through[CHUNK], of_dt[CHUNK], x_dy[CHUNK], state[CHUNK], column[4][CHUNK], edge[4];
};

// Of a slice.
struct Stage {
    u32 x, dy, s, r;
    const float *dt, *log, *decay, *weight;

    __device__ __forceinline__ explicit Stage(u8 *at) {
        x = shared_address(at), dy = x + TILE_BYTES<SLICE>, s = dy + TILE_BYTES<SLICE>, r = s + STATE_BYTES;
        dt = reinterpret_cast<const float *>(at + 2 * TILE_BYTES<SLICE> + 2 * STATE_BYTES);
        log = dt + LOG * CHUNK, decay = dt + DECAY * CHUNK, weight = dt + WEIGHT * CHUNK;
    }
};

// A block's place, pointers and shared memory: B, C, B C^T, two stages of two slices, and their shares.
struct Job {
    Sizes sizes;
    const bf16 *states, *rows, *dy;
    const float *steps, *d;
    bf16 *dxbc;
    u8 *shared;
    i64 row0;
    int batch, sequence, chunk, live, first, members, group;
    bool before, after; // whether there are chunks before and after

    static constexpr int BC_BYTES = CHUNK * CHUNK * 4;
    __device__ __forceinline__ u32 b_tile() const { return shared_address(shared); }
    __device__ __forceinline__ u32 c_tile() const { return b_tile() + TILE_BYTES<STATE>; }
    // A C fragment of rows `warp` and columns 16 j + 8 u of B C^T.
    __device__ __forceinline__ float4 &bc(int warp, int j, int u) const {
        float4 *fragments = reinterpret_cast<float4 *>(shared + 2 * TILE_BYTES<STATE>);
        return fragments[((warp * 4 + j) * 2 + u) * 32 + threadIdx.x % 32];
    }
    __device__ __forceinline__ u8 *stages() const { return shared + 2 * TILE_BYTES<STATE> + BC_BYTES; }
    __device__ __forceinline__ Stage stage(int i) const { return Stage(stages() + i % 4 * SLICE_STAGE); }
    // Z^T at the end, behind the sums of one team.
    __device__ __forceinline__ u32 z_tile() const { return shared_address(stages()) + CHUNK * CHUNK * 4; }
    __device__ __forceinline__ Shares &shares(int i) const {
        return reinterpret_cast<Shares *>(stages() + 4 * SLICE_STAGE)[i % 4];
    }

    // Slices i and i + 1.
    __device__ __forceinline__ void fetch(int i) const {
        int team = team_of_block(), thread = threadIdx.x % TEAM;
        i += team % 2;
        if (i < members) {
            Stage to = stage(i);
            int slice = first + i;
            if (team < 2) {
                copy_tile<SLICE, TEAM>(to.x, rows + slice * SLICE, sizes.stride(), live, thread);
                copy_tile<SLICE, TEAM>(to.dy, dy + slice * SLICE, sizes.inner(), live, thread);
                copy_steps<PARTS>(to.r + STATE_BYTES, steps + sizes.steps(sequence, slice, chunk), thread);
            } else {
                i64 state = sizes.state(sequence, slice, chunk);
                if (before) copy_state<TEAM>(to.s, states + state, thread);
                if (after) copy_state<TEAM>(to.r, states + sizes.state(batch, 0, 0) + state, thread);
            }
        }
        copy_commit();
    }

    // Waits for slices i and i + 1, and until all are done with the two before; then those may be fetched over.
    __device__ __forceinline__ void next(int i) const {
        copy_wait<0>();
        barrier();
        fetch(i + 2);
    }
};

// One of the first two teams: for its steps s, dx and the shares of W of every other slice from `which` on; in the end
// Z^T of both goes to shared memory, [s, t] in bf16.
DEVICE void gradient_of_x(const Job &job, int which) {
    // The team's warps have their rows in another order than the other's: early steps have more to do.
    int of_team = warp_of_team(), warp = which == 0 ? of_team : 3 - of_team;
    int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4, s = warp * 16 + g;
    float z[4][2][4] = {}; // rows s, pairs of column tiles t, the first on the diagonal
    for (int i = which; i < job.members + which; i += 2) {
        job.next(i - which);
        if (i >= job.members) break;
        Stage in = job.stage(i);
        Shares &shares = job.shares(i);
        float skip = job.d[job.sizes.head(job.first + i)];
        float log_s[2] = {in.log[s], in.log[s + 8]}, dt_s[2] = {in.dt[s], in.dt[s + 8]}, last = in.log[CHUNK - 1];
        u32 x[2][4];
        read_a<SLICE>(x[0], in.x, warp * 16, 0);
        read_a<SLICE>(x[1], in.x, warp * 16, 2);
        float du[4][4] = {}, inter[2] = {};
        if (job.after) {
#pragma unroll
            for (int k = 0; k < STATE / 16; k++) {
                u32 b[4], r[4];
                read_a<STATE>(b, job.b_tile(), warp * 16, k * 2);
#pragma unroll
                for (int p = 0; p < 4; p += 2) {
                    read_b<SLICE>(r, in.r, k * 16, p);
                    mma2(du[p], du[p + 1], b, r);
                }
            }
            float decay[2] = {exp2_fast(last - log_s[0]), exp2_fast(last - log_s[1])};
#pragma unroll
            for (int p = 0; p < 4; p++)
#pragma unroll
                for (int k = 0; k < 2; k++) {
                    u32 pair = x[p / 2][p % 2 * 2 + k];
                    du[p][2 * k] *= decay[k], du[p][2 * k + 1] *= decay[k];
                    inter[k] = fmaf(du[p][2 * k], low(pair), fmaf(du[p][2 * k + 1], high(pair), inter[k]));
                }
        }
        bf16 *to = job.dxbc + job.row0 * job.sizes.stride() + (job.first + i) * SLICE + q * 8;
        float row[2] = {}, diagonal[2] = {}, x_dy[2] = {};
#pragma unroll
        for (int n = 0; n < 4; n++) {
            int j = warp + n;
            if (j > 3) continue;
            float product[2][4] = {}; // G^T
#pragma unroll
            for (int k = 0; k < 2; k++) {
                u32 dy[4];
                read_b_of_transpose<SLICE>(dy, in.dy, j * 16, k * 2);
                mma2(product[0], product[1], x[k], dy);
            }
            float4 bc[2] = {job.bc(warp, j, 0), job.bc(warp, j, 1)};
            u32 a[4];
            float column[4]; // of t = j 16 + u 8 + 2 q + {0, 1}
#pragma unroll
            for (int u = 0; u < 2; u++) {
                int t = j * 16 + u * 8 + 2 * q;
                float2 log_t = *reinterpret_cast<const float2 *>(in.log + t);
                float of_column[2] = {};
#pragma unroll
                for (int k = 0; k < 2; k++) { // rows s and s + 8
                    float m[2];
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        float decay = exp2_fast((e ? log_t.y : log_t.x) - log_s[k]);
                        float of_g = product[u][2 * k + e];
                        float of_bc = k ? (e ? bc[u].w : bc[u].z) : e ? bc[u].y : bc[u].x;
                        bool later = n > 0 || t + e > s + 8 * k;
                        if (n == 0) {
                            bool same = t + e == s + 8 * k;
                            decay = later ? decay : same ? 1.0f : 0.0f;
                            x_dy[k] += same ? of_g : 0.0f;
                            diagonal[k] += same ? of_g * of_bc : 0.0f;
                        }
                        float decayed = decay * of_g;
                        z[n][u][2 * k + e] = fmaf(dt_s[k], decayed, z[n][u][2 * k + e]);
                        m[e] = of_bc * decay;
                        float w = later ? of_bc * decayed : 0.0f;
                        row[k] += w;
                        of_column[e] = fmaf(dt_s[k], w, of_column[e]);
                    }
                    a[2 * u + k] = round_bf16x2(m[0], m[1]);
                }
                column[2 * u] = of_column[0], column[2 * u + 1] = of_column[1];
            }
#pragma unroll
            for (int p = 0; p < 4; p += 2) {
                u32 dy[4];
                read_b<SLICE>(dy, in.dy, j * 16, p);
                mma2(du[p], du[p + 1], a, dy);
            }
            // Sums over the lanes' eight rows: halves, quarters, then one column a lane.
            bool upper = lane & 16, right = lane & 8;
            float two[2];
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float sent = upper ? column[e] : column[2 + e];
                two[e] = (upper ? column[2 + e] : column[e]) + __shfl_xor_sync(0xffffffffu, sent, 16);
            }
            float one = (right ? two[1] : two[0]) + __shfl_xor_sync(0xffffffffu, right ? two[0] : two[1], 8);
            one += __shfl_xor_sync(0xffffffffu, one, 4);
            if ((lane & 4) == 0) shares.column[warp][j * 16 + (upper ? 8 : 0) + 2 * q + (right ? 1 : 0)] = one;
        }
#pragma unroll
        for (int k = 0; k < 2; k++) {
            row[k] = quad_sum(row[k]);
            diagonal[k] = quad_sum(diagonal[k]);
            x_dy[k] = quad_sum(x_dy[k]);
            inter[k] = quad_sum(inter[k]);
            int at = s + 8 * k;
            if (q == 0) {
                shares.own[at] = -dt_s[k] * row[k];
                shares.through[at] = dt_s[k] * inter[k];
                shares.of_dt[at] = row[k] + diagonal[k] + inter[k];
                shares.x_dy[at] = x_dy[k];
            }
            u32 word[4];
#pragma unroll
            for (int p = 0; p < 4; p++) {
                u32 dy = read_word(place<SLICE>(in.dy, at, p) + 4 * q);
                word[p] = round_bf16x2(fmaf(skip, low(dy), dt_s[k] * du[p][2 * k]),
                                       fmaf(skip, high(dy), dt_s[k] * du[p][2 * k + 1]));
            }
            transpose_quad(word);
            if (at < job.live)
                *reinterpret_cast<uint4 *>(to + at * job.sizes.stride()) =
                    make_uint4(word[0], word[1], word[2], word[3]);
        }
    }
    barrier(); // the stages are free
    float4 *other = reinterpret_cast<float4 *>(job.stages()) + warp * 256 + lane;
    u32 z_tile = job.z_tile();
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int u = 0; u < 2; u++)
            if (which == 1) other[(n * 2 + u) * 32] = make_float4(z[n][u][0], z[n][u][1], z[n][u][2], z[n][u][3]);
    barrier(); // Z^T of the second team is there
#pragma unroll
    for (int n = 0; n < 4; n++) {
        int j = warp + n;
        if (j > 3 || which == 1) continue;
#pragma unroll
        for (int u = 0; u < 2; u++) {
            float4 more = other[(n * 2 + u) * 32];
            u32 to[2] = {place<CHUNK>(z_tile, s, j * 2 + u) + 4 * q, place<CHUNK>(z_tile, s + 8, j * 2 + u) + 4 * q};
            write_word(to[0], round_bf16x2(z[n][u][0] + more.x, z[n][u][1] + more.y));
            write_word(to[1], round_bf16x2(z[n][u][2] + more.z, z[n][u][3] + more.w));
        }
    }
    barrier(); // Z^T is there
}

// B C^T by the first two teams, every other pair of columns each.
DEVICE void make_bc(const Job &job, int which) {
    int warp = warp_of_team();
    float bc[2][2][4] = {};
#pragma unroll
    for (int k = 0; k < STATE / 16; k++) {
        u32 b[4];
        read_a<STATE>(b, job.b_tile(), warp * 16, k * 2);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            u32 c[4];
            read_b_of_transpose<STATE>(c, job.c_tile(), (2 * i + which) * 16, k * 2);
            mma2(bc[i][0], bc[i][1], b, c);
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int u = 0; u < 2; u++)
            job.bc(warp, 2 * i + which, u) = make_float4(bc[i][u][0], bc[i][u][1], bc[i][u][2], bc[i][u][3]);
}
