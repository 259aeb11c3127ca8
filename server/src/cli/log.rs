//! The log on standard error.

use tracing_subscriber::EnvFilter;

use super::failure::{Exit, Failure, Outcome};
use super::output;
use crate::settings::LogLevel;

/// Changes the level of a log that has started.
pub type SetLevel = Box<dyn Fn(LogLevel) + Send + Sync>;

/// Starts the log. What the command line asks for (`asked`) holds; without it, the log begins at
/// `default`, and the function returned changes its level.
pub fn start(asked: Option<&str>, default: LogLevel) -> Outcome<SetLevel> {
    let asked = asked.filter(|level| !level.is_empty());
    let filter = asked.map_or_else(|| Ok(ours(name(default))), parse)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(output::colours(&std::io::stderr()))
        .with_filter_reloading();
    let handle = builder.reload_handle();
    builder.try_init().map_err(|error| Failure::new(Exit::Failed, format!("the log: {error}")))?;
    let fixed = asked.is_some();
    Ok(Box::new(move |level| {
        if !fixed {
            // It fails only when the log is gone, and then there is nothing to set.
            let _ = handle.reload(ours(name(level)));
        }
    }))
}

/// A level for our own crates; the libraries stay at warnings, which nobody asked them about.
fn ours(level: &str) -> EnvFilter {
    EnvFilter::new(format!("warn,gemma_ls={level},gemma_engine={level},gemma_kernels={level}"))
}

fn parse(asked: &str) -> Outcome<EnvFilter> {
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    if let Some(level) = levels.into_iter().map(name).find(|level| asked.eq_ignore_ascii_case(level)) {
        return Ok(ours(level));
    }
    EnvFilter::try_new(asked).map_err(|error| {
        Failure::usage(format!("--log {asked}: {error}"))
            .remedy("Give one of error, warn, info, debug, trace, or a filter such as gemma_engine=debug.")
    })
}

fn name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_for_our_crates_and_a_filter_is_taken_as_it_is() {
        for (asked, filter) in [
            ("debug", "gemma_ls=debug"),
            ("DEBUG", "gemma_ls=debug"),
            ("gemma_engine=trace", "gemma_engine=trace"),
            ("hyper=info,debug", "hyper=info"),
        ] {
            let shown = parse(asked).expect(asked).to_string();
            assert!(shown.contains(filter), "{asked}: {shown}");
        }
        let failure = parse("gemma=loud").expect_err("there is no such level");
        assert_eq!(failure.exit(), Exit::Usage);
    }
}
