// Cross-entropy of rows of logits. On an H100 a cluster of blocks has a row, the slice of each in its shared memory, so
// that every logit is read once. Otherwise a block has a row, and its second pass reads the beginning from shared
// memory, since what all blocks read at once is more than the L2 cache holds.
#include "tensor_cores.cuh"

constexpr int BATCH = 4;

// W = 4 where rows are aligned to four elements, else 1. dlogits may be the logits themselves: a thread writes what it
// alone has read. `cached` is a multiple of W.
template <int W, typename Logit>
DEVICE void row_loss(const Logit *logits, elem *dlogits, float *losses, const i32 *targets, float weight, int vocab,
                     int cached, float *shared) {
    i64 start = (i64)blockIdx.x * vocab;
    int target = targets[blockIdx.x], step = blockDim.x * W;
    logits += start;
    if (dlogits) dlogits += start;
    if (target < 0) {
        if (threadIdx.x == 0) losses[blockIdx.x] = 0;
        float zero[W];
#pragma unroll
        for (int i = 0; i < W; i++) zero[i] = 0;
        for (int at = threadIdx.x * W; dlogits && at < vocab; at += step) {
            store_many<W>(dlogits + at, zero);
        }
        return;
    }
    float at_target = load(logits[target]);
    float most = Max::empty(), sum = 0;
    for (int base = threadIdx.x * W; base < vocab; base += BATCH * step) {
        float x[BATCH][W], now = most;
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            int at = base + k * step;
            if (at < vocab) {
                load_many<W>(logits + at, x[k]);
            } else {
#pragma unroll
                for (int i = 0; i < W; i++) x[k][i] = Max::empty();
            }
        }
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            int at = base + k * step;
            if (at < cached) store_many<W>(shared + at, x[k]);
#pragma unroll
            for (int i = 0; i < W; i++) now = fmaxf(now, x[k][i]);
        }
        float part = 0;
#pragma unroll
        for (int k = 0; k < BATCH; k++)
#pragma unroll
            for (int i = 0; i < W; i++) part += __expf(x[k][i] - now);
        sum = fmaf(sum, __expf(most - now), part);
        most = now;
    }
    float peak = block_max(most);
    float total = block_sum(sum * __expf(most - peak));
    if (threadIdx.x == 0) losses[blockIdx.x] = (float)(log((double)total) + (double)peak - (double)at_target);
    if (!dlogits) return;
    float scale = weight / total;
    for (int base = threadIdx.x * W; base < vocab; base += BATCH * step) {
        float x[BATCH][W];
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            int at = base + k * step;
            if (at < cached) load_many<W>(shared + at, x[k]);
            else if (at < vocab) load_many<W>(logits + at, x[k]);
        }
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            int at = base + k * step;
            if (at >= vocab) continue;
#pragma unroll
            for (int i = 0; i < W; i++) {
                x[k][i] = scale * __expf(x[k][i] - peak) - (at + i == target ? weight : 0.0f);
            }
            store_many<W>(dlogits + at, x[k]);
        }
    }
}

template <typename Logit>
DEVICE void rows_loss(const Logit *logits, elem *dlogits, float *losses, const i32 *targets, const i32 *unmasked,
                      int vocab, int cached, int vec) {
    extern __shared__ float4 shared[];
    float *cache = reinterpret_cast<float *>(shared), weight = 1.0f / (float)max(*unmasked, 1);
    if (vec) row_loss<4>(logits, dlogits, losses, targets, weight, vocab, cached, cache);
    else row_loss<1>(logits, dlogits, losses, targets, weight, vocab, cached, cache);
}

// losses[row] = logsumexp(logits) - logits[target], dlogits (if any) = (softmax - onehot) / unmasked; both 0 where the
// target is negative. `unmasked`: how many targets of the batch are not.
extern "C" __global__ void __launch_bounds__(1024)
cross_entropy_rows(const float *logits, elem *dlogits, float *losses, const i32 *targets, const i32 *unmasked, int vocab,
                   int cached, int vec) {
    rows_loss(logits, dlogits, losses, targets, unmasked, vocab, cached, vec);
}

// The same with logits of the type of their gradient, which may take their place.
extern "C" __global__ void __launch_bounds__(1024)
cross_entropy_in_place(const elem *logits, elem *dlogits, float *losses, const i32 *targets, const i32 *unmasked,
                       int vocab, int cached, int vec) {
    rows_loss(logits, dlogits, losses, targets, unmasked, vocab, cached, vec);
}

// mean = sum of the losses / unmasked, in double; one block of 1024 threads.
extern "C" __global__ void __launch_bounds__(1024)
cross_entropy_mean(const float *losses, float *mean, const i32 *unmasked, i64 rows) {
    __shared__ double sums[1024];
    double sum = 0;
    for (i64 i = threadIdx.x; i < rows; i += 1024) sum += (double)losses[i];
    sums[threadIdx.x] = sum;
    for (int half = 512; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) mean[0] = (float)(sums[0] / (double)max(*unmasked, 1));
}

#if __CUDA_ARCH__ >= 900
constexpr int SLICE_THREADS = 512;
constexpr float LOG2E = 1.4426950408889634f;

// What exponentials are taken relative to: finite where all logits are -inf.
DEVICE float scaled_peak(float most) { return fmaxf(most, -1e30f) * LOG2E; }

DEVICE void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// The float2 at that place in the shared memory of another block of the cluster.
DEVICE float2 of_block(const float2 *own, int rank) {
    u32 at;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(shared_address(own)), "r"(rank));
    float2 x;
    asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(at) : "memory");
    return x;
}

// A row in slices of whole 16 bytes, one for each of C blocks. Threads see only what they fetched themselves.
template <int C, typename Logit>
DEVICE void slice_loss(const Logit *logits, elem *dlogits, float *losses, const i32 *targets, const i32 *unmasked,
                       int vocab) {
    constexpr int W = Vec<Logit>::N, STEP = SLICE_THREADS * W;
    extern __shared__ float4 shared[];
    __shared__ float2 of_slice;
    Logit *cache = reinterpret_cast<Logit *>(shared);
    // Last rows first: the product has just written them.
    i64 row = (gridDim.x - 1 - blockIdx.x) / C;
    int rank = blockIdx.x % C, slice = ceil_div(vocab / W, C) * W, first = rank * slice;
    int count = max(min(slice, vocab - first), 0), target = targets[row], from = threadIdx.x * W;
    logits += row * vocab + first;
    if (dlogits) dlogits += row * vocab + first;
    if (target < 0) {
        if (rank == 0 && threadIdx.x == 0) losses[row] = 0;
        float zero[W] = {};
        for (int at = from; dlogits && at < count; at += STEP) store_many<W>(dlogits + at, zero);
        return;
    }
    for (int at = from; at < count; at += STEP)
        copy_async(shared_address(cache + at), logits + at, true);
    target -= first;
    bool owner = target >= 0 && target < count;
    float at_target = owner ? load(logits[target]) : 0.0f, most = Max::empty(), sum = 0.0f;
    copy_wait_all();
    for (int at = from; at < count; at += STEP) {
        float x[W];
        load_many<W>(cache + at, x);
#pragma unroll
        for (int i = 0; i < W; i++) most = fmaxf(most, x[i]);
    }
    float peak = scaled_peak(most);
    for (int at = from; at < count; at += STEP) {
        float x[W];
        load_many<W>(cache + at, x);
#pragma unroll
        for (int i = 0; i < W; i++) sum += exp2_fast(fmaf(x[i], LOG2E, -peak));
    }
    float highest = scaled_peak(block_max(most));
    sum = block_sum(sum * exp2_fast(peak - highest));
    if (threadIdx.x == 0) of_slice = make_float2(highest, sum);
    cluster_barrier();
    float2 parts[C];
    peak = Max::empty(), sum = 0.0f;
#pragma unroll
    for (int i = 0; i < C; i++) parts[i] = of_block(&of_slice, i), peak = fmaxf(peak, parts[i].x);
#pragma unroll
    for (int i = 0; i < C; i++) sum = fmaf(parts[i].y, exp2_fast(parts[i].x - peak), sum);
    if (owner && threadIdx.x == 0)
        losses[row] = (float)(log((double)sum) + (double)peak * 0.69314718055994531 - (double)at_target);
    if (dlogits) {
        float weight = 1.0f / (float)max(*unmasked, 1), scale = weight / sum;
        for (int at = from; at < count; at += STEP) {
            float x[W];
            load_many<W>(cache + at, x);
#pragma unroll
            for (int i = 0; i < W; i++) {
                x[i] = scale * exp2_fast(fmaf(x[i], LOG2E, -peak)) - (at + i == target ? weight : 0.0f);
            }
            store_many<W>(dlogits + at, x);
        }
    }
    cluster_barrier(); // no block ends while another reads what it left
}

#define CLUSTERS(C)                                                                                                    \
    extern "C" __global__ void __cluster_dims__(C, 1, 1) __launch_bounds__(SLICE_THREADS, 4)                           \
        cross_entropy_rows_##C(const float *logits, elem *dlogits, float *losses, const i32 *targets,                  \
                               const i32 *unmasked, int vocab) {                                                       \
        slice_loss<C>(logits, dlogits, losses, targets, unmasked, vocab);                                              \
    }                                                                                                                  \
    extern "C" __global__ void __cluster_dims__(C, 1, 1) __launch_bounds__(SLICE_THREADS, 4)                           \
        cross_entropy_in_place_##C(const elem *logits, elem *dlogits, float *losses, const i32 *targets,               \
                                   const i32 *unmasked, int vocab) {                                                   \
        slice_loss<C>(logits, dlogits, losses, targets, unmasked, vocab);                                              \
    }
CLUSTERS(2)
CLUSTERS(4)
CLUSTERS(8)
#endif
