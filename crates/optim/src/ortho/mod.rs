//! Orthogonalisers: from every matrix `U S V^T` of a bank `[L, m, n]` its polar factor `U V^T`, exactly or nearly.
//!
//! | method | |
//! |---|---|
//! | [`Method::Svd`] | by the singular value decomposition: the reference |
//! | [`Method::Polar`] | exact to f32 by matrix products alone |
//! | [`Method::NewtonSchulz`] | a fixed number of odd quintics with given coefficients |
//! | [`Method::JordanBf16`] | the same as first published, with more roundings |
//! | [`Method::PolarExpress`] | the same with the coefficients of Polar Express |
//! | [`Method::Gram`] | the same polynomials, iterated on the small Gram matrix |
//!
//! Quality is `norm_F(X X^T - I) / sqrt(min(m, n))` ([`error`]); [`measure`] tells more. Zeros give zeros, and so does
//! a direction without a singular value: of a rank-deficient matrix the exact methods give the partial isometry
//! `U_r V_r^T`, with `Y Y^T Y = Y`. What counts as zero is told by each. The factor does not depend on the scale of
//! the matrix, from 1e-30 to 1e+30.

mod coefficients;
mod fixed;
mod fused;
mod gram;
mod kernels;
pub mod measure;
mod polar;
mod published;
mod svd;

use tensor::{DType, Tensor};

use crate::error::{Error, Result};
pub use coefficients::{Coefficients, SETS};
pub(crate) use fused::SOURCE as FUSED;
pub(crate) use kernels::{SOURCE, Start, bf16, normalized};
pub use measure::error;

/// How a polar factor is computed.
#[derive(Debug, Clone, PartialEq)]
pub enum Method {
    /// By the singular value decomposition. Directions with `s <= 4 eps s_max` (5e-7 in f32) are dropped.
    Svd {
        /// In f64 instead of f32; computed on the host whatever the device.
        double: bool,
    },
    /// Exact to f32 by matrix products alone, for condition numbers up to 1e6; see `polar/mod.rs`.
    Polar,
    /// `X <- a X + (b A + c A^2) X` with `A = X X^T`, for each `[a, b, c]`, from `X / norm_F(X)`.
    NewtonSchulz(Coefficients),
    /// The same in bf16, with every product and every sum rounded, as the published block Muon has it.
    JordanBf16(Coefficients),
    /// As `NewtonSchulz` with the coefficients of Polar Express.
    PolarExpress {
        /// How many.
        steps: usize,
    },
    /// The same polynomials on the Gram matrix.
    Gram(Coefficients),
}

/// A method and the type of its arithmetic.
#[derive(Debug, Clone, PartialEq)]
pub struct Ortho {
    /// How.
    pub method: Method,
    /// In what: F32, or BF16 for the methods with a fixed number of steps; svd and polar are always f32. On the CPU
    /// bf16 means f32 rounded to bf16 after each product.
    pub dtype: DType,
}

impl Method {
    /// Names, the default first.
    pub const NAMES: &[&str] =
        &["polar", "svd", "svd-f64", "newton-schulz", "jordan-bf16", "polar-express", "gram"];
}

impl Ortho {
    /// A method by one of [`Method::NAMES`].
    ///
    /// `coefficients` are those of newton-schulz (empty: `jordan`) and gram (empty: `you`): the name of one of
    /// [`SETS`], or steps `a,b,c` with semicolons between. `steps` counts the steps, the last coefficients being
    /// repeated; 0 is the method's own number. The exact methods work in f32 whatever `dtype` says.
    pub fn parse(method: &str, coefficients: &str, steps: usize, dtype: DType) -> Result<Self> {
        if dtype == DType::F16 {
            return Err(refused("ortho_dtype", "must be f32 or bf16".into()));
        }
        let takes = matches!(method, "newton-schulz" | "jordan-bf16" | "gram");
        if !coefficients.is_empty() && !takes {
            return Err(refused("coefficients", format!("`{coefficients}` are not for {method}")));
        }
        if steps > 0 && matches!(method, "polar" | "svd" | "svd-f64") {
            return Err(refused(
                "ortho_steps",
                format!("is not for {method}, which takes the steps it needs"),
            ));
        }
        let exact = |method| Ok(Ortho { method, dtype: DType::F32 });
        let method = match method {
            "polar" => return exact(Method::Polar),
            "svd" => return exact(Method::Svd { double: false }),
            "svd-f64" => return exact(Method::Svd { double: true }),
            "newton-schulz" => Method::NewtonSchulz(coefficients::parse(coefficients, "jordan", steps)?),
            "jordan-bf16" => Method::JordanBf16(coefficients::parse(coefficients, "jordan", steps)?),
            "polar-express" => Method::PolarExpress { steps: if steps == 0 { 8 } else { steps } },
            "gram" => Method::Gram(coefficients::parse(coefficients, "you", steps)?),
            other => {
                let known = Method::NAMES.join(", ");
                return Err(refused("ortho", format!("`{other}` is unknown; known: {known}")));
            }
        };
        Ok(Ortho { method, dtype })
    }

    /// The factors of a bank `[L, m, n]` of f32, which stays as it is: f32, or bf16 where the arithmetic is bf16 on a
    /// GPU.
    ///
    /// The exact methods refuse what is not finite; the others give back what comes of it (see [`check_finite`]).
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.counted(x)?.0)
    }

    /// As [`Ortho::apply`], and how many matrices an exact method found to be rank-deficient.
    pub(crate) fn counted(&self, x: &Tensor) -> Result<(Tensor, usize)> {
        if x.shape().len() != 3 || x.dtype() != DType::F32 || x.numel() == 0 {
            return Err(shape(format!("{x:?} is no bank of f32 matrices")));
        }
        let factor = match &self.method {
            Method::Svd { double } => return svd::factor(x, *double),
            Method::Polar => return polar::factor(x),
            Method::JordanBf16(steps) => published::factor(x, steps),
            _ => self.iterated(fixed::Bank::new(x, self.dtype)?),
        }?;
        Ok((factor, 0))
    }

    /// Whether it launches the same products each time and waits for nothing: the exact methods go by what they find.
    pub(crate) fn fixed(&self) -> bool {
        !matches!(self.method, Method::Svd { .. } | Method::Polar)
    }

    /// The type of a [`Start`] that it can continue from, if it can.
    pub(crate) fn start_type(&self) -> Option<DType> {
        (self.fixed() && !matches!(self.method, Method::JordanBf16(_))).then_some(self.dtype)
    }

    /// As [`Ortho::apply`], from what another pass has made of a bank.
    pub(crate) fn continued(&self, start: Start) -> Result<Tensor> {
        self.iterated(fixed::Bank::from_start(start, self.dtype)?)
    }

    fn iterated(&self, bank: fixed::Bank) -> Result<Tensor> {
        match &self.method {
            Method::NewtonSchulz(steps) => fixed::iterate(bank, steps),
            Method::PolarExpress { steps } => fixed::iterate(bank, &coefficients::express(*steps)),
            Method::Gram(steps) => gram::iterate(bank, steps),
            other => panic!("{other:?} has no fixed steps of this kind"),
        }
    }
}

/// An error where an entry of a bank is NaN or infinite; names the member.
pub fn check_finite(x: &Tensor) -> Result<()> {
    match kernels::largest(x)?.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(member) => Err(not_finite(member)),
    }
}

fn not_finite(member: usize) -> Error {
    let reason = format!("matrix {member} of the bank has an entry that is not finite");
    tensor::Error::Linalg { what: "orthogonalisation", reason }.into()
}

fn shape(reason: String) -> Error {
    tensor::Error::Shape { op: "orthogonalisation", reason }.into()
}

fn refused(key: &str, reason: String) -> Error {
    Error::Setting { optimizer: "orthogonalisation", key: key.to_owned(), reason }
}
