//! Both ways to the polar factor: orthogonality, agreement, and the cases at the edge.

use optim::ortho::{self, Method};
use tensor::random::Stream;
use tensor::{Device, Tensor};

fn gaussian(shape: [usize; 3]) -> Tensor {
    let mut values = vec![0.0; shape.iter().product()];
    Stream::new(3, shape[1] as u64).fill_normal(&mut values, 1.0);
    Device::Cpu.from_slice(&values, &shape).unwrap()
}

#[test]
fn polar_factors_are_orthogonal_and_alike() {
    for shape in [[2, 40, 96], [3, 96, 40], [1, 48, 48], [2, 1, 7], [1, 7, 1]] {
        let x = gaussian(shape);
        let [polar, svd] = [Method::Polar, Method::Svd].map(|method| method.orthogonalize(&x).unwrap());
        for (name, result) in [("polar", &polar), ("svd", &svd)] {
            let error = ortho::error(result).unwrap();
            assert!(error <= 1e-5, "{name} of {shape:?}: {error:.1e}");
        }
        let (a, b) = (polar.read(), svd.read());
        let off = a.iter().zip(b.iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= 1e-4, "{shape:?}: polar and svd differ by {off:.1e}");
    }
}

#[test]
fn ill_conditioned_matrices_become_orthogonal_too() {
    // Rows of an orthogonal matrix scaled to a geometric spectrum, then mixed by another one.
    let (m, n) = (48, 80);
    let q = Method::Svd.orthogonalize(&gaussian([1, m, n])).unwrap();
    let p = Method::Svd.orthogonalize(&gaussian([1, m, m])).unwrap();
    for condition in [1e2f32, 1e4, 1e6] {
        let mut scaled = q.to_vec().unwrap();
        for (i, row) in scaled.chunks_exact_mut(n).enumerate() {
            let s = condition.powf(-(i as f32) / (m - 1) as f32);
            row.iter_mut().for_each(|x| *x *= s);
        }
        let scaled = Device::Cpu.from_slice(&scaled, &[1, m, n]).unwrap();
        let x = Device::Cpu.empty(&[1, m, n], tensor::DType::F32).unwrap();
        tensor::linalg::matmul(&x, false, 1.0, &p, &scaled).unwrap();
        for method in [Method::Polar, Method::Svd] {
            let error = ortho::error(&method.orthogonalize(&x).unwrap()).unwrap();
            assert!(error <= 1e-5, "{method:?} at condition {condition:e}: {error:.1e}");
        }
    }
}

#[test]
fn zeros_give_zeros_and_scale_does_not_matter() {
    let zeros = Device::Cpu.zeros(&[2, 4, 6], tensor::DType::F32).unwrap();
    for method in [Method::Polar, Method::Svd] {
        assert!(method.orthogonalize(&zeros).unwrap().read().iter().all(|&x| x == 0.0), "{method:?}");
    }
    let x = gaussian([1, 8, 12]);
    let reference = Method::Polar.orthogonalize(&x).unwrap().to_vec().unwrap();
    for scale in [1e-30, 1e30] {
        let scaled: Vec<f32> = x.read().iter().map(|x| x * scale).collect();
        let scaled = Device::Cpu.from_slice(&scaled, &[1, 8, 12]).unwrap();
        let result = Method::Polar.orthogonalize(&scaled).unwrap().to_vec().unwrap();
        let off = result.iter().zip(&reference).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-5, "scale {scale:e}: {off:.1e}");
    }
}

#[test]
fn svd_refuses_what_is_not_finite() {
    let x = gaussian([2, 4, 6]);
    x.write()[30] = f32::NAN;
    let error = Method::Svd.orthogonalize(&x).unwrap_err().to_string();
    assert!(error.contains("not finite"), "{error}");
}
