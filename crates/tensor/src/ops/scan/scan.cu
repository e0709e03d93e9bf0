#line 2 "scan.cu"
// The selective state-space scan, step by step in f32 (the formulae stand in mod.rs, the cut of the work in tile.cuh).
//
// Backward: s_t is the gradient of S_t, r_t = decay_{t+1} s_{t+1} its part from later steps, s_t = C_t (x) dy_t + r_t.
//   dx_t = D dy_t + dt sum_n B s_t
//   dB_t = dt sum_p s_t x_t = dt (h_t + C (x.dy)),            h_t[n] = sum_p r_t x_t
//   dC_t = sum_p S_t dy_t   = decay_t q_t + dt B (x.dy),      q_t[n] = sum_p S_{t-1} dy_t
// q needs a forward sweep alone and h a backward sweep alone, so neither keeps states. The gradient of the decay,
// f_t := decay_t <S_{t-1}, s_t>, needs both; but from the definitions f_t = f_{t+1} + decay_t (C.q_t) - dt (B.h_t).
// That sum would gather rounding errors over long sequences: it starts anew every EDGE steps from the exact product
// f_t = <S_{t-1}, r_{t-1}>, for which the forward sweep leaves S there. The share of a step itself, (B.C)(x.dy), is
// kept out of q and h, so that nothing large cancels where the decay is strong.

template <int NT, int PT>
DEVICE void forward(elem *y, const elem *xbc, const float *dt, const float *decay, const float *d, int len, int heads,
                    int dim, int groups, int state, int slices, int vec) {
    constexpr int NP = 16 * NT, PW = 8 * PT;
    __shared__ __align__(16) float bs[2][TT][NP], cs[2][TT][NP], xs[2][TT][PW], sums[2][WARPS][TT][PW];
    __shared__ float2 steps[2][TT];
    Task task = task_of_block(len, heads, dim, groups, state, slices, PW);
    Place<NT, PT> at;
    i64 stride = heads * dim + 2 * groups * state, inner = heads * dim;
    const elem *from = xbc + task.row0 * stride;
    Stream<NP> b_in(from + task.b, stride, state, vec), c_in(from + task.c, stride, state, vec);
    Stream<PW> x_in(from + task.column, stride, task.width, vec);
    Steps steps_in(dt + task.steps, decay + task.steps);
    auto fetch = [&](int t0) {
        int rows = min(TT, len - t0);
        b_in.fetch(t0, rows), c_in.fetch(t0, rows), x_in.fetch(t0, rows), steps_in.fetch(t0, rows);
    };
    auto put = [&](int t0, int to) {
        int rows = min(TT, len - t0);
        b_in.put(bs[to], t0, rows), c_in.put(cs[to], t0, rows), x_in.put(xs[to], t0, rows), steps_in.put(steps[to]);
    };
    float skip = d[task.head];
    float s[NT][PT] = {};
    fetch(0);
    put(0, 0);
    __syncthreads();
    for (int t0 = 0, now = 0; t0 < len; t0 += TT, now ^= 1) {
        bool more = t0 + TT < len;
        if (more) fetch(t0 + TT);
#pragma unroll UNROLL<NT>
        for (int t = 0; t < TT; t++) {
            float b[NT], c[NT], x[PT], out[PT] = {};
            read(b, &bs[now][t][at.n]);
            read(c, &cs[now][t][at.n]);
            read(x, &xs[now][t][at.p]);
            float2 step = steps[now][t];
#pragma unroll
            for (int j = 0; j < PT; j++) x[j] *= step.x;
#pragma unroll
            for (int i = 0; i < NT; i++)
#pragma unroll
                for (int j = 0; j < PT; j++) {
                    s[i][j] = fmaf(b[i], x[j], step.y * s[i][j]);
                    out[j] = fmaf(c[i], s[i][j], out[j]);
                }
            at.sum_rows(out, sums[now][at.warp][t], 1.0f, skip, xs[now][t]);
        }
        if (more) put(t0 + TT, now ^ 1);
        __syncthreads();
        store_sums(y + (task.row0 + t0) * inner + task.column, sums[now], inner, min(TT, len - t0), task.width);
    }
}

// The forward sweep of the backward pass: q [R, H, slices, NP], and S before every EDGE-th step but the first,
// [blocks, ceil(T / EDGE) - 1, NT PT, THREADS].
template <int NT, int PT>
DEVICE void backward_q(float *q, float *states, const elem *dy, const elem *xbc, const float *dt, const float *decay,
                       int len, int heads, int dim, int groups, int state, int slices, int vec) {
    constexpr int NP = 16 * NT, PW = 8 * PT;
    __shared__ __align__(16) float bs[2][TT][NP], xs[2][TT][PW], dys[2][TT][PW];
    __shared__ float2 steps[2][TT];
    Task task = task_of_block(len, heads, dim, groups, state, slices, PW);
    Place<NT, PT> at;
    i64 stride = heads * dim + 2 * groups * state, inner = heads * dim;
    i64 parts = (i64)heads * slices * NP, edges = (len - 1) / EDGE;
    const elem *from = xbc + task.row0 * stride;
    Stream<NP> b_in(from + task.b, stride, state, vec);
    Stream<PW> x_in(from + task.column, stride, task.width, vec);
    Stream<PW> dy_in(dy + task.row0 * inner + task.column, inner, task.width, vec);
    Steps steps_in(dt + task.steps, decay + task.steps);
    auto fetch = [&](int t0) {
        int rows = min(TT, len - t0);
        b_in.fetch(t0, rows), x_in.fetch(t0, rows), dy_in.fetch(t0, rows), steps_in.fetch(t0, rows);
    };
    auto put = [&](int t0, int to) {
        int rows = min(TT, len - t0);
        b_in.put(bs[to], t0, rows), x_in.put(xs[to], t0, rows), dy_in.put(dys[to], t0, rows), steps_in.put(steps[to]);
    };
    float s[NT][PT] = {};
    fetch(0);
    put(0, 0);
    __syncthreads();
    for (int t0 = 0, now = 0; t0 < len; t0 += TT, now ^= 1) {
        bool more = t0 + TT < len;
        if (more) fetch(t0 + TT);
        if (t0 > 0 && t0 % EDGE == 0) {
            float *to = states + (task.block * edges + t0 / EDGE - 1) * (NT * PT * THREADS) + threadIdx.x;
#pragma unroll
            for (int i = 0; i < NT; i++)
#pragma unroll
                for (int j = 0; j < PT; j++) to[(i * PT + j) * THREADS] = s[i][j];
        }
        float *to = q + (task.row0 + t0) * parts + task.part * NP;
#pragma unroll UNROLL<NT>
        for (int t = 0; t < TT; t++) {
            float b[NT], x[PT], dout[PT], sum[NT] = {};
            read(b, &bs[now][t][at.n]);
            read(x, &xs[now][t][at.p]);
            read(dout, &dys[now][t][at.p]);
            float2 step = steps[now][t];
#pragma unroll
            for (int j = 0; j < PT; j++) x[j] *= step.x;
#pragma unroll
            for (int i = 0; i < NT; i++)
#pragma unroll
                for (int j = 0; j < PT; j++) {
                    sum[i] = fmaf(s[i][j], dout[j], sum[i]);
                    s[i][j] = fmaf(b[i], x[j], step.y * s[i][j]);
                }
            at.sum_columns(sum, to + t * parts, t0 + t < len);
        }
        if (more) put(t0 + TT, now ^ 1);
        __syncthreads();
    }
}

// The backward sweep: h [R, H, slices, NP], dx into its columns of `dxbc`, and f at every EDGE-th step but the first,
// [blocks, ceil(T / EDGE) - 1].
template <int NT, int PT>
DEVICE void backward_h(float *h, float *edge_products, elem *dxbc, const float *states, const elem *dy,
                       const elem *xbc, const float *dt, const float *decay, const float *d, int len, int heads,
                       int dim, int groups, int state, int slices, int vec) {
    constexpr int NP = 16 * NT, PW = 8 * PT;
    __shared__ __align__(16) float bs[2][TT][NP], cs[2][TT][NP], xs[2][TT][PW], dys[2][TT][PW], sums[2][WARPS][TT][PW];
    __shared__ float2 steps[2][TT];
    Task task = task_of_block(len, heads, dim, groups, state, slices, PW);
    Place<NT, PT> at;
    i64 stride = heads * dim + 2 * groups * state, inner = heads * dim;
    i64 parts = (i64)heads * slices * NP, edges = (len - 1) / EDGE;
    const elem *from = xbc + task.row0 * stride;
    Stream<NP> b_in(from + task.b, stride, state, vec), c_in(from + task.c, stride, state, vec);
    Stream<PW> x_in(from + task.column, stride, task.width, vec);
    Stream<PW> dy_in(dy + task.row0 * inner + task.column, inner, task.width, vec);
    Steps steps_in(dt + task.steps, decay + task.steps);
    auto fetch = [&](int t0) {
        int rows = min(TT, len - t0);
        b_in.fetch(t0, rows), c_in.fetch(t0, rows), x_in.fetch(t0, rows);
        dy_in.fetch(t0, rows), steps_in.fetch(t0, rows);
    };
    auto put = [&](int t0, int to) {
        int rows = min(TT, len - t0);
        b_in.put(bs[to], t0, rows), c_in.put(cs[to], t0, rows), x_in.put(xs[to], t0, rows);
        dy_in.put(dys[to], t0, rows), steps_in.put(steps[to]);
    };
    float skip = d[task.head];
    float r[NT][PT] = {};
    int last = (len - 1) / TT * TT;
    fetch(last);
    put(last, 0);
    __syncthreads();
    for (int t0 = last, now = 0; t0 >= 0; t0 -= TT, now ^= 1) {
        if (t0 > 0) fetch(t0 - TT);
        float *to = h + (task.row0 + t0) * parts + task.part * NP;
#pragma unroll UNROLL<NT>
        for (int t = TT - 1; t >= 0; t--) {
            float b[NT], c[NT], x[PT], dout[PT], sum[NT] = {}, dx[PT] = {};
            read(b, &bs[now][t][at.n]);
            read(c, &cs[now][t][at.n]);
            read(x, &xs[now][t][at.p]);
            read(dout, &dys[now][t][at.p]);
            float2 step = steps[now][t];
#pragma unroll
            for (int i = 0; i < NT; i++)
#pragma unroll
                for (int j = 0; j < PT; j++) {
                    sum[i] = fmaf(r[i][j], x[j], sum[i]);
                    float whole = fmaf(c[i], dout[j], r[i][j]);
                    dx[j] = fmaf(b[i], whole, dx[j]);
                    r[i][j] = step.y * whole;
                }
            at.sum_columns(sum, to + t * parts, t0 + t < len);
            at.sum_rows(dx, sums[now][at.warp][t], step.x, skip, dys[now][t]);
        }
        if (t0 > 0) put(t0 - TT, now ^ 1);
        __syncthreads();
        store_sums(dxbc + (task.row0 + t0) * stride + task.column, sums[now], stride, min(TT, len - t0), task.width);
        if (t0 > 0 && t0 % EDGE == 0) {
            i64 edge = task.block * edges + t0 / EDGE - 1;
            const float *before = states + edge * (NT * PT * THREADS) + threadIdx.x;
            float product = 0.0f;
#pragma unroll
            for (int i = 0; i < NT; i++)
#pragma unroll
                for (int j = 0; j < PT; j++) product = fmaf(before[(i * PT + j) * THREADS], r[i][j], product);
            product = block_sum(product);
            if (threadIdx.x == 0) edge_products[edge] = product;
        }
    }
}

// Gradients of B and C of one row and group, from q and h of its heads; and for each head the step's share of the
// decay's gradient, f_t - f_{t+1}, and sum_p x dxt with dxt = sum_n B s, both [B, H, T]. Warps take heads in turn.
template <int NT>
DEVICE void backward_bc(elem *dxbc, float *change, float *of_dt, const float *q, const float *h, const float *xdy,
                        const elem *xbc, const float *dt, const float *decay, int len, int heads, int dim,
                        int groups, int state, int slices) {
    constexpr int NP = 16 * NT, OWN = NP / 32;
    __shared__ float all_b[WARPS][NP], all_c[WARPS][NP], all_own[WARPS];
    i64 row = blockIdx.x, sequence = row / len, t = row % len;
    int group = blockIdx.y, members = heads / groups;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    i64 stride = heads * dim + 2 * groups * state;
    i64 b_at = row * stride + heads * dim + group * state, c_at = b_at + groups * state;
    float b[OWN], c[OWN], db[OWN] = {}, dc[OWN] = {}, product = 0.0f, own = 0.0f;
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        int n = lane + 32 * i;
        b[i] = n < state ? load(xbc[b_at + n]) : 0.0f;
        c[i] = n < state ? load(xbc[c_at + n]) : 0.0f;
        product = fmaf(b[i], c[i], product);
    }
    product = warp_sum(product);
    for (int head = group * members + warp; head < (group + 1) * members; head += WARPS) {
        i64 step = (sequence * heads + head) * len + t;
        float dt_t = dt[step], decay_t = decay[step], xdy_t = xdy[step];
        float cq = 0.0f, bh = 0.0f;
        for (int slice = 0; slice < slices; slice++) {
            i64 part = ((row * heads + head) * slices + slice) * NP + lane;
#pragma unroll
            for (int i = 0; i < OWN; i++) {
                float q_n = q[part + 32 * i], h_n = h[part + 32 * i];
                cq = fmaf(c[i], q_n, cq);
                bh = fmaf(b[i], h_n, bh);
                dc[i] = fmaf(decay_t, q_n, dc[i]);
                db[i] = fmaf(dt_t, h_n, db[i]);
            }
        }
        cq = warp_sum(cq);
        bh = warp_sum(bh);
        own = fmaf(dt_t, xdy_t, own);
        if (lane == 0) {
            change[step] = decay_t * cq - dt_t * bh;
            of_dt[step] = fmaf(product, xdy_t, bh);
        }
    }
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        all_b[warp][lane + 32 * i] = db[i];
        all_c[warp][lane + 32 * i] = dc[i];
    }
    if (lane == 0) all_own[warp] = own;
    __syncthreads();
    own = (all_own[0] + all_own[1]) + (all_own[2] + all_own[3]);
    for (int n = threadIdx.x; n < state; n += THREADS) {
        float of_b = (all_b[0][n] + all_b[1][n]) + (all_b[2][n] + all_b[3][n]);
        float of_c = (all_c[0][n] + all_c[1][n]) + (all_c[2][n] + all_c[3][n]);
        dxbc[b_at + n] = store(fmaf(own, load(xbc[c_at + n]), of_b));
        dxbc[c_at + n] = store(fmaf(own, load(xbc[b_at + n]), of_c));
    }
}

// Keeps a NaN.
DEVICE float clamp_step(float open, float low, float high) { return open < low ? low : open > high ? high : open; }

// dt and decay [B, H, T]; with `dy`, also x.dy of each row and head. Eight lanes a row and head.
extern "C" __global__ void scan_steps(float *dt, float *decay, float *xdy, const elem *raw, const float *bias,
                                      const float *a_log, const elem *xbc, const elem *dy, i64 rows, int len,
                                      int heads, int dim, i64 raw_stride, i64 width, float low, float high) {
    i64 item = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 8;
    int lane = threadIdx.x % 8;
    bool live = item < rows * heads;
    i64 row = live ? item / heads : 0;
    int head = live ? (int)(item % heads) : 0;
    i64 step = (row / len * heads + head) * len + row % len;
    if (dy) {
        const elem *x = xbc + row * width + head * dim;
        const elem *of_y = dy + row * ((i64)heads * dim) + head * dim;
        float sum = 0.0f;
        for (int p = lane; p < dim; p += 8) sum = fmaf(load(x[p]), load(of_y[p]), sum);
        sum = warp_reduce<Sum, 8>(sum);
        if (live && lane == 0) xdy[step] = sum;
    }
    if (live && lane == 0) {
        float value = clamp_step(softplus(load(raw[row * raw_stride + head]) + bias[head]), low, high);
        dt[step] = value;
        decay[step] = expf(value * -expf(a_log[head]));
    }
}

// The gradient of the raw steps, and of dt_bias, A_log and D summed over a sequence, [3, B, H]. One warp a sequence and
// head goes from the last step to the first, 32 at a time.
extern "C" __global__ void scan_finish(elem *draw, float *sums, const float *change, const float *of_dt,
                                       const float *edge_products, const float *xdy, const float *dt,
                                       const elem *raw, const float *bias, const float *a_log, int len, int heads,
                                       int slices, i64 pairs, i64 raw_stride, float low, float high) {
    i64 pair = (i64)blockIdx.x * WARPS + threadIdx.x / 32;
    if (pair >= pairs) return; // the whole warp
    int lane = threadIdx.x % 32, head = (int)(pair % heads);
    i64 row0 = pair / heads * len, steps = pair * len, edges = (len - 1) / EDGE;
    float a = -expf(a_log[head]), shift = bias[head];
    float later = 0.0f, of_bias = 0.0f, of_a_log = 0.0f, of_d = 0.0f;
    for (int t0 = (len - 1) / 32 * 32; t0 >= 0; t0 -= 32) {
        int t = t0 + lane;
        bool live = t < len;
        // f of this step: the sum of the changes from here on, to the end or to the next exact value.
        float f = live ? change[steps + t] : 0.0f;
#pragma unroll
        for (int distance = 1; distance < 32; distance *= 2) {
            float next = __shfl_down_sync(0xffffffffu, f, distance);
            if (lane + distance < 32) f += next;
        }
        f += later;
        later = __shfl_sync(0xffffffffu, f, 0);
        if (t0 > 0 && t0 % EDGE == 0) {
            later = 0.0f;
            for (int slice = 0; slice < slices; slice++)
                later += edge_products[(pair * slices + slice) * edges + t0 / EDGE - 1];
            if (lane == 0) f = later;
        }
        if (live) {
            i64 place = (row0 + t) * raw_stride + head;
            float input = load(raw[place]) + shift, open = softplus(input);
            float slope = open == clamp_step(open, low, high) ? sigmoid(input) : 0.0f;
            float of_raw = fmaf(f, a, of_dt[steps + t]) * slope;
            draw[place] = store(of_raw);
            of_bias += of_raw;
            of_a_log = fmaf(f, dt[steps + t] * a, of_a_log);
            of_d += xdy[steps + t];
        }
    }
    of_bias = warp_sum(of_bias);
    of_a_log = warp_sum(of_a_log);
    of_d = warp_sum(of_d);
    if (lane == 0) {
        sums[pair] = of_bias;
        sums[pairs + pair] = of_a_log;
        sums[2 * pairs + pair] = of_d;
    }
}

// Sums over the sequences, in order, of [B, H] into the gradient of one parameter [H].
extern "C" __global__ void scan_total(float *grad, const float *sums, int batch, int heads, int add) {
    int head = blockIdx.x * blockDim.x + threadIdx.x;
    if (head >= heads) return;
    float total = add ? grad[head] : 0.0f;
    for (int b = 0; b < batch; b++) total += sums[(i64)b * heads + head];
    grad[head] = total;
}

#define SIZES int len, int heads, int dim, int groups, int state, int slices
#define SIZE_VALUES len, heads, dim, groups, state, slices
#define SWEEP extern "C" __global__ void __launch_bounds__(THREADS, 3)

// By state size, with 32 columns of a head in a block, or 64.
#define VARIANT(NAME, NT, PT)                                                                                          \
    SWEEP scan_forward_##NAME(elem *y, const elem *xbc, const float *dt, const float *decay, const float *d, SIZES,    \
                              int vec) {                                                                               \
        forward<NT, PT>(y, xbc, dt, decay, d, SIZE_VALUES, vec);                                                       \
    }                                                                                                                  \
    SWEEP scan_backward_q_##NAME(float *q, float *states, const elem *dy, const elem *xbc, const float *dt,            \
                                 const float *decay, SIZES, int vec) {                                                 \
        backward_q<NT, PT>(q, states, dy, xbc, dt, decay, SIZE_VALUES, vec);                                           \
    }                                                                                                                  \
    SWEEP scan_backward_h_##NAME(float *h, float *edge_products, elem *dxbc, const float *states, const elem *dy,      \
                                 const elem *xbc, const float *dt, const float *decay, const float *d, SIZES,          \
                                 int vec) {                                                                            \
        backward_h<NT, PT>(h, edge_products, dxbc, states, dy, xbc, dt, decay, d, SIZE_VALUES, vec);                   \
    }
#define VARIANT_BC(NAME, NT)                                                                                           \
    extern "C" __global__ void scan_backward_bc_##NAME(elem *dxbc, float *change, float *of_dt, const float *q,        \
                                                       const float *h, const float *xdy, const elem *xbc,              \
                                                       const float *dt, const float *decay, SIZES) {                   \
        backward_bc<NT>(dxbc, change, of_dt, q, h, xdy, xbc, dt, decay, SIZE_VALUES);                                  \
    }

VARIANT(n32, 2, 4)
VARIANT(n64, 4, 4)
VARIANT(n128, 8, 4)
VARIANT(n128_wide, 8, 8)
VARIANT(n256, 16, 4)
VARIANT_BC(n32, 2)
VARIANT_BC(n64, 4)
VARIANT_BC(n128, 8)
VARIANT_BC(n256, 16)
