//! The command line as it is parsed and documented.

use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("gemma-ls").chain(line.split_whitespace()))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_documented_command_line_parses() {
    for line in [
        "",
        "--stdio",
        "lsp",
        "lsp --stdio",
        "lsp --config c.json --threads 4 --log debug --quiet",
        "--threads 2 lsp",
        "complete a.rs:1:2",
        r"complete C:\a.rs:1:2 --model codegemma-2b --json --no-pull",
        "chat a.rs question",
        "chat a.rs question --model m --json",
        "explain shot.png",
        "explain shot.png question another --model m --chat-model c --json -n 9 --tiles 4 --seed 1",
        "explain - --task ocr",
        "explain shot.png --task detect thing --output boxes.png",
        "chat",
        "chat a.rs -v --no-line-numbers",
        "generate --model m --prompt text",
        "generate --prompt-file f -n 3 --temperature 0.7 --top-k 40 --top-p 0.9 --min-p 0.05",
        "generate --prompt p --repetition-penalty 1.1 --seed 7 --stop a --stop b --json",
        "model list",
        "model list --json",
        "model pull codegemma-2b --json",
        "model info some/path --json",
        "doctor",
        "doctor --json",
        "stats",
        "stats --json --reset",
        "inspect logits --model d --input i.json --output o.safetensors",
        "inspect logits --model d --input i --output o --device reference --precision fast",
        "inspect logits --model d --input i --output o --device cuda",
        "inspect settings",
        "try",
        "try --model m --json",
    ] {
        assert!(
            parse(line).is_ok(),
            "{line}: {}",
            parse(line).err().map_or(String::new(), |e| e.to_string())
        );
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for line in [
        "unheard-of",
        "complete",
        "complete a.rs",
        "complete a.rs:0:1",
        "explain",
        "explain shot.png --task paint",
        "explain shot.png --tiles 0",
        "chat a.rs why not",
        "generate",
        "generate --prompt a --prompt-file b",
        "generate --prompt a --top-p 2",
        "generate --prompt a --temperature=-1",
        "model",
        "model pull",
        "inspect logits --model d --input i",
        "inspect logits --model d --input i --output o --device tpu",
        "--threads 0 doctor",
        "--threads 99999 doctor",
    ] {
        let error = parse(line).err().unwrap_or_else(|| panic!("{line} is accepted"));
        assert_eq!(error.exit_code(), Exit::Usage as i32, "{line}");
    }
}

#[test]
fn an_option_before_or_behind_the_subcommand_is_the_same() {
    for line in ["--threads 3 doctor --json", "doctor --threads 3 --json"] {
        let cli = parse(line).expect("sound");
        assert_eq!(cli.global.threads, Some(3));
        assert!(cli.command.is_some_and(|command| command.json()));
    }
}

/// Every subcommand that does something teaches how: examples of its own, each of which parses.
#[test]
fn every_example_in_the_help_parses() {
    let mut command = Cli::command();
    command.build();
    let mut pending = vec![command];
    let mut examples = 0;
    while let Some(command) = pending.pop() {
        let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        let leaf = command.get_subcommands().next().is_none();
        let examples_here = help.lines().filter_map(|line| line.strip_prefix("  "));
        let lines: Vec<&str> = examples_here.filter(|line| line.starts_with("gemma-ls ")).collect();
        assert!(!leaf || !lines.is_empty(), "{} has no examples", command.get_name());
        for line in lines {
            let line = line.split("  ").next().unwrap_or(line);
            let words = words(line);
            assert!(Cli::try_parse_from(&words).is_ok(), "{line}: {words:?}");
            examples += 1;
        }
        pending.extend(command.get_subcommands().cloned());
    }
    assert!(examples > 10, "{examples} examples");
}

/// Words of a command line, with double quotes as a shell reads them.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (i, part) in line.split('"').enumerate() {
        match i % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

#[test]
fn settings_come_from_the_file_that_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.json");
    let with = |text: &str, threads| {
        std::fs::write(&path, text).expect("written");
        Context::new(Global { config: Some(path.clone()), threads, ..Global::default() }, Box::new(|_| {}))
    };
    let context = with(r#"{"model": "m", "threads": 3, "modell": 1}"#, None).expect("readable");
    assert_eq!((context.settings.model.as_deref(), context.settings.threads), (Some("m"), Some(3)));
    assert_eq!(context.problems.len(), 1);
    let context = with(r#"{"threads": 3}"#, Some(5)).expect("readable");
    assert_eq!(context.settings.threads, Some(5), "the command line wins");
    let broken = with("{", None).err().expect("no JSON");
    assert_eq!(broken.exit(), Exit::BadFile);
    let missing = Global { config: Some(folder.path().join("none.json")), ..Global::default() };
    assert_eq!(Context::new(missing, Box::new(|_| {})).err().expect("no file").exit(), Exit::Missing);
}

fn readme() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    std::fs::read_to_string(path).expect("the README is there").replace("\r\n", "\n")
}

#[test]
fn the_readme_has_the_settings_as_they_are() {
    let readme = readme();
    let begin = "<!-- settings: made by settings::markdown_table() -->\n";
    let (_, rest) = readme.split_once(begin).expect("the marker before the table");
    let (table, _) = rest.split_once("<!-- end of settings -->").expect("the marker behind the table");
    let current = crate::settings::markdown_table();
    assert_eq!(table.trim(), current.trim(), "put this between the markers:\n{current}");
}

#[test]
fn the_readme_names_every_model_and_every_exit_code() {
    let readme = readme();
    for entry in gemma_engine::checkpoint::CATALOGUE {
        assert!(readme.contains(&format!("`{}`", entry.name)), "{} is not in the README", entry.name);
    }
    let codes = EXIT_CODES.lines().filter_map(|line| line.trim().split_once("  "));
    for (code, meaning) in codes {
        let row = format!("| {} | {} |", code.trim(), meaning.trim());
        assert!(readme.contains(&row), "{row} is not in the README");
    }
}
