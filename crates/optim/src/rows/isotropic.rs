//! The control of `OrthoNoise`: Gaussian noise `R` instead of the semi-orthogonal `Q`, scaled to the same norm,
//! `norm_F(R) = norm_F(Q) = sqrt(min(m, n))`, and no cubic steps.

use crate::noise::Kind;
use crate::pipeline::{NOISE_KEYS, Noise, Plan};
use crate::{Build, LrHint, Row};

/// The row of `isotropic`.
pub(crate) const ROW: Row = Row {
    name: "isotropic",
    about: "the control of orthonoise: Gaussian noise of the same norm",
    own: &NOISE_KEYS,
    lr: LrHint::Spectral,
    state_bytes: 4,
    build: Build::Matrices(|settings| {
        Ok(Plan { noise: Some(Noise::new(settings, Kind::Gaussian, 0)), ..Plan::shared(settings)? })
    }),
};
