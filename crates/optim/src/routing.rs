//! Which rule claims a weight: by its declared role, never by its shape or name.

use tensor::params::Role;

/// Which weights the matrix rule takes; AdamW takes the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The two-dimensional weights inside the layers; embeddings, heads, norms, biases and kernels go to AdamW.
    Hidden,
    /// Every weight: the optimizer has one rule for all.
    Everything,
}

impl Route {
    /// Whether a weight of this role belongs to the matrix rule.
    pub fn takes(self, role: Role) -> bool {
        match self {
            Route::Hidden => role == Role::Matrix,
            Route::Everything => true,
        }
    }
}
