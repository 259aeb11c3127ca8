//! Helpers of the suite: golden cases, models made for tests, the shipped binary.
//!
//! Everything here panics with a sentence when something is missing or broken: in a test that is the
//! clearest report there is.

pub mod binary;
pub mod golden;
pub mod models;
pub mod nonsense;
pub mod numbers;
pub mod places;
pub mod random;
pub mod synthetic;
pub mod vocabulary;
