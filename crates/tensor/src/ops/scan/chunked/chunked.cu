#line 2 "chunked.cu"
// The chunked scan: the kernel of its gradients; the others stand with their parts.

extern "C" __global__ void __launch_bounds__(BLOCK, 1)
    chunk_gradient(bf16 *dxbc, bf16 *draw, float *parts, float *sums, const bf16 *states, const bf16 *xbc,
                   const bf16 *dy, const float *steps, const float *a_log, const float *d, int batch, int len,
                   int heads, int slices, int groups, int members, i64 raw_stride) {
    extern __shared__ __align__(128) u8 shared[];
    Sizes sizes(len, heads, slices, groups);
    int sequence = blockIdx.x / sizes.chunks, chunk = blockIdx.x % sizes.chunks, first = blockIdx.y * members;
    int group = sizes.group(first), shares = gridDim.y / groups, team = team_of_block();
    i64 row0 = (i64)sequence * len + chunk * CHUNK;
    const bf16 *rows = xbc + row0 * sizes.stride();
    Job job{sizes, states, rows, dy + row0 * sizes.inner(), steps, d, dxbc, shared, row0, batch, sequence, chunk,
            sizes.live(chunk), first, members, group, chunk > 0, chunk + 1 < sizes.chunks};
    copy_tile<STATE, BLOCK>(job.b_tile(), rows + sizes.b(group), sizes.stride(), job.live, threadIdx.x);
    copy_tile<STATE, BLOCK>(job.c_tile(), rows + sizes.c(group), sizes.stride(), job.live, threadIdx.x);
    copy_commit();
    job.fetch(0);
    copy_wait<1>();
    barrier();
    Sums to{parts, (i64)batch * len, (int)blockIdx.y % shares};
    if (team < 2) {
        make_bc(job, team);
        gradient_of_x(job, team);
    } else if (team == 2) {
        gradient_of_b(job, Raw{draw, raw_stride, a_log, sums}, to);
    } else {
        gradient_of_c(job, to);
    }
}
