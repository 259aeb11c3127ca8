//! Which kernels there are, and which of them a test launched.

use std::cell::RefCell;
use std::collections::BTreeSet;

thread_local! {
    static LAUNCHED: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
}

/// A kernel ran to its end.
pub(crate) fn note(kernel: &'static str) {
    LAUNCHED.with_borrow_mut(|launched| launched.insert(kernel));
}

/// The names of all kernels that can be launched.
pub fn kernels() -> Vec<&'static str> {
    crate::runtime::kernels()
}

/// Says at the end of a test which kernels it covers, and panics where it launched one of them nowhere. A
/// test of all sources reads these calls and sees to it that every kernel is named in one, so the names are
/// written out.
pub fn covers(kernels: &[&str]) {
    LAUNCHED.with_borrow(|launched| {
        for kernel in kernels {
            assert!(launched.contains(kernel), "the test covers {kernel}, and does not launch it");
        }
    });
}
