#line 2 "steps.cuh"
// Time steps and the sums of their log decay, and the last sums of the gradients.

// Least log2 of a step's decay: 2^-160 is 0 in f32, as is all below it; sums over a chunk stay small and finite.
constexpr float LEAST = -160.0f;

// Keeps a NaN.
DEVICE float clamp_step(float open, float low, float high) { return open < low ? low : open > high ? high : open; }

// steps [B, H, chunks, PARTS, CHUNK]. Beyond the sequence dt is 0 and the decay 1. A warp has a chunk of a head, a lane
// two steps.
extern "C" __global__ void chunk_steps(float *steps, const bf16 *raw, const float *bias, const float *a_log, i64 warps,
                                       int len, int heads, i64 raw_stride, float low, float high) {
    i64 warp = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (warp >= warps) return;
    int lane = threadIdx.x % 32, chunks = ceil_div(len, CHUNK);
    int head = (int)(warp % heads), chunk = (int)(warp / heads % chunks);
    i64 sequence = warp / heads / chunks;
    float rate = -expf(a_log[head]) * 1.44269504f, shift = bias[head];
    float dt[2] = {}, log[2] = {}, slope[2] = {};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int t = chunk * CHUNK + 2 * lane + i;
        if (t >= len) continue;
        float input = load(raw[(sequence * len + t) * raw_stride + head]) + shift, open = softplus(input);
        dt[i] = clamp_step(open, low, high);
        slope[i] = open == dt[i] ? sigmoid(input) : 0.0f;
        log[i] = dt[i] * rate < LEAST ? LEAST : dt[i] * rate;
    }
    float both = log[0] + log[1], through = both;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        float before = __shfl_up_sync(0xffffffffu, through, distance);
        if (lane >= distance) through += before;
    }
    float before = __shfl_up_sync(0xffffffffu, through, 1);
    if (lane == 0) before = 0.0f;
    float last = __shfl_sync(0xffffffffu, before + both, 31);
    log[0] += before, log[1] = before + both;
    steps += ((sequence * heads + head) * chunks + chunk) * (PARTS * CHUNK);
    float2 *to = reinterpret_cast<float2 *>(steps) + lane;
    to[DT * CHUNK / 2] = make_float2(dt[0], dt[1]);
    to[LOG * CHUNK / 2] = make_float2(log[0], log[1]);
    to[DECAY * CHUNK / 2] = make_float2(power2(log[0]), power2(log[1]));
    to[WEIGHT * CHUNK / 2] = make_float2(dt[0] * power2(last - log[0]), dt[1] * power2(last - log[1]));
    to[SLOPE * CHUNK / 2] = make_float2(slope[0], slope[1]);
}

// Adds up the parts of the gradients of B and C, [parts, R, 2 G N], into their columns of dxbc; a thread has 8 of them.
extern "C" __global__ void chunk_sum_parts(bf16 *dxbc, const float *parts, int count, i64 rows, int width, i64 stride,
                                           int column) {
    i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8, row = i / width, at = i % width;
    if (row >= rows) return;
    float sum[8] = {};
    for (int part = 0; part < count; part++) {
        float x[8];
        load_many<8>(parts + part * rows * width + i, x);
#pragma unroll
        for (int k = 0; k < 8; k++) sum[k] += x[k];
    }
    store_vec(dxbc + row * stride + column + at, sum);
}

// Sums [3, rows, H] over rows, in order, into the gradients of dt_bias, A_log and D; blockIdx.y tells which.
extern "C" __global__ void chunk_total(float *bias, float *a_log, float *d, const float *sums, i64 rows, int heads,
                                       int add_bias, int add_a_log, int add_d) {
    int which = blockIdx.y, lane = threadIdx.x % 32, head = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (head >= heads) return;
    float sum = 0.0f;
    for (i64 row = lane; row < rows; row += 32) sum += sums[(which * rows + row) * heads + head];
    sum = warp_sum(sum);
    float *to = (which == 0 ? bias : which == 1 ? a_log : d) + head;
    int add = which == 0 ? add_bias : which == 1 ? add_a_log : add_d;
    if (lane == 0) *to = add ? *to + sum : sum;
}
