//! Which rule claims a weight, and which parts of it are matrices of their own: by what the weight declares, never by
//! its shape or name.

use tensor::params::{ParamSpec, Params, Role};

use crate::error::{Error, Result};
use crate::tiles::Lattice;

/// Which weights the matrix rule takes; AdamW takes the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The two-dimensional weights inside the layers; embeddings, heads, norms, biases and kernels go to AdamW.
    Hidden,
    /// Every weight with two axes, both longer than 1, embeddings and heads included (the published runs).
    All2d,
}

/// Into which matrices a fused weight is cut before the matrix rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// The whole weight is one matrix (the published runs).
    None,
    /// Each declared segment is one.
    Segments,
    /// Each head of each segment is one.
    Heads,
}

impl Route {
    /// Names in recipes.
    pub const NAMES: &[&str] = &["hidden", "all-2d"];

    pub(crate) fn parse(word: &str) -> Self {
        if word == "all-2d" { Route::All2d } else { Route::Hidden }
    }

    /// Whether a weight belongs to the matrix rule.
    pub fn takes(self, role: Role, shape: &[usize]) -> bool {
        match self {
            Route::Hidden => role == Role::Matrix,
            Route::All2d => shape.len() == 2 && shape.iter().all(|&side| side > 1),
        }
    }
}

impl Split {
    /// Names in recipes.
    pub const NAMES: &[&str] = &["none", "segments", "heads"];

    pub(crate) fn parse(word: &str) -> Self {
        match word {
            "segments" => Split::Segments,
            "heads" => Split::Heads,
            _ => Split::None,
        }
    }

    /// The matrices that a weight consists of, along its out axis.
    pub(crate) fn units(self, spec: &ParamSpec) -> Result<Vec<Lattice>> {
        let [m, n] = *spec.shape else {
            return Err(refuse(spec, "has not two axes, and the matrix rule was to take it"));
        };
        let out = spec.shape[spec.out_axis];
        if self == Split::None || spec.segments.is_empty() {
            return Ok(vec![Lattice::whole(m, n)]);
        }
        let mut start = 0;
        let mut units = Vec::new();
        for segment in &spec.segments {
            let heads = if self == Split::Heads { segment.heads } else { 1 };
            if heads == 0 || !segment.rows.is_multiple_of(heads) {
                return Err(refuse(spec, &format!("has {heads} heads in {} rows", segment.rows)));
            }
            units.push(Lattice::along(spec.out_axis, [m, n], start, segment.rows / heads, heads));
            start += segment.rows;
        }
        if start == out {
            Ok(units)
        } else {
            Err(refuse(spec, "has segments that do not cover its out axis"))
        }
    }
}

/// Makes sure that the banks hold every weight exactly once.
pub(crate) fn check_claims(params: &Params) -> Result<()> {
    let mut claims = vec![0; params.specs().len()];
    params.banks().iter().flat_map(|bank| &bank.members).for_each(|&i| claims[i] += 1);
    match claims.iter().position(|&count| count != 1) {
        None => Ok(()),
        Some(i) => Err(refuse(&params.specs()[i], &format!("is claimed by {} rules", claims[i]))),
    }
}

fn refuse(spec: &ParamSpec, reason: &str) -> Error {
    Error::Routing { weight: spec.name.clone(), reason: reason.to_string() }
}
