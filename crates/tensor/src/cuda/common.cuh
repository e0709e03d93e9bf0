// What every kernel shares: element types, 16-byte access, deterministic reductions, activations.
// Includes nothing, since a run-time-only installation has no CUDA headers.
//
// Storage is `elem`: float, or bf16 when compiled with -DELEM_BF16=1. Arithmetic is always float.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#define DEVICE static __device__ __forceinline__

// ---- Elements ----

// bfloat16: the upper half of a float.
struct __align__(2) bf16 {
    u16 bits;
};

#ifdef ELEM_BF16
typedef bf16 elem;
#else
typedef float elem;
#endif

DEVICE float load(float x) { return x; }
DEVICE float load(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

// Rounds to nearest, ties to even; a NaN stays a NaN.
DEVICE bf16 round_bf16(float x) {
    bf16 y;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#else
    u32 bits = __float_as_uint(x);
    y.bits = x != x ? 0x7fff : (u16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
#endif
    return y;
}

// Two at once, the first in the low half.
DEVICE u32 round_bf16x2(float low, float high) {
#if __CUDA_ARCH__ >= 800
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return (u32)round_bf16(low).bits | (u32)round_bf16(high).bits << 16;
#endif
}

// The numbers of a pair.
DEVICE float low(u32 pair) { return __uint_as_float(pair << 16); }
DEVICE float high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// store_as<T>(x): x as a T. store(x): x as an elem.
template <typename T> DEVICE T store_as(float x);
template <> __device__ __forceinline__ float store_as<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 store_as<bf16>(float x) { return round_bf16(x); }
DEVICE elem store(float x) { return store_as<elem>(x); }

// ---- 16 bytes at once: 4 floats or 8 bf16 ----

template <typename T> struct Vec {
    static constexpr int N = 16 / (int)sizeof(T);
};
// Elements of `elem` in 16 bytes.
constexpr int VEC = Vec<elem>::N;

// Whether load_vec and store_vec may be used there.
DEVICE bool aligned16(const void *p) { return ((u64)p & 15) == 0; }

DEVICE void load_vec(const float *p, float (&x)[4]) {
    float4 v = *reinterpret_cast<const float4 *>(p);
    x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
}

DEVICE void load_vec(const bf16 *p, float (&x)[8]) {
    uint4 v = *reinterpret_cast<const uint4 *>(p);
    u32 pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = low(pairs[i]);
        x[2 * i + 1] = high(pairs[i]);
    }
}

DEVICE void store_vec(float *p, const float (&x)[4]) {
    *reinterpret_cast<float4 *>(p) = make_float4(x[0], x[1], x[2], x[3]);
}

DEVICE void store_vec(bf16 *p, const float (&x)[8]) {
    *reinterpret_cast<uint4 *>(p) = make_uint4(round_bf16x2(x[0], x[1]), round_bf16x2(x[2], x[3]),
                                               round_bf16x2(x[4], x[5]), round_bf16x2(x[6], x[7]));
}

// W elements: one, four, or a multiple of what 16 bytes hold; aligned to what they take, at most 16 bytes.
template <int W, typename T> DEVICE void load_many(const T *p, float (&x)[W]) {
    if constexpr (W == 1) {
        x[0] = load(p[0]);
    } else if constexpr (W * sizeof(T) == 8) {
        uint2 v = *reinterpret_cast<const uint2 *>(p);
        x[0] = __uint_as_float(v.x << 16), x[1] = __uint_as_float(v.x & 0xffff0000u);
        x[2] = __uint_as_float(v.y << 16), x[3] = __uint_as_float(v.y & 0xffff0000u);
    } else {
        constexpr int N = Vec<T>::N;
#pragma unroll
        for (int i = 0; i < W; i += N) {
            float part[N];
            load_vec(p + i, part);
#pragma unroll
            for (int j = 0; j < N; j++) x[i + j] = part[j];
        }
    }
}

template <int W, typename T> DEVICE void store_many(T *p, const float (&x)[W]) {
    if constexpr (W == 1) {
        p[0] = store_as<T>(x[0]);
    } else if constexpr (W * sizeof(T) == 8) {
        *reinterpret_cast<uint2 *>(p) = make_uint2(round_bf16x2(x[0], x[1]), round_bf16x2(x[2], x[3]));
    } else {
        constexpr int N = Vec<T>::N;
#pragma unroll
        for (int i = 0; i < W; i += N) {
            float part[N];
#pragma unroll
            for (int j = 0; j < N; j++) part[j] = x[i + j];
            store_vec(p + i, part);
        }
    }
}

// Pieces of a row that a warp reads 32 W elements apart, from base on; zero beyond the row's end.
template <int BATCH, int W, typename T>
DEVICE void load_batch(const T *row, int base, int width, float (&x)[BATCH][W]) {
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
        if (base + k * 32 * W < width) {
            load_many<W>(row + base + k * 32 * W, x[k]);
        } else {
#pragma unroll
            for (int i = 0; i < W; i++) x[k][i] = 0;
        }
    }
}

// W elements as they are stored, to be unpacked where they are used: in bf16 half the registers. W as for load_many, at
// most what 16 bytes hold.
template <int W> struct Packed {
    static constexpr int WORDS = W * (int)sizeof(elem) / 4;
    static_assert(WORDS == 2 || WORDS == 4, "one access");
    u32 words[WORDS];
    __device__ __forceinline__ void read(const elem *p) {
        if constexpr (WORDS == 4) {
            uint4 v = *reinterpret_cast<const uint4 *>(p);
            words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
        } else {
            uint2 v = *reinterpret_cast<const uint2 *>(p);
            words[0] = v.x, words[1] = v.y;
        }
    }
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < WORDS; i++) words[i] = 0;
    }
    __device__ __forceinline__ void unpack(float (&to)[W]) const {
#pragma unroll
        for (int i = 0; i < WORDS; i++) {
            if constexpr (WORDS == W) {
                to[i] = __uint_as_float(words[i]);
            } else {
                to[2 * i] = __uint_as_float(words[i] << 16);
                to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
            }
        }
    }
};

template <> struct Packed<1> {
    elem x;
    __device__ __forceinline__ void read(const elem *p) { x = p[0]; }
    __device__ __forceinline__ void clear() { x = store(0.0f); }
    __device__ __forceinline__ void unpack(float (&to)[1]) const { to[0] = load(x); }
};

// As load_batch, packed.
template <int BATCH, int W>
DEVICE void read_batch(const elem *row, int base, int width, Packed<W> (&x)[BATCH]) {
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
        if (base + k * 32 * W < width) x[k].read(row + base + k * 32 * W);
        else x[k].clear();
    }
}

// ---- Reductions: the order of the operations depends on the block's size alone ----

struct Sum {
    static __device__ __forceinline__ float empty() { return 0.0f; }
    static __device__ __forceinline__ float join(float a, float b) { return a + b; }
};

// Ignores NaN where there is a number, as fmaxf does.
struct Max {
    static __device__ __forceinline__ float empty() { return -__int_as_float(0x7f800000); }
    static __device__ __forceinline__ float join(float a, float b) { return fmaxf(a, b); }
};

// Over the lanes of each group of WIDTH (a power of two up to 32); every lane gets the result. All 32 lanes must call.
template <typename Op, int WIDTH = 32> DEVICE float warp_reduce(float x) {
#pragma unroll
    for (int step = WIDTH / 2; step > 0; step /= 2) x = Op::join(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

// Over the block, whose size must be a multiple of 32; every thread gets the result. All threads must call.
template <typename Op> DEVICE float block_reduce(float x) {
    __shared__ float partial[32];
    int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    int warps = (blockDim.x * blockDim.y * blockDim.z) >> 5;
    x = warp_reduce<Op>(x);
    __syncthreads(); // an earlier call may still be reading
    if ((thread & 31) == 0) partial[thread >> 5] = x;
    __syncthreads();
    int lane = thread & 31;
    return warp_reduce<Op>(lane < warps ? partial[lane] : Op::empty());
}

DEVICE float warp_sum(float x) { return warp_reduce<Sum>(x); }
DEVICE float warp_max(float x) { return warp_reduce<Max>(x); }
DEVICE float block_sum(float x) { return block_reduce<Sum>(x); }
DEVICE float block_max(float x) { return block_reduce<Max>(x); }

// The same sum in double.
DEVICE double block_sum_double(double x) {
    __shared__ double partial[32];
    int warps = blockDim.x >> 5, lane = threadIdx.x & 31;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    __syncthreads();
    if (lane == 0) partial[threadIdx.x >> 5] = x;
    __syncthreads();
    x = lane < warps ? partial[lane] : 0.0;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// ---- Activations and their derivatives ----

// 2^x, to two units in the last place; 0 where that is no normal number.
DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The hardware's exponential and reciprocal: off by less than 2e-7, in relation to the result by 2e-7 (1 + |x|) at
// most.
DEVICE float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }
DEVICE float silu(float x) { return x * sigmoid(x); }
DEVICE float silu_grad(float x) {
    float s = sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}
// log(1 + e^x); beyond 20 it is x to the last bit of a float. Its derivative is the sigmoid.
DEVICE float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

// ---- Integers ----

template <typename T> static __host__ __device__ constexpr T ceil_div(T a, T b) { return (a + b - 1) / b; }
