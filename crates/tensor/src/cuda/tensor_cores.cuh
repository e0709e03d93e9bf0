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
