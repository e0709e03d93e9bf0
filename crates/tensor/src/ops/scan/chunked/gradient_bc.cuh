#line 2 "gradient_bc.cuh"
// The teams that have the gradients of B and C, and what is left of each head.

// Adds scale_k times the product of 16 rows of x or dy (fragments) and the transpose of a state to the sums; with `each`
// called for the products of every 16 of its N columns.
template <typename F> DEVICE void add_products(float (&sum)[16][4], const u32 (&a)[2][4], u32 state, float scale0, float scale1, F each) {
#pragma unroll
    for (int j = 0; j < STATE / 16; j++) {
        float product[2][4] = {};
        u32 of_state[2][4];
#pragma unroll
        for (int k = 0; k < 2; k++) {
            read_b_of_transpose<SLICE>(of_state[k], state, j * 16, k * 2);
            mma2(product[0], product[1], a[k], of_state[k]);
        }
#pragma unroll
        for (int u = 0; u < 2; u++)
#pragma unroll
            for (int k = 0; k < 4; k++) sum[2 * j + u][k] = fmaf(k < 2 ? scale0 : scale1, product[u][k], sum[2 * j + u][k]);
        each(j, product, of_state);
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
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
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

// What the gradients of the raw time steps and of the parameters need besides.
struct Raw {
    bf16 *gradient;
    const bf16 *raw;
    i64 stride;
    const float *bias, *a_log;
    float *sums; // [3, B chunks, H]: of dt_bias, A_log and D
    float low, high;
};

// The gradients of the raw steps of a head and its sums, from the shares of its slices; by one warp, two steps a lane.
struct Finish {
    float f[2] = {}, of_dt[2] = {}, x_dy[2] = {};

    __device__ __forceinline__ void add(const Job &job, const Raw &raw, int i) {
        int lane = threadIdx.x % 32;
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
        int slice = job.first + i;
        if ((slice + 1) % job.sizes.slices == 0) store(job, raw, slice / job.sizes.slices);
    }

    __device__ __forceinline__ void store(const Job &job, const Raw &raw, int head) {
        int lane = threadIdx.x % 32;
        float2 dt = *reinterpret_cast<const float2 *>(job.dt + job.sizes.steps(job.sequence, head * job.sizes.slices, job.chunk) + 2 * lane);
        float a = -expf(raw.a_log[head]), shift = raw.bias[head], sums[3] = {};
#pragma unroll
        for (int k = 0; k < 2; k++) {
            if (2 * lane + k < job.live) {
                i64 place = (job.row0 + 2 * lane + k) * raw.stride + head;
                float input = load(raw.raw[place]) + shift, open = softplus(input);
                float slope = open == clamp_step(open, raw.low, raw.high) ? sigmoid(input) : 0.0f;
                float of_raw = fmaf(f[k], a, of_dt[k]) * slope;
                raw.gradient[place] = round_bf16(of_raw);
                sums[0] += of_raw;
                sums[1] = fmaf(f[k], (k ? dt.y : dt.x) * a, sums[1]);
                sums[2] += x_dy[k];
            }
            f[k] = of_dt[k] = x_dy[k] = 0.0f;
        }
#pragma unroll
        for (int k = 0; k < 3; k++) {
            float sum = warp_sum(sums[k]);
            i64 chunks = (i64)job.batch * job.sizes.chunks, at = (i64)job.sequence * job.sizes.chunks + job.chunk;
            if (lane == 0) raw.sums[(k * chunks + at) * job.sizes.heads + head] = sum;
        }
    }
};

// The second team: dB of its steps s; <S, R>; and its first warp what is left of each head.
DEVICE void gradient_of_b(const Job &job, const Raw &raw, const Sums &sums) {
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, s = warp * 16 + lane / 4;
    float sum[16][4] = {};
    Finish finish;
    for (int i = 0; i < job.members; i++) {
        job.next(i);
        if (warp == 0 && i > 0) finish.add(job, raw, i - 1);
        Stage in = job.stage(i);
        float edge = 0.0f;
        if (job.after) {
            float last = in.log[CHUNK - 1];
            u32 x[2][4];
            read_a<SLICE>(x[0], in.x, warp * 16, 0);
            read_a<SLICE>(x[1], in.x, warp * 16, 2);
            float scale0 = in.dt[s] * power2(last - in.log[s]), scale1 = in.dt[s + 8] * power2(last - in.log[s + 8]);
            add_products(sum, x, in.r, scale0, scale1, [&](int j, const float (&)[2][4], const u32 (&r)[2][4]) {
                if (j / 2 != warp || !job.before) return;
#pragma unroll
                for (int k = 0; k < 2; k++) {
                    u32 state[4];
                    read_b_of_transpose<SLICE>(state, in.s, j * 16, k * 2);
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        edge = fmaf(low(state[e]), low(r[k][e]), fmaf(high(state[e]), high(r[k][e]), edge));
                }
            });
            edge = warp_sum(edge) * power2(last);
        }
        if (lane == 0) job.shares(i).edge[warp] = edge;
    }
    barrier();
    if (warp == 0) finish.add(job, raw, job.members - 1);
    barrier();
    u32 z_tile = shared_address(job.stages());
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

// The third team: dC of its steps t, and e_t C_t^T S dy_t.
DEVICE void gradient_of_c(const Job &job, const Sums &sums) {
    int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32, q = lane % 4, t = warp * 16 + lane / 4;
    float sum[16][4] = {};
    u32 c[STATE / 16][4];
#pragma unroll
    for (int j = 0; j < STATE / 16; j++) read_a<STATE>(c[j], job.c_tile(), warp * 16, j * 2);
    for (int i = 0; i < job.members; i++) {
        job.next(i);
        Stage in = job.stage(i);
        float of_state[2] = {};
        if (job.before) {
            u32 dy[2][4];
            read_a<SLICE>(dy[0], in.dy, warp * 16, 0);
            read_a<SLICE>(dy[1], in.dy, warp * 16, 2);
            float decay[2] = {power2(in.log[t]), power2(in.log[t + 8])};
            add_products(sum, dy, in.s, decay[0], decay[1], [&](int j, const float (&product)[2][4], const u32 (&)[2][4]) {
#pragma unroll
                for (int u = 0; u < 2; u++)
#pragma unroll
                    for (int k = 0; k < 2; k++) {
                        u32 pair = c[j][2 * u + k];
                        of_state[k] = fmaf(product[u][2 * k], low(pair), fmaf(product[u][2 * k + 1], high(pair), of_state[k]));
                    }
            });
#pragma unroll
            for (int k = 0; k < 2; k++) of_state[k] = quad_sum(of_state[k]) * decay[k];
        }
#pragma unroll
        for (int k = 0; k < 2; k++)
            if (q == 0) job.shares(i).state[t + 8 * k] = of_state[k];
    }
    barrier();
    barrier();
    u32 z_tile = shared_address(job.stages());
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
