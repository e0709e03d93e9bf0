// Products of four warps at once, of an H100 alone (wgmma): sums [64, 8 N] in registers, factors in shared memory, the left
// one in registers too. Warp w of the four has rows 16 w on; its C and A of each 16 x 16 are as in tensor_cores.cuh.
#pragma once
#include "tensor_cores.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Where a factor lies: rows of 128 bytes (64 elements), whose 16-byte pieces are turned by the row's number in 8, from
// a multiple of 1024 bytes on; 32 bytes (2048 of a turned factor, whose rows are one such column) to the next 16 of the
// sum. Of a turned factor that is wider than 64, the next 64 lie `apart` bytes on.
DEVICE u64 factor_at(u32 address, u32 apart = 0) {
    return (u64)((address & 0x3ffff) >> 4) | (u64)(apart >> 4) << 16 | (u64)(1024 >> 4) << 32 | 1ull << 62;
}

#define EIGHT(x, n)                                                                                      \
    "+f"(x[n][0]), "+f"(x[n][1]), "+f"(x[n][2]), "+f"(x[n][3]), "+f"(x[n + 1][0]), "+f"(x[n + 1][1]), \
        "+f"(x[n + 1][2]), "+f"(x[n + 1][3])
#define SUMS(x, n) EIGHT(x, n), EIGHT(x, n + 2), EIGHT(x, n + 4), EIGHT(x, n + 6)
#define NAMES_0 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_1 \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define NAMES_2 \
    ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define NAMES_3 \
    ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

// SUM_NAMES names the operands that are sums; A, B, KEEP and the two TURNs are the names of those that follow.
#define PRODUCT(N, SUM_NAMES, A, B, KEEP, A_TURN, B_TURN, ...)                                                \
    asm volatile("{\n"                                                                                        \
                 ".reg .pred keep;\n"                                                                         \
                 "setp.ne.b32 keep, " KEEP ", 0;\n"                                                           \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" SUM_NAMES "}, " A ", " B ", "   \
                 "keep, 1, 1, " A_TURN ", " B_TURN ";\n"                                                      \
                 "}"                                                                                          \
                 : __VA_ARGS__                                                                                \
                 : "l"(a), "l"(b), "r"(keep), "n"(A_TURNED), "n"(B_TURNED))

// C [64, 8 N] = (keep ? C : 0) + A [64, 16] B [16, 8 N], C being the first of the sums; both in shared memory with the sum
// along their rows, or where one is turned along its columns.
template <int N, int A_TURNED = 0, int B_TURNED = 0, int M> DEVICE void multiply(float (&c)[M][4], u64 a, u64 b, int keep) {
    static_assert(N <= M && N % 8 == 0 && N <= 32, "64, 128, 192 or 256 columns");
    if constexpr (N == 8) PRODUCT(64, NAMES_0, "%32", "%33", "%34", "%35", "%36", SUMS(c, 0));
    if constexpr (N == 16) PRODUCT(128, NAMES_0 NAMES_1, "%64", "%65", "%66", "%67", "%68", SUMS(c, 0), SUMS(c, 8));
    if constexpr (N == 24)
        PRODUCT(192, NAMES_0 NAMES_1 NAMES_2, "%96", "%97", "%98", "%99", "%100", SUMS(c, 0), SUMS(c, 8), SUMS(c, 16));
    if constexpr (N == 32)
        PRODUCT(256, NAMES_0 NAMES_1 NAMES_2 NAMES_3, "%128", "%129", "%130", "%131", "%132", SUMS(c, 0), SUMS(c, 8),
                SUMS(c, 16), SUMS(c, 24));
}

// C [64, 128] = (keep ? C : 0) + A [64, 16] B [16, 128], A in registers, B in shared memory as above.
template <int B_TURNED> DEVICE void multiply_kept(float (&c)[16][4], const u32 (&a)[4], u64 b, int keep) {
    asm volatile("{\n"
                 ".reg .pred keep;\n"
                 "setp.ne.b32 keep, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NAMES_0 NAMES_1 "}, {%64, %65, %66, %67}, "
                 "%68, keep, 1, 1, %70;\n"
                 "}"
                 : SUMS(c, 0), SUMS(c, 8)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep), "n"(B_TURNED));
}

// C [64, 64] += A [64, 16] B [16, 64], both in shared memory with the sum along their columns.
DEVICE void multiply_turned(float (&c)[8][4], u64 a, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "%32, %33, 1, 1, 1, 1, 1;"
                 : EIGHT(c, 0), EIGHT(c, 2), EIGHT(c, 4), EIGHT(c, 6)
                 : "l"(a), "l"(b));
}

// C [64, 64] += A [64, 16] B [16, 64], A in registers, B in shared memory with the sum along its columns.
DEVICE void multiply_turned(float (&c)[8][4], const u32 (&a)[4], u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 : EIGHT(c, 0), EIGHT(c, 2), EIGHT(c, 4), EIGHT(c, 6)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#undef EIGHT
#undef SUMS
#undef NAMES_0
#undef NAMES_1
#undef NAMES_2
#undef NAMES_3
#undef PRODUCT

// Before products that read or add to registers written since, and after those that began.
DEVICE void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void products_end() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until at most PENDING groups of products are under way.
template <int PENDING> DEVICE void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
// Nothing that uses these is moved across.
template <int N> DEVICE void settle(float (&c)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) asm volatile("" : "+f"(c[n][i])::"memory");
}
template <int N> DEVICE void settle(u32 (&a)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) asm volatile("" : "+r"(a[n][i])::"memory");
}

// C [64, 128], rounded, as left factors of products along its columns, 16 of them each.
DEVICE void as_left(u32 (&a)[8][4], const float (&c)[16][4]) {
#pragma unroll
    for (int k = 0; k < 8; k++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[k][i] = round_bf16x2(c[2 * k + i / 2][i % 2 * 2], c[2 * k + i / 2][i % 2 * 2 + 1]);
}

// Four matrices [8, 8], or their transposes, to rows of 16 bytes; a lane gives the address of a row of one.
template <bool TRANSPOSED> DEVICE void store_matrices(u32 address, const u32 *x) {
    if constexpr (TRANSPOSED)
        asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(x[0]),
                     "r"(x[1]), "r"(x[2]), "r"(x[3])
                     : "memory");
    else
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(x[0]),
                     "r"(x[1]), "r"(x[2]), "r"(x[3])
                     : "memory");
}

// What this thread wrote to shared memory is there for products.
DEVICE void show_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
#endif
