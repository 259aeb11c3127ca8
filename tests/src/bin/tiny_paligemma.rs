//! Writes the golden PaliGemma with a vocabulary, for tests that show pictures to the server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Write a tiny PaliGemma whose words are nonsense
#[derive(Parser)]
#[command(name = "tiny-paligemma")]
struct Arguments {
    /// The folder to write
    out: PathBuf,
}

fn main() -> ExitCode {
    let out = Arguments::parse().out;
    let made = gemma_tests::nonsense::paligemma();
    let copy = || -> std::io::Result<()> {
        std::fs::create_dir_all(&out)?;
        for entry in std::fs::read_dir(made.path())? {
            let entry = entry?;
            std::fs::copy(entry.path(), out.join(entry.file_name()))?;
        }
        Ok(())
    };
    match copy() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tiny-paligemma: {}: {error}", out.display());
            ExitCode::FAILURE
        }
    }
}
