//! The settings a user may give, one documented schema for every way of giving them.

/// All settings, each with a default that needs no thought.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// A model's name or path; `None`: the best one found, see `models`.
    pub model: Option<String>,
}
