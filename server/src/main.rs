//! The `gemma-ls` binary.

fn main() -> std::process::ExitCode {
    gemma_ls::cli::run()
}
