//! The command line: one subcommand a file.

/// Parses the arguments and runs the subcommand.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
