//! Muon with the exact polar factor: `M <- mu M + G`, `W <- W - rate polar(M)` (Jordan 2024, without Nesterov
//! momentum, shape scale and weight decay; polar(U S V^T) = U V^T).

use tensor::params::Bank;
use tensor::{DType, Tensor};

use crate::error::Result;
use crate::kernels;
use crate::optimizer::Rule;
use crate::ortho::Method;
use crate::routing::Route;
use crate::{AdamWSettings, Default, Key, Row, Settings};

/// The row of `muon`.
pub(crate) const ROW: Row = Row {
    name: "muon",
    about: "momentum, then the polar factor of each matrix; AdamW on the rest",
    keys: &[
        Key { name: "momentum", default: Default::Number(0.95), help: "decay of the momentum buffer" },
        Key {
            name: "ortho",
            default: Default::Choice(Method::NAMES),
            help: "how the polar factor is computed",
        },
    ],
    state_bytes: 4,
    route: Route::Hidden,
    build: Muon::build,
};

struct Muon {
    momentum: f32,
    method: Method,
    buffer: Tensor,
}

impl Muon {
    fn build(settings: &Settings, _: &AdamWSettings, bank: &Bank) -> Result<Box<dyn Rule>> {
        Ok(Box::new(Muon {
            momentum: settings.number("momentum"),
            method: Method::parse(settings.word("ortho")),
            buffer: bank.weight.device().zeros(bank.weight.shape(), DType::F32)?,
        }))
    }
}

impl Rule for Muon {
    fn step(&mut self, bank: &Bank, rate: f32) -> Result<()> {
        kernels::axpby(&self.buffer, self.momentum, &bank.grad, 1.0)?;
        let update = self.method.orthogonalize(&self.buffer)?;
        kernels::axpby(&bank.weight, 1.0, &update, -rate)
    }
}
