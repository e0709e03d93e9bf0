//! The optimizers, one file each.

pub(crate) mod adamw;
pub(crate) mod block_muon;
pub(crate) mod block_periodic;
pub(crate) mod isotropic;
pub(crate) mod moonlight;
pub(crate) mod muon;
pub(crate) mod muon_nesterov;
pub(crate) mod nolah;
pub(crate) mod normuon;
pub(crate) mod orthonoise;
