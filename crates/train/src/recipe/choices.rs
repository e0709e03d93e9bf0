//! The values of a recipe that are one of several words.

use serde::{Deserialize, Serialize};

/// How many documents are read: a number, or `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ExamplesForm", into = "ExamplesForm")]
pub enum Examples {
    /// At most so many, in order.
    AtMost(usize),
    /// All there are; the synthetic language never ends.
    All,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(untagged)]
enum ExamplesForm {
    Number(usize),
    Word(ExamplesWord),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ExamplesWord {
    All,
}

/// In what a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Mixed on CUDA, f32 on the CPU.
    Auto,
    /// Everything in f32.
    F32,
    /// bf16 activations and products over f32 weights of record.
    Mixed,
    /// As mixed, with the weights of record in bf16, and on CUDA the gradients of matrices.
    Bf16,
}

/// How updates are rounded into weights of record in bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rounding {
    /// To the nearest value.
    Nearest,
    /// Up or down by chance, right on average.
    Stochastic,
}

/// In what an optimizer keeps momenta and moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateType {
    /// f32.
    F32,
    /// bf16, rounded stochastically.
    Bf16,
}

impl From<StateType> for optim::StateType {
    fn from(state: StateType) -> Self {
        match state {
            StateType::F32 => optim::StateType::F32,
            StateType::Bf16 => optim::StateType::Bf16,
        }
    }
}

/// Which kernels a GPU runs where there are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernels {
    /// The fast ones.
    Fast,
    /// The plain ones, to which the fast ones are held.
    Plain,
}

impl From<Kernels> for tensor::tape::Kernels {
    fn from(kernels: Kernels) -> Self {
        match kernels {
            Kernels::Fast => tensor::tape::Kernels::Fast,
            Kernels::Plain => tensor::tape::Kernels::Plain,
        }
    }
}

/// Whether weights and state are copied on a GPU before they are saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Staging {
    /// Where the estimate leaves room.
    Auto,
    /// Copied on the device, brought to the host while training goes on.
    On,
    /// Brought to the host at once.
    Off,
}

/// What the backward pass computes again instead of keeping it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Only what is as cheap to make again as to read.
    Off,
    /// Whole layers, from their inputs.
    Layers,
}

/// What is measured beside the losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Diagnostics {
    /// The norm of the gradient only.
    Off,
    /// What a step costs next to nothing.
    Cheap,
    /// Spectra as well, every so many steps.
    Full,
}

impl From<tensor::Precision> for Precision {
    fn from(precision: tensor::Precision) -> Self {
        match precision {
            tensor::Precision::F32 => Precision::F32,
            tensor::Precision::Mixed => Precision::Mixed,
            tensor::Precision::Bf16 => Precision::Bf16,
        }
    }
}

impl Precision {
    /// What it means on a device.
    pub fn on(self, cuda: bool) -> tensor::Precision {
        match self {
            Precision::Mixed => tensor::Precision::Mixed,
            Precision::Bf16 => tensor::Precision::Bf16,
            Precision::Auto if cuda => tensor::Precision::Mixed,
            Precision::F32 | Precision::Auto => tensor::Precision::F32,
        }
    }
}

impl Examples {
    /// The bound, if there is one.
    pub fn limit(self) -> Option<usize> {
        match self {
            Examples::AtMost(n) => Some(n),
            Examples::All => None,
        }
    }
}

impl From<ExamplesForm> for Examples {
    fn from(form: ExamplesForm) -> Self {
        match form {
            ExamplesForm::Number(n) => Examples::AtMost(n),
            ExamplesForm::Word(ExamplesWord::All) => Examples::All,
        }
    }
}

impl From<Examples> for ExamplesForm {
    fn from(examples: Examples) -> Self {
        match examples {
            Examples::AtMost(n) => ExamplesForm::Number(n),
            Examples::All => ExamplesForm::Word(ExamplesWord::All),
        }
    }
}
