// Cross-entropy of rows of logits. A block has a row; the second pass reads its beginning from shared memory, since
// what all blocks read at once is more than the L2 cache holds.
#include "common.cuh"

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
