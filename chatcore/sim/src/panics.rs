//! A panic in a world is a broken rule of that world, told with the place where it began.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};

use crate::broken::Broken;

/// The rule that a panic breaks: an assertion of ours did not hold.
pub const NO_PANIC: &str = "nothing panics";

thread_local! {
    /// Where the last panic of this thread began.
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

/// Makes panics silent: who catches them tells of them, and of where they began.
pub fn keep_quiet() {
    panic::set_hook(Box::new(|info| PLACE.set(info.location().map(ToString::to_string))));
}

/// Runs a world, or a part of it. What it had come to is left as it was when it panicked.
///
/// # Errors
/// What it returns; and [`NO_PANIC`] with the message, and the place after [`keep_quiet`].
pub(crate) fn catch(body: impl FnOnce() -> Result<(), Broken>) -> Result<(), Broken> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        let place = PLACE.take().map(|place| format!(" ({place})")).unwrap_or_default();
        Err(Broken::new(NO_PANIC, format!("{text}{place}")))
    })
}
