//! Copies of a moment, and the lane to the host.

use super::super::{Lane, Staged};
use super::gpu;
use crate::{DType, Device, Tensor};

#[test]
fn a_staged_copy_is_that_of_its_moment_whatever_comes_after() {
    let Some(gpu) = gpu("a_staged_copy_is_that_of_its_moment_whatever_comes_after") else { return };
    let device = Device::Cuda(gpu.clone());
    let values = |n: usize, from: f32| (0..n).map(|i| from + (i % 251) as f32).collect::<Vec<f32>>();
    let tensor = |shape: &[usize], dtype| -> Tensor { device.zeros(shape, dtype).unwrap() };
    // More than the slots of a lane hold, neighbours, an odd number of bf16, nothing.
    let large = tensor(&[7_000_003], DType::F32);
    let bank = tensor(&[3, 5, 7], DType::BF16);
    let tensors = vec![bank.slot(2), large.clone(), bank.slot(0), tensor(&[0], DType::F32), bank.slot(1)];
    let fill = |from: f32| {
        large.copy_from_slice(&values(7_000_003, from)).unwrap();
        for i in 0..3 {
            bank.slot(i).copy_from_slice(&values(35, i as f32)).unwrap();
        }
    };
    fill(0.0);
    let mut staged = Staged::new(&gpu, tensors).unwrap();
    for from in [1.0, 2.0] {
        fill(from);
        staged.take().unwrap();
        let expected = [values(35, 2.0), values(7_000_003, from), values(35, 0.0), vec![], values(35, 1.0)];
        let reader = std::thread::spawn(move || {
            let read: Vec<_> = (0..5).map(|i| staged.to_vec(i).unwrap()).collect();
            (read, staged)
        });
        fill(-1.0);
        let (read, back) = reader.join().unwrap();
        staged = back;
        assert!(read == expected, "{from}");
    }
    let mut lane = Lane::new(&gpu).unwrap();
    gpu.synchronize().unwrap();
    assert!(lane.to_vec(&large).unwrap() == values(7_000_003, -1.0));
}
