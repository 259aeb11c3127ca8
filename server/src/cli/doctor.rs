//! `gemma-ls doctor`: what this machine is, which model would run and why, and what to mend.

use clap::Args;
use gemma_engine::checkpoint::{self, Checkpoint, Found};
use gemma_engine::{Error, GpuInfo, Machine, context_bytes};
use serde::Serialize;
use serde_json::{Value, json};

use super::Context;
use super::failure::{Exit, Failure, Outcome};
use super::output::{self, bytes};
use crate::models::{self, Choice};
use crate::settings;

const EXAMPLES: &str = "\
It loads no model, changes nothing, and ends with exit code 0 when completions can work, 1 when something
has to be mended first.

Examples:
  gemma-ls doctor
  gemma-ls doctor --json

JSON: usable, version, machine (processor, simd, cores, memory_bytes, available_bytes, gpus: each with name,
capability, memory_bytes, driver; no_gpu: why there is none), threads, model (the
one that runs: name, path, why, adapter, weight_bytes, cache_bytes; or null), models (each with name, path, source,
bytes), settings (file, exists), hub (reachable), findings (each with level: problem or note, what, remedy).";

/// Show what was found on this machine, what is wrong and how to mend it
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// Nothing works until it is mended.
    Problem,
    /// Good to know.
    Note,
}

/// Something that is not as it might be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    level: Level,
    what: String,
    remedy: Option<String>,
}

impl Finding {
    fn note(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Note, what: what.into(), remedy: Some(remedy.into()) }
    }

    fn problem(failure: &Failure) -> Self {
        let remedy = failure.remedy_text().map(str::to_owned);
        Self { level: Level::Problem, what: failure.message().to_owned(), remedy }
    }
}

/// The model that would run.
#[derive(Debug, Clone, Serialize)]
struct Runs {
    #[serde(flatten)]
    choice: Choice,
    /// The adapter beside it.
    adapter: Option<String>,
    /// Bytes of its weights in memory.
    weight_bytes: u64,
    /// Bytes that a full context of it takes in the cache.
    cache_bytes: u64,
}

/// All that was found.
struct Report {
    machine: Machine,
    threads: usize,
    found: Vec<Found>,
    runs: Option<Runs>,
    hub: Result<(), Error>,
    file: Option<std::path::PathBuf>,
    findings: Vec<Finding>,
}

/// Runs `gemma-ls doctor`.
pub fn run(context: &Context, args: &DoctorArgs) -> Outcome<Exit> {
    let spinner = output::spinner(context.global.quiet, "Looking around");
    let report = examine(context);
    spinner.finish_and_clear();
    if args.json {
        output::print_json(&report.to_json())?;
    } else {
        output::print(&report.to_text())?;
    }
    Ok(if report.usable() { Exit::Ok } else { Exit::Failed })
}

fn examine(context: &Context) -> Report {
    let machine = Machine::look();
    let mut findings = Vec::new();
    let runs = match runs(context) {
        Ok(runs) => Some(runs),
        Err(error) => {
            findings.push(Finding::problem(&error.into()));
            None
        }
    };
    findings.extend(runs.as_ref().and_then(|runs| too_large(runs, &machine)));
    for problem in &context.problems {
        findings.push(Finding::note(
            format!("settings: {problem}"),
            "The other settings are in use; the README lists all of them.",
        ));
    }
    let hub = checkpoint::reach_hub();
    if let Err(error) = &hub {
        let what = format!("HuggingFace's hub is out of reach. {}", Failure::from(error.clone()).message());
        findings.push(Finding::note(
            what,
            "Models that are here run without it; it is needed for downloads only.",
        ));
    }
    Report {
        threads: context.settings.threads.unwrap_or(machine.cores),
        machine,
        found: checkpoint::find_all(),
        runs,
        hub,
        file: context.global.config.clone().or_else(settings::config_file),
        findings,
    }
}

/// The model that would run, opened so far as to know that it can.
fn runs(context: &Context) -> gemma_engine::Result<Runs> {
    let choice = models::choose(None, &context.settings)?;
    let checkpoint = Checkpoint::open(&choice.path)?;
    checkpoint.tokenizer()?;
    let adapter = models::adapter(None, &context.settings, &choice).open(&checkpoint)?;
    let adapter = adapter.map(|adapter| adapter.name().to_owned());
    let cache_bytes =
        context_bytes(&checkpoint, checkpoint.config().context, context.settings.kv_format.wished());
    Ok(Runs { choice, adapter, weight_bytes: checkpoint.weight_bytes(), cache_bytes })
}

fn too_large(runs: &Runs, machine: &Machine) -> Option<Finding> {
    let available = machine.available_bytes.or(machine.memory_bytes)?;
    (runs.weight_bytes > available).then(|| {
        Finding::note(
            format!(
                "{} needs {} for its weights, and {} of memory are available",
                runs.choice.name,
                bytes(runs.weight_bytes),
                bytes(available)
            ),
            "Close other programs, or take a smaller or more strongly quantised model.",
        )
    })
}

impl Report {
    fn usable(&self) -> bool {
        self.findings.iter().all(|finding| finding.level != Level::Problem)
    }

    fn to_json(&self) -> Value {
        let models: Vec<Value> = self.found.iter().map(super::model::found_json).collect();
        json!({
            "usable": self.usable(),
            "version": env!("CARGO_PKG_VERSION"),
            "machine": self.machine,
            "threads": self.threads,
            "model": self.runs,
            "models": models,
            "settings": { "file": self.file, "exists": self.file.as_ref().is_some_and(|file| file.exists()) },
            "hub": { "reachable": self.hub.is_ok() },
            "findings": self.findings,
        })
    }

    fn to_text(&self) -> String {
        let mut text = format!("gemma-ls {}\n\n{}", env!("CARGO_PKG_VERSION"), output::table(&self.rows()));
        for finding in &self.findings {
            let mark = match finding.level {
                Level::Problem => "✗",
                Level::Note => "•",
            };
            text.push_str(&format!("\n{mark} {}\n", finding.what.replace('\n', "\n  ")));
            if let Some(remedy) = &finding.remedy {
                text.push_str(&format!("  {remedy}\n"));
            }
        }
        text.push_str(if self.usable() {
            "\n✓ Ready. See it work with `gemma-ls try`.\n"
        } else {
            "\n✗ Not ready: mend what is marked with ✗.\n"
        });
        text
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let machine = &self.machine;
        let unknown = || "unknown".to_owned();
        let mut rows = vec![
            ("processor", machine.processor.clone().unwrap_or_else(unknown)),
            ("computes with", format!("{}, {} of {} cores", machine.simd, self.threads, machine.cores)),
            (
                "memory",
                match (machine.memory_bytes, machine.available_bytes) {
                    (Some(all), Some(free)) => format!("{}, {} available", bytes(all), bytes(free)),
                    (Some(all), None) => bytes(all),
                    (None, _) => unknown(),
                },
            ),
        ];
        for gpu in &machine.gpus {
            let GpuInfo { name, capability, memory_bytes, driver } = gpu;
            let memory = bytes(*memory_bytes);
            rows.push(("GPU", format!("{name}  ({memory}, compute capability {capability}, CUDA {driver})")));
        }
        if let Some(why) = &machine.no_gpu {
            rows.push(("GPU", format!("none: {why}")));
        }
        match &self.runs {
            Some(runs) => {
                let memory =
                    format!("{} weights, up to {} cache", bytes(runs.weight_bytes), bytes(runs.cache_bytes));
                rows.push(("model", format!("{}  ({memory})", runs.choice.name)));
                rows.push(("", runs.choice.path.display().to_string()));
                rows.push(("", format!("because {}", runs.choice.why)));
                rows.extend(runs.adapter.iter().map(|adapter| ("adapter", adapter.clone())));
            }
            None => rows.push(("model", "none that runs".to_owned())),
        }
        let others = self.found.iter().filter(|f| self.runs.as_ref().is_none_or(|r| r.choice.path != f.path));
        let names: Vec<String> = others.map(|found| format!("{} ({})", found.name, found.source)).collect();
        if !names.is_empty() {
            rows.push(("other models", names.join(", ")));
        }
        let file = self.file.as_ref().map_or_else(unknown, |file| {
            let note = if file.exists() { "" } else { "  (not there: the defaults hold)" };
            format!("{}{note}", file.display())
        });
        rows.push(("settings", file));
        rows.push(("hub", if self.hub.is_ok() { "reachable" } else { "out of reach" }.to_owned()));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Why;
    use gemma_engine::ErrorKind;

    fn report(runs: Option<Runs>, findings: Vec<Finding>) -> Report {
        Report {
            machine: Machine { simd: "AVX2", cores: 4, memory_bytes: Some(8 << 30), ..Machine::default() },
            threads: 3,
            found: vec![Found { name: "other".into(), path: "/o".into(), source: "ollama".into(), bytes: 9 }],
            runs,
            hub: Ok(()),
            file: None,
            findings,
        }
    }

    fn runs(weight_bytes: u64) -> Runs {
        let choice = Choice { name: "m".into(), path: "/m".into(), why: Why::Configured };
        Runs { choice, adapter: Some("a".into()), weight_bytes, cache_bytes: 7 }
    }

    #[test]
    fn a_problem_is_not_usable_and_a_note_is() {
        let error = Error::new(ErrorKind::NotFound, "model", "there is none").remedy("Pull one.");
        let broken = report(None, vec![Finding::problem(&error.into())]);
        assert!(!broken.usable());
        let text = broken.to_text();
        assert!(text.contains("✗ model: there is none\n  Pull one.\n"), "{text}");
        assert!(text.contains("Not ready"), "{text}");
        let fine = report(Some(runs(1)), vec![Finding::note("a", "b")]);
        assert!(fine.usable());
        let text = fine.to_text();
        for part in [
            "• a\n  b\n",
            "✓ Ready",
            "AVX2, 3 of 4 cores",
            "because the setting `model` names it",
            "other (ollama)",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn the_json_has_all_that_is_documented() {
        let json = report(Some(runs(1)), vec![]).to_json();
        let names = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        for value in
            [&json, &json["machine"], &json["model"], &json["settings"], &json["hub"], &json["models"][0]]
        {
            for name in names(value) {
                assert!(EXAMPLES.contains(name.as_str()), "the help does not name {name}");
            }
        }
    }

    #[test]
    fn a_model_larger_than_the_memory_is_noted() {
        let machine = Machine { available_bytes: Some(5), memory_bytes: Some(10), ..Machine::default() };
        assert!(too_large(&runs(6), &machine).is_some_and(|finding| finding.level == Level::Note));
        assert_eq!(too_large(&runs(5), &machine), None);
        assert_eq!(too_large(&runs(6), &Machine::default()), None);
    }
}
