//! Languages: identifiers, file names, grammars, and what their comments look like.

/// A language we know by name; [`Language::Other`] completes too, without a syntax tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// Anything without a grammar.
    Other,
}
