// Tensor cores from one warp: fragments of 16 x 8 x 16 products of bf16 with f32 sums, and how tiles get into shared
// memory and out of it. What lies where in a tile is its user's.
//
// Fragments of a warp, lane = 4 g + q (PTX, "mma.m16n8k16"): a pair is two neighbours in one word.
//   A [16, 16]: a[0] row g, pair q;  a[1] row g + 8;  a[2] row g, pair q + 4;  a[3] row g + 8, pair q + 4.
//   B [16, 8]:  b[0] column g, pair q along k;  b[1] column g, pair q + 4.
//   C [16, 8]:  c[0], c[1] row g, pair q;  c[2], c[3] row g + 8.  So C of two neighbouring column tiles is an A.
#pragma once
#include "common.cuh"

DEVICE u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

// Four matrices [8, 8], or their transposes; a lane gives the address of a row of one.
template <bool TRANSPOSED> DEVICE void load_matrices(u32 (&x)[4], u32 address) {
    if constexpr (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                     : "r"(address));
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                     : "r"(address));
}

// C += A B.
DEVICE void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 16 or 4 bytes to shared memory in the background, zeros where `live` is false: then nothing is read, wherever `from`
// points.
template <int BYTES = 16> DEVICE void copy_async(u32 to, const void *from, bool live) {
    int bytes = live ? BYTES : 0;
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most PENDING groups of this thread are under way.
template <int PENDING> DEVICE void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }
// Until all copies of this thread are done.
DEVICE void copy_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// ---- Products of four warps at once, of an H100 alone (wgmma): sums [64, 8 N] in registers, factors in shared memory,
// the left one in registers too. Warp w of the four has rows 16 w on; its C and A of each 16 x 16 are as above.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Where a factor lies: rows of 128 bytes (64 elements), whose 16-byte pieces are turned by the row's number in 8, from
// a multiple of 1024 bytes on; 32 bytes (2048 of a turned factor, whose rows are one such column) to the next 16 of the
// sum.
DEVICE u64 factor_at(u32 address) { return (u64)((address & 0x3ffff) >> 4) | (u64)(1024 >> 4) << 32 | 1ull << 62; }

#define EIGHT(x, n)                                                                                      \
    "+f"(x[n][0]), "+f"(x[n][1]), "+f"(x[n][2]), "+f"(x[n][3]), "+f"(x[n + 1][0]), "+f"(x[n + 1][1]), \
        "+f"(x[n + 1][2]), "+f"(x[n + 1][3])

// C [64, 128] = (keep ? C : 0) + A [64, 16] B [16, 128], both in shared memory with the sum along their rows.
DEVICE void multiply(float (&c)[16][4], u64 a, u64 b, int keep) {
    asm volatile("{\n"
                 ".reg .pred keep;\n"
                 "setp.ne.b32 keep, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, keep, 1, 1, 0, 0;\n"
                 "}"
                 : EIGHT(c, 0), EIGHT(c, 2), EIGHT(c, 4), EIGHT(c, 6), EIGHT(c, 8), EIGHT(c, 10), EIGHT(c, 12),
                   EIGHT(c, 14)
                 : "l"(a), "l"(b), "r"(keep));
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

// What this thread wrote to shared memory is there for products.
DEVICE void show_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
#endif
