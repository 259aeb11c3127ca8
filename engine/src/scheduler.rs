//! One thread owns the models; requests wait in a queue by priority.
