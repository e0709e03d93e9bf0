//! Cases of operations without a backward pass.

use crate::check::case::{Case, Compared, Input, Plain};
use crate::check::reference;
use crate::linalg::{self, Factor, Finish};
use crate::ops::elementwise;
use crate::random::{self, Stream};
use crate::{DType, Device, Precision, Result, Tensor};

/// `c = (c or 0) + alpha op(a) op(b)`: `sizes` are batch, m, k and n; `c` once in f32, once in the compute type.
pub fn matmul(sizes: [usize; 4], (ta, tb): (bool, bool), accumulate: bool) -> Case {
    const ALPHA: f32 = 0.75;
    let [batch, m, k, n] = sizes;
    let order = |transposed, rows, cols| {
        if transposed { [batch, cols, rows] } else { [batch, rows, cols] }
    };
    let inputs = vec![
        Input::value("a", &order(ta, m, k)),
        Input::matrix("b", &order(tb, k, n)).about(0.0, 1.0 / (k as f32).sqrt()),
        Input::value("c", &[batch, m, n]),
    ];
    let mark = |transposed| if transposed { "^T" } else { "" };
    let told = if accumulate { " added" } else { "" };
    let run = move |device: &Device, _: Precision, given: &[Tensor]| {
        let [a, b, c] = given else { unreachable!("three inputs") };
        let factor = |t, transposed| {
            let factor = Factor::from(t);
            if transposed { factor.t() } else { factor }
        };
        let product = |dtype: DType| -> Result<Tensor> {
            let c = if accumulate { c.cast(dtype)? } else { device.empty(c.shape(), dtype)? };
            linalg::matmul(&c, accumulate, ALPHA, factor(a, ta), factor(b, tb))?;
            Ok(c)
        };
        Ok(vec![product(DType::F32)?, product(c.dtype())?])
    };
    Case::plain(
        "matmul",
        format!("batch {batch} M{m} K{k} N{n} a{} b{}{told}", mark(ta), mark(tb)),
        inputs,
        Plain {
            run: Box::new(run),
            compared: named(&["c in f32", "c"]),
            reference: Box::new(move |x| {
                let mut c = if accumulate { x[2].clone() } else { vec![0.0; x[2].len()] };
                reference::matmul(&mut c, f64::from(ALPHA), (&x[0], ta), (&x[1], tb), sizes);
                vec![c.clone(), c]
            }),
        },
    )
}

/// `R = alpha X X^T`, or `X^T X` where `tall`, `P = by^2 (R R + beta R + I / 2)`, `Q = P R + beta P` and
/// `S = Q P + beta Q`, this also from such R, P and Q as may lack what lies above the diagonal. Sizes are batch, side of R
/// and length of the sums.
pub fn symmetric([batch, rank, depth]: [usize; 3], tall: bool) -> Case {
    const BETA: f32 = -0.5;
    let alpha = 1.0 / depth as f32;
    let shape = if tall { [batch, depth, rank] } else { [batch, rank, depth] };
    let run = move |device: &Device, _: Precision, given: &[Tensor]| {
        let [x, by] = given else { unreachable!("two inputs") };
        let factor = Factor::from(x);
        let (left, right) = if tall { (factor.t(), factor) } else { (factor, factor.t()) };
        // What stays unwritten is what no product may read.
        let nothing = device.from_slice(&vec![f32::NAN; batch * rank * rank], &[batch, rank, rank])?;
        let chain = |half| -> Result<[Tensor; 4]> {
            let room = || nothing.cast(x.dtype());
            let [r, p, q, s] = [room()?, room()?, room()?, room()?];
            let plain = Finish { half, ..Finish::default() };
            let finish = Finish { diagonal: 0.5, by: Some((by, 2)), half };
            linalg::symmetric_finished(&r, alpha, left, right, None, plain)?;
            linalg::symmetric_finished(&p, 1.0, &r, &r, Some((BETA, &r)), finish)?;
            linalg::symmetric_finished(&q, 1.0, &p, &r, Some((BETA, &p)), plain)?;
            linalg::symmetric(&s, 1.0, &q, &p, Some((BETA, &q)))?;
            Ok([r, p, q, s])
        };
        let [.., from_halves] = chain(true)?;
        let [r, p, q, s] = chain(false)?;
        Ok(vec![r, p, q, s, from_halves])
    };
    let reference = move |x: &[Vec<f64>]| {
        let all = batch * rank * rank;
        let product = |a: &[f64], b: &[f64], plus: &[f64]| {
            let mut c: Vec<f64> = plus.iter().map(|x| f64::from(BETA) * x).collect();
            reference::matmul(&mut c, 1.0, (a, false), (b, false), [batch, rank, rank, rank]);
            c
        };
        let mut r = vec![0.0; all];
        reference::matmul(
            &mut r,
            f64::from(alpha),
            (&x[0], tall),
            (&x[0], !tall),
            [batch, rank, depth, rank],
        );
        let mut p = product(&r, &r, &r);
        for (i, p) in p.iter_mut().enumerate() {
            let (member, at) = (i / (rank * rank), i % (rank * rank));
            *p = (*p + if at.is_multiple_of(rank + 1) { 0.5 } else { 0.0 }) * x[1][member].powi(2);
        }
        let q = product(&p, &r, &p);
        let s = product(&q, &p, &q);
        vec![r, p, q, s.clone(), s]
    };
    let compared = named(&["r", "p", "q", "s", "s from halves"]);
    Case::plain(
        "symmetric",
        format!("batch {batch} R{rank} K{depth}{}", if tall { " tall" } else { "" }),
        vec![Input::value("x", &shape), Input::vector("by", &[batch], 1.0, 0.3)],
        Plain { run: Box::new(run), compared, reference: Box::new(reference) },
    )
}

/// The thin singular value decomposition of a bank. Vectors have no sign of their own, so the values, the product of the
/// parts and the products of the vectors with themselves are compared.
pub fn svd(batch: usize, m: usize, n: usize) -> Case {
    let r = m.min(n);
    let compared = move |parts: &[Vec<f32>]| {
        let [u, s, vt] = [0, 1, 2].map(|i| parts[i].iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
        let scaled: Vec<f64> = u.iter().enumerate().map(|(i, x)| x * s[i / (m * r) * r + i % r]).collect();
        let product = |a: &[f64], ta, b: &[f64], tb, sizes: [usize; 4]| {
            let mut c = vec![0.0; batch * sizes[1] * sizes[3]];
            reference::matmul(&mut c, 1.0, (a, ta), (b, tb), sizes);
            c
        };
        vec![
            ("u s v^T", product(&scaled, false, &vt, false, [batch, m, r, n])),
            ("u^T u", product(&u, true, &u, false, [batch, r, m, r])),
            ("v^T v", product(&vt, false, &vt, true, [batch, r, n, r])),
            ("s", s),
        ]
    };
    Case::plain(
        "svd",
        format!("batch {batch} M{m} N{n}"),
        vec![Input::vector("a", &[batch, m, n], 0.0, 1.0)],
        Plain {
            run: Box::new(|_, _, given| {
                let parts = linalg::svd(&given[0])?;
                Ok(vec![parts.u, parts.s, parts.vt])
            }),
            compared: Box::new(compared),
            reference: Box::new(move |x| {
                let one = |i: usize| f64::from(u8::from(i % (r * r) / r == i % r));
                let ones: Vec<f64> = (0..batch * r * r).map(one).collect();
                let s = x[0].chunks(m * n).flat_map(|a| reference::singular_values(a, m, n)).collect();
                vec![x[0].clone(), ones.clone(), ones, s]
            }),
        },
    )
}

/// The orthonormal basis of a bank's columns, unique by its sign, and `Q^T Q`.
pub fn qr(batch: usize, m: usize, n: usize) -> Case {
    let compared = move |outputs: &[Vec<f32>]| {
        let q: Vec<f64> = outputs[0].iter().map(|&x| f64::from(x)).collect();
        let mut gram = vec![0.0; batch * n * n];
        reference::matmul(&mut gram, 1.0, (&q, true), (&q, false), [batch, n, m, n]);
        vec![("q", q), ("q^T q", gram)]
    };
    Case::plain(
        "qr",
        format!("batch {batch} M{m} N{n}"),
        vec![Input::vector("a", &[batch, m, n], 0.0, 1.0)],
        Plain {
            run: Box::new(|_, _, given| Ok(vec![linalg::qr(&given[0])?])),
            compared: Box::new(compared),
            reference: Box::new(move |x| {
                let q = x[0].chunks(m * n).flat_map(|a| reference::orthonormal_columns(a, m, n)).collect();
                let one = |i: usize| f64::from(u8::from(i % (n * n) / n == i % n));
                vec![q, (0..batch * n * n).map(one).collect()]
            }),
        },
    )
}

/// The transpose of every member of a bank: exactly.
pub fn transpose(batch: usize, m: usize, n: usize) -> Case {
    let case = Case::plain(
        "transpose",
        format!("batch {batch} M{m} N{n}"),
        vec![Input::vector("x", &[batch, m, n], 0.0, 1.0)],
        Plain {
            run: Box::new(|_, _, given| Ok(vec![linalg::transpose(&given[0])?])),
            compared: named(&["y"]),
            reference: Box::new(move |x| {
                let place = |at: usize| at / (m * n) * m * n + at % m * n + at / m % n;
                vec![(0..x[0].len()).map(|at| x[0][place(at)]).collect()]
            }),
        },
    );
    Case { exact: true, ..case }
}

/// A bank of normal numbers, a stream for each member: the same on every device but for the last bit.
pub fn normal(batch: usize, count: usize) -> Case {
    let streams: Vec<Stream> = (0..batch as u64).map(|i| Stream::new(7, i).child(count as u64)).collect();
    let same = streams.clone();
    Case::plain(
        "normal",
        format!("batch {batch} n {count}"),
        vec![],
        Plain {
            run: Box::new(move |device, _, _| Ok(vec![random::normal(device, &streams, &[count], 0.5)?])),
            compared: named(&["x"]),
            reference: Box::new(move |_| {
                vec![same.iter().flat_map(|stream| reference::normal(*stream, count, 0.5)).collect()]
            }),
        },
    )
}

/// f32 to the compute type and back: exactly to nearest, ties to even.
pub fn cast(count: usize) -> Case {
    // Ties of bf16, to be rounded down and up; zeros; the largest bf16; a subnormal number.
    const SPECIAL: [f32; 6] = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 0.0, -0.0, 3.389_531_4e38, 1e-40];
    let run = |device: &Device, precision: Precision, given: &[Tensor]| {
        let there_and_back = |x: &Tensor| match (device, precision) {
            (Device::Cpu, Precision::Mixed | Precision::Bf16) => {
                let rounded: Vec<f32> = x.read().iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
                device.from_slice(&rounded, x.shape())
            }
            _ => x.cast(precision.compute())?.cast(DType::F32),
        };
        let special = device.from_slice(&SPECIAL, &[SPECIAL.len()])?;
        Ok(vec![there_and_back(&given[0])?, there_and_back(&special)?])
    };
    let case = Case::plain(
        "cast",
        format!("n {count}"),
        vec![Input::vector("x", &[count], 0.0, 1.0)],
        Plain {
            run: Box::new(run),
            compared: named(&["y", "y of special values"]),
            reference: Box::new(|x| vec![x[0].clone(), SPECIAL.map(f64::from).to_vec()]),
        },
    );
    Case { exact: true, ..case }
}

/// `to += from` in the compute type.
pub fn add_assign(count: usize) -> Case {
    let run = |_: &Device, _: Precision, given: &[Tensor]| {
        let to = given[0].cast(given[0].dtype())?;
        elementwise::add_assign(&to, &given[1])?;
        Ok(vec![to])
    };
    Case::plain(
        "add_assign",
        format!("n {count}"),
        vec![Input::value("to", &[count]), Input::value("from", &[count])],
        Plain {
            run: Box::new(run),
            compared: named(&["to"]),
            reference: Box::new(|x| vec![reference::residual(&x[0], &x[1], 1.0)]),
        },
    )
}

/// Compares outputs as they are.
fn named(names: &'static [&'static str]) -> Box<Compared> {
    let widened = |x: &Vec<f32>| x.iter().map(|&x| f64::from(x)).collect();
    Box::new(move |outputs| names.iter().copied().zip(outputs.iter().map(widened)).collect())
}
