//! Which model to run: what the user configured, else a CodeGemma found here, else the default.
