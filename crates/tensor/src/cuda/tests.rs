//! The layer as a whole. What needs a GPU or NVRTC says so loudly and passes where there is none.

use std::io::Write;
use std::sync::Arc;

mod graph;
mod linalg;
mod staged;

use super::*;
use crate::device::DType;
use crate::error::{Error, Result};

const TINY: Source = Source {
    name: "tiny.cu",
    text: r#"
#include "common.cuh"

// y = silu(x) + a, 16 bytes a thread where they are aligned.
extern "C" __global__ void silu_add(const elem *x, elem *y, int n, float a) {
    int at = (blockIdx.x * blockDim.x + threadIdx.x) * VEC;
    if (at + VEC <= n && aligned16(x + at) && aligned16(y + at)) {
        float v[VEC];
        load_vec(x + at, v);
        for (int i = 0; i < VEC; i++) v[i] = silu(v[i]) + a;
        store_vec(y + at, v);
    } else {
        for (int i = at; i < min(at + VEC, n); i++) y[i] = store(silu(load(x[i])) + a);
    }
}

// Sum and maximum of each row, and softplus of its sum.
extern "C" __global__ void rows(const elem *x, float *sums, float *maxima, float *soft, long long n) {
    extern __shared__ float copy[];
    float sum = 0, most = Max::empty();
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
        copy[i] = load(x[blockIdx.x * n + i]);
        sum += copy[i];
        most = fmaxf(most, copy[i]);
    }
    sum = block_sum(sum);
    most = block_max(most);
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = sum;
        maxima[blockIdx.x] = most;
        soft[blockIdx.x] = softplus(sum) + 0 * sigmoid(silu_grad(sum)) + 0 * ceil_div(1, 2);
    }
}
"#,
};

/// Past the test harness, which hides what passing tests print.
fn skipped(test: &str, error: &Error) {
    let line = format!("SKIPPED {test}: {error}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("standard error");
}

/// NVRTC's presence; its absence is told.
fn nvrtc_is_here(test: &str) -> bool {
    let here = libraries::require(libraries::Lib::Nvrtc);
    if let Err(error) = &here {
        skipped(test, error);
    }
    here.is_ok()
}

/// The first GPU; its absence is told.
fn gpu(test: &str) -> Option<Arc<Gpu>> {
    match Gpu::open(0) {
        Ok(gpu) => Some(gpu),
        Err(error @ Error::NoGpu(_)) => {
            skipped(test, &error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn opening_without_a_driver_or_beyond_the_devices_is_an_error_that_helps() {
    let error = Gpu::open(Gpu::count()).unwrap_err();
    assert!(matches!(error, Error::NoGpu(_)), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("--device cpu") || message.contains("CUDA_VISIBLE_DEVICES"), "{message}");
}

#[test]
fn the_common_header_compiles_for_both_types_and_architectures() {
    if !nvrtc_is_here("the_common_header_compiles_for_both_types_and_architectures") {
        return;
    }
    for arch in ["sm_80", "sm_90"] {
        for elem in [DType::F32, DType::BF16] {
            let compiled = compile_verbose(&TINY, elem, arch).unwrap();
            assert_eq!(&compiled.cubin[..4], b"\x7fELF", "{arch} {elem:?}");
            assert!(!compiled.log.contains("warning"), "{}", compiled.log);
            assert!(compiled.log.contains("registers"), "{}", compiled.log);
        }
    }
    let f32 = compile(&TINY, DType::F32, "sm_90").unwrap();
    assert_ne!(f32, compile(&TINY, DType::BF16, "sm_90").unwrap());
}

#[test]
fn a_kernel_that_does_not_compile_shows_file_line_and_reason() {
    if !nvrtc_is_here("a_kernel_that_does_not_compile_shows_file_line_and_reason") {
        return;
    }
    let broken =
        Source { name: "broken.cu", text: "#include \"common.cuh\"\n__global__ void f() { undeclared(); }" };
    let message = compile(&broken, DType::F32, "sm_90").unwrap_err().to_string();
    assert!(message.contains("broken.cu(2)") && message.contains("undeclared"), "{message}");
    let message = compile(&TINY, DType::F32, "sm_1").unwrap_err().to_string();
    assert!(message.contains("tiny.cu") && message.contains("architecture"), "{message}");
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn upload(gpu: &Arc<Gpu>, values: &[f32]) -> Result<DeviceBuf> {
    let buf = gpu.alloc(4 * values.len())?;
    gpu.upload(buf.ptr(), &to_bytes(values))?;
    Ok(buf)
}

fn download(gpu: &Gpu, ptr: u64, count: usize) -> Result<Vec<f32>> {
    let mut bytes = vec![0; 4 * count];
    gpu.download(&mut bytes, ptr)?;
    Ok(bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

/// Numbers in [-1, 1) that look random.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn on_a_gpu_copies_keep_every_byte_and_the_pool_reuses() -> Result<()> {
    let Some(gpu) = gpu("on_a_gpu_copies_keep_every_byte_and_the_pool_reuses") else {
        return Ok(());
    };
    let info = gpu.info()?;
    assert!(info.total_memory > info.free_memory && info.multiprocessors > 0, "{info:?}");
    // Several times round the staging ring, to no whole number of slots.
    let values = noise(10_000_019, 1);
    let (a, timer) = (upload(&gpu, &values)?, Timer::start(&gpu)?);
    let b = gpu.alloc(a.bytes())?;
    gpu.copy(b.ptr(), a.ptr(), a.bytes())?;
    assert!(timer.stop()? > 0.0);
    assert_eq!(download(&gpu, b.ptr(), values.len())?, values);
    gpu.fill_zero(a.ptr(), 4 * 5)?;
    gpu.fill_f32(a.ptr() + 4 * 5, 2.5, 5)?;
    assert_eq!(download(&gpu, a.ptr(), 10)?, [[0.0; 5], [2.5; 5]].concat());
    let before = gpu.pool_stats();
    drop(b);
    let again = gpu.alloc(a.bytes())?;
    assert_eq!(gpu.pool_stats().driver_allocations, before.driver_allocations);
    drop(again);
    let Err(Error::OutOfMemory { wanted, .. }) = gpu.alloc(1 << 50) else { panic!("a pebibyte") };
    assert_eq!(wanted, 1 << 50);
    assert!(upload(&gpu, &values).is_ok(), "goes on after it was full");
    Ok(())
}

#[test]
fn on_a_gpu_kernels_compute_and_wrong_calls_are_refused() -> Result<()> {
    let Some(gpu) = gpu("on_a_gpu_kernels_compute_and_wrong_calls_are_refused") else {
        return Ok(());
    };
    let n = 1003;
    let x = noise(n, 2);
    let (from, to) = (upload(&gpu, &x)?, gpu.alloc(4 * n)?);
    let args = [Arg::Ptr(from.ptr()), Arg::Ptr(to.ptr()), Arg::I32(n as i32), Arg::F32(0.25)];
    gpu.launch(&TINY, DType::F32, "silu_add", [4, 1, 1], [128, 1, 1], 0, &args)?;
    let want: Vec<f32> = x.iter().map(|x| x / (1.0 + (-x).exp()) + 0.25).collect();
    assert!(largest_difference(&download(&gpu, to.ptr(), n)?, &want) < 1e-6);
    let stats = gpu.kernel_stats();
    assert_eq!(stats.compiled + stats.cached, 1, "{stats:?}");

    // 60,000 B of shared memory: more than is given unasked.
    let (rows, cols) = (3, 15_000);
    let x = noise(rows * cols, 3);
    let (from, to) = (upload(&gpu, &x)?, gpu.alloc(4 * 3 * rows)?);
    let at = |i: usize| Arg::Ptr(to.ptr() + (4 * i * rows) as u64);
    let args = [Arg::Ptr(from.ptr()), at(0), at(1), at(2), Arg::I64(cols as i64)];
    gpu.launch(&TINY, DType::F32, "rows", [rows as u32, 1, 1], [256, 1, 1], 4 * cols, &args)?;
    let got = download(&gpu, to.ptr(), 3 * rows)?;
    for (row, x) in x.chunks(cols).enumerate() {
        let sum: f64 = x.iter().map(|&x| f64::from(x)).sum();
        assert!((f64::from(got[row]) - sum).abs() < 1e-3, "{} {sum}", got[row]);
        let most = x.iter().copied().fold(f32::MIN, f32::max);
        assert_eq!(got[rows + row].to_bits(), most.to_bits());
        assert!((f64::from(got[2 * rows + row]) - sum.exp().ln_1p()).abs() < 1e-3);
    }

    let grid = [1, 1, 1];
    for (kernel, block, shared, args, word) in [
        ("rows", [32, 1, 1], 0, &args[..4], "takes 5 arguments"),
        ("rows", [32, 1, 1], 1 << 20, &args[..], "shared memory"),
        ("rows", [4096, 1, 1], 0, &args[..], "block [4096, 1, 1]"),
        ("absent", [32, 1, 1], 0, &args[..], "extern"),
    ] {
        let message =
            gpu.launch(&TINY, DType::F32, kernel, grid, block, shared, args).unwrap_err().to_string();
        assert!(message.contains(word) && message.contains("tiny.cu"), "{message}");
    }
    gpu.launch(&TINY, DType::F32, "rows", [0, 1, 1], [32, 1, 1], 0, &args)?;
    gpu.synchronize()
}
