//! Calls into a library that panics on input it does not like: the panic becomes an error.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread is told as an error, and so not by the hook.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What `call` gives, or the text of its panic. What it works on is not to be used again after a panic.
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                before(panic);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    done.map_err(|panic| format!("the tokenizer library cannot handle it ({})", text(&*panic)))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref().copied()).unwrap_or("it gives no reason")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(guarded(|| 1), Ok(1));
        let none: Option<u8> = "none".parse().ok();
        assert!(guarded(|| none.expect("some")).unwrap_err().contains("(some)"));
        let at = 3;
        assert!(guarded(|| panic!("at {at}")).unwrap_err().contains("(at 3)"));
    }
}
