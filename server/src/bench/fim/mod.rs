//! Which prompt suits a model, measured on somebody's own code: a part of a file is taken out, the model
//! fills it in as it would in an editor, and what it writes is held against what stood there.

pub mod measure;
pub mod report;
pub mod samples;
pub mod verdict;
