#line 2 "gradient_bc.cuh"
// The teams that have the gradients of B and C, and what is left of each head.

// The 16 rows of x or dy of this warp as A, each row times its scale.
DEVICE void read_scaled(u32 (&a)[2][4], u32 tile, const float *scale) {
    int warp = warp_of_team(), row = warp * 16 + threadIdx.x % 32 / 4;
    float scales[2] = {scale[row], scale[row + 8]};
#pragma unroll
    for (int k = 0; k < 2; k++) {
        read_a<SLICE>(a[k], tile, warp * 16, k * 2);
#pragma unroll
        for (int i = 0; i < 4; i++) a[k][i] = scale_pair(a[k][i], scales[i % 2], scales[i % 2]);
    }
}

// Adds the product of A and the transpose of a state [N, 32].
DEVICE void add_product(float (&sum)[16][4], const u32 (&a)[2][4], u32 state) {
#pragma unroll
    for (int j = 0; j < STATE / 16; j++)
#pragma unroll
        for (int k = 0; k < 2; k++) {
            u32 b[4];
            read_b_of_transpose<SLICE>(b, state, j * 16, k * 2);
            mma2(sum[2 * j], sum[2 * j + 1], a[k], b);
        }
}

// Where the sums of B's or C's gradient go: to their columns of dxbc, or, where the heads of a group are shared out, to
// [parts, R, 2 G N] in f32.
struct Sums {
    float *parts;
    i64 rows;
    int part;
};

DEVICE void store_sums(const Job &job, const Sums &sums, const float (&x)[16][4], int which) {
    int warp = warp_of_team(), lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int width = job.sizes.groups * STATE, column = which * width + job.group * STATE;
#pragma unroll
    for (int k = 0; k < 2; k++) {
        int row = warp * 16 + g + 8 * k;
        bool real = row < job.live;
        if (sums.parts) {
            float *to = sums.parts + (sums.part * sums.rows + job.row0 + row) * 2 * width + column + 2 * q;
#pragma unroll
            for (int j = 0; j < 16; j++)
                if (real) *reinterpret_cast<float2 *>(to + j * 8) = make_float2(x[j][2 * k], x[j][2 * k + 1]);
        } else {
            bf16 *to = job.dxbc + (job.row0 + row) * job.sizes.stride() + job.sizes.b(0) + column + q * 8;
#pragma unroll
            for (int j = 0; j < 16; j += 4) {
                u32 word[4];
#pragma unroll
                for (int i = 0; i < 4; i++) word[i] = round_bf16x2(x[j + i][2 * k], x[j + i][2 * k + 1]);
                transpose_quad(word);
                if (real) *reinterpret_cast<uint4 *>(to + j * 8) = make_uint4(word[0], word[1], word[2], word[3]);
            }
        }
    }
}

// Gradients of the raw steps, and the sums of those of dt_bias, A_log and D over a chunk, [3, B chunks, H].
struct Raw {
    bf16 *gradient;
    i64 stride;
    const float *a_log;
    float *sums;
};

// The gradients of the raw steps of a head and its sums, from the shares of its slices; by one warp, two steps a lane.
struct Finish {
    float f[2] = {}, of_dt[2] = {}, x_dy[2] = {}, dt[2], slope[2], a_log;

    // What is needed of slice i, while its stage is there.
    __device__ __forceinline__ void take(const Job &job, const Raw &raw, int i) {
        const float *steps = job.stage(i).dt + threadIdx.x % 32 * 2;
#pragma unroll
        for (int k = 0; k < 2; k++) dt[k] = steps[k], slope[k] = steps[SLOPE * CHUNK + k];
        a_log = raw.a_log[job.sizes.head(job.first + i)];
    }

    // After the barrier that ends its work.
    __device__ __forceinline__ void add(const Job &job, const Raw &raw, int i) {
        int lane = threadIdx.x % 32, slice = job.first + i;
        const Shares &in = job.shares(i);
        float through[2], later[2];
#pragma unroll
        for (int k = 0; k < 2; k++) {
            int t = 2 * lane + k;
            through[k] = in.through[t];
            later[k] = in.own[t] + in.state[t];
#pragma unroll
            for (int warp = 0; warp < 4; warp++)
                if (warp <= lane / 8) later[k] += in.column[warp][t];
            of_dt[k] += in.of_dt[t];
            x_dy[k] += in.x_dy[t];
        }
        float upto = through[0] + through[1], from = later[0] + later[1];
#pragma unroll
        for (int distance = 1; distance < 32; distance *= 2) {
            float before = __shfl_up_sync(0xffffffffu, upto, distance);
            float after = __shfl_down_sync(0xffffffffu, from, distance);
            if (lane >= distance) upto += before;
            if (lane + distance < 32) from += after;
        }
        float before = __shfl_up_sync(0xffffffffu, upto, 1), after = __shfl_down_sync(0xffffffffu, from, 1);
        before = (lane > 0 ? before : 0.0f) + ((in.edge[0] + in.edge[1]) + (in.edge[2] + in.edge[3]));
        after = lane < 31 ? after : 0.0f;
        f[1] += before + through[0] + (after + later[1]);
        f[0] += before + (after + later[1] + later[0]);
        if (job.sizes.slices == 1 || (slice + 1) % job.sizes.slices == 0)
            store(job, raw, job.sizes.head(slice));
    }

    __device__ __forceinline__ void store(const Job &job, const Raw &raw, int head) {
        int lane = threadIdx.x % 32;
        float a = -expf(a_log), sums[3] = {};
#pragma unroll
        for (int k = 0; k < 2; k++) {
            float of_raw = fmaf(f[k], a, of_dt[k]) * slope[k];
            if (2 * lane + k < job.live)
                raw.gradient[(job.row0 + 2 * lane + k) * raw.stride + head] = round_bf16(of_raw);
            sums[0] += of_raw;
            sums[1] = fmaf(f[k], dt[k] * a, sums[1]);
            sums[2] += x_dy[k];
            f[k] = of_dt[k] = x_dy[k] = 0.0f;
        }
#pragma unroll
        for (int k = 0; k < 3; k++) sums[k] = warp_sum(sums[k]);
        i64 chunks = (i64)job.batch * job.sizes.chunks, at = (i64)job.sequence * job.sizes.chunks + job.chunk;
#pragma unroll
        for (int k = 0; k < 3; k++)
            if (lane == 0) raw.sums[(k * chunks + at) * job.sizes.heads + head] = sums[k];
    }
};

// The third team: dB of its steps s; <S, R>; and, by one warp after the other, what is left of each head.
DEVICE void gradient_of_b(const Job &job, const Raw &raw, const Sums &sums) {
    int warp = warp_of_team(), lane = threadIdx.x % 32;
    float sum[16][4] = {};
    Finish finish;
    auto own = [&](int i) { return job.sizes.head(job.first + i) % 4 == warp; };
    auto finish_two = [&](int i) {
#pragma unroll 1
        for (int k = max(i, 0); k < min(i + 2, job.members); k++)
            if (own(k)) finish.add(job, raw, k);
    };
#pragma unroll 1
    for (int i = 0; i < job.members; i++) {
        if (i % 2 == 0) {
            job.next(i);
            finish_two(i - 2);
        }
        if (own(i)) finish.take(job, raw, i);
        Stage in = job.stage(i);
        float edge = 0.0f;
        if (job.after) {
            u32 x[2][4];
            read_scaled(x, in.x, in.weight);
            add_product(sum, x, in.r);
            if (job.before) {
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    u32 s[4], r[4];
                    read_a<SLICE>(s, in.s, warp * 32 + k / 2 * 16, k % 2 * 2);
                    read_a<SLICE>(r, in.r, warp * 32 + k / 2 * 16, k % 2 * 2);
#pragma unroll
                    for (int e = 0; e < 4; e++) edge = fmaf(low(s[e]), low(r[e]), fmaf(high(s[e]), high(r[e]), edge));
                }
                edge = warp_sum(edge) * in.decay[CHUNK - 1];
            }
        }
        if (lane == 0) job.shares(i).edge[warp] = edge;
    }
    barrier();
    finish_two((job.members - 1) / 2 * 2);
    barrier();
    barrier();
    u32 z_tile = job.z_tile();
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (j < warp) continue;
        u32 z[4];
        read_a<CHUNK>(z, z_tile, warp * 16, j * 2);
#pragma unroll
        for (int n = 0; n < STATE / 8; n += 2) {
            u32 c[4];
            read_b<STATE>(c, job.c_tile(), j * 16, n);
            mma2(sum[n], sum[n + 1], z, c);
        }
    }
    store_sums(job, sums, sum, 0);
}

// The fourth team: dC of its steps t, and e_t C_t^T S dy_t.
DEVICE void gradient_of_c(const Job &job, const Sums &sums) {
    int warp = warp_of_team(), lane = threadIdx.x % 32, q = lane % 4, t = warp * 16 + lane / 4;
    float sum[16][4] = {};
#pragma unroll 1
    for (int i = 0; i < job.members; i++) {
        if (i % 2 == 0) job.next(i);
        Stage in = job.stage(i);
        float of_state[2] = {};
        if (job.before) {
            u32 dy[2][4];
            read_scaled(dy, in.dy, in.decay);
            add_product(sum, dy, in.s);
            float y[4][4] = {}; // C^T S
#pragma unroll
            for (int k = 0; k < STATE / 16; k++) {
                u32 c[4], s[4];
                read_a<STATE>(c, job.c_tile(), warp * 16, k * 2);
#pragma unroll
                for (int p = 0; p < 4; p += 2) {
                    read_b<SLICE>(s, in.s, k * 16, p);
                    mma2(y[p], y[p + 1], c, s);
                }
            }
#pragma unroll
            for (int k = 0; k < 2; k++) {
#pragma unroll
                for (int p = 0; p < 4; p++) {
                    u32 pair = dy[p / 2][p % 2 * 2 + k];
                    of_state[k] = fmaf(y[p][2 * k], low(pair), fmaf(y[p][2 * k + 1], high(pair), of_state[k]));
                }
                of_state[k] = quad_sum(of_state[k]);
            }
        }
#pragma unroll
        for (int k = 0; k < 2; k++)
            if (q == 0) job.shares(i).state[t + 8 * k] = of_state[k];
    }
    barrier();
    barrier();
    barrier();
    u32 z_tile = job.z_tile();
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (j > warp) continue;
        u32 z[4];
        read_a_of_transpose<CHUNK>(z, z_tile, j * 16, warp * 2);
#pragma unroll
        for (int n = 0; n < STATE / 8; n += 2) {
            u32 b[4];
            read_b<STATE>(b, job.b_tile(), j * 16, n);
            mma2(sum[n], sum[n + 1], z, b);
        }
    }
    store_sums(job, sums, sum, 1);
}
