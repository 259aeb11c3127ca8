//! `gemma-ls stats`: what was suggested on this machine, and what of it was taken.

use clap::Args;

use super::failure::{Exit, Failure, Outcome};
use super::{Context, output};
use crate::statistics::{self, Statistics, Store};

const EXAMPLES: &str = "\
Editors tell gemma-ls which suggestions they show and what of them is accepted. Only numbers are kept: how
many, how many characters, in which language. No text is kept, and nothing leaves this machine. The numbers
of all editors are in one file, gemma-ls/statistics.json in the folder for data (on Linux ~/.local/share);
a running server writes them a few seconds later. The setting `statistics` switches counting off.

The time saved is what typing the accepted characters takes at 40 words a minute.

Examples:
  gemma-ls stats
  gemma-ls stats --json
  gemma-ls stats --reset

JSON: since (a date), shown, accepted (suggestions of which something was taken), words, lines, wholes (how
they were taken), characters, timeSavedMs, languages (by name: shown, accepted, characters).";

/// Show what was suggested on this machine, and what of it was taken
#[derive(Args)]
#[command(after_long_help = EXAMPLES)]
pub struct StatsArgs {
    /// Forget the numbers and begin anew
    #[arg(long)]
    reset: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs `gemma-ls stats`.
pub fn run(context: &Context, args: &StatsArgs) -> Outcome<Exit> {
    let file = statistics::file().ok_or_else(|| {
        Failure::new(Exit::Failed, "this user has no folder for data, so nothing is counted")
            .remedy("Set HOME, or XDG_DATA_HOME to a folder.")
    })?;
    let store = Store::new(Some(file.clone()));
    if let Some(problem) = store.problem().filter(|_| !context.global.quiet) {
        output::say(format_args!("{problem}"));
    }
    let all = if args.reset { store.reset()? } else { store.read() };
    match (args.json, args.reset) {
        (true, _) => output::print_json(&all.to_json()),
        (false, true) => output::print("The numbers are forgotten; counting begins anew.\n"),
        (false, false) => output::print(&format!("{}\nKept in {}\n", shown(&all), file.display())),
    }?;
    Ok(Exit::Ok)
}

/// The numbers for people.
fn shown(all: &Statistics) -> String {
    if all.is_empty() {
        return "Nothing was counted yet: editors tell gemma-ls what they show.\n".to_owned();
    }
    let Statistics { since, shown, accepted, wholes, lines, words, characters, .. } = all;
    let mut text = format!(
        "Since {since}\n\
         \x20 shown       {shown:>8}\n\
         \x20 accepted    {accepted:>8}{}: {wholes} times all of it, {lines} a line, {words} a word\n\
         \x20 characters  {characters:>8}, about {} of typing\n\n",
        share(*accepted, *shown),
        duration(all.time_saved_ms()),
    );
    let mut languages: Vec<_> = all.languages.iter().collect();
    languages.sort_by_key(|(name, language)| (std::cmp::Reverse(language.characters), *name));
    let rows: Vec<(&str, String)> = languages
        .into_iter()
        .map(|(name, language)| {
            let name = if name.is_empty() { "others" } else { name.as_str() };
            let share = share(language.accepted, language.shown);
            let (shown, accepted, characters) = (language.shown, language.accepted, language.characters);
            (name, format!("{accepted} of {shown}{share}, {characters} characters"))
        })
        .collect();
    text.push_str(&output::table(&rows));
    text
}

/// ` (33 %)`, where that says something.
fn share(part: u64, whole: u64) -> String {
    let percent = u128::from(part) * 100;
    percent.checked_div(u128::from(whole)).map_or_else(String::new, |percent| format!(" ({percent} %)"))
}

/// A time in the unit that people would take.
fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        ..100 => format!("{seconds} seconds"),
        100..6_000 => format!("{} minutes", seconds / 60),
        _ => format!("{} hours", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Taken;

    #[test]
    fn people_see_shares_and_a_time() {
        let mut all = Statistics { since: "2026-11-22".into(), ..Statistics::default() };
        assert!(shown(&all).starts_with("Nothing was counted yet"));
        for _ in 0..3 {
            all.show("rust");
        }
        all.show("");
        all.take("rust", Taken::Whole, 1000, true);
        let text = shown(&all);
        for part in
            ["Since 2026-11-22", "1 (25 %): 1 times all", "about 5 minutes", "1 of 3 (33 %), 1000", "others"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn the_json_has_all_that_is_documented() {
        let json = Statistics::default().to_json();
        for name in json.as_object().expect("an object").keys() {
            assert!(EXAMPLES.contains(name.as_str()), "the help does not name {name}");
        }
    }
}
