//! Checks that `--help` lists the commands and options on the pages.

use std::collections::{BTreeMap, BTreeSet};

use tcptrace_tests::program::run;

use crate::page::{Page, pages};

/// The options of each command.
struct Known(BTreeMap<String, BTreeSet<String>>);

impl Known {
    fn ask() -> Self {
        let help = run(&["--help"]);
        let commands = help.text().lines().skip_while(|line| *line != "Commands:").skip(1);
        // An option is indented by two spaces, its description by more.
        let names = commands.take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
        let names = names.filter(|line| !line.starts_with(' ')).filter_map(|line| line.split(' ').next());
        Self(names.filter(|name| *name != "help").map(|name| (name.to_owned(), options(name))).collect())
    }

    /// The first word after `tcptrace` in a command line that does not exist.
    fn unknown(&self, words: &[&str]) -> Option<String> {
        let (name, rest) = words.split_first()?;
        let Some(options) = self.0.get(*name) else { return Some((*name).to_owned()) };
        let ours = rest.iter().take_while(|word| !matches!(**word, "--" | "|" | "&" | ";" | ">" | "#"));
        ours.filter_map(|word| option(word)).find(|word| !options.contains(word))
    }
}

fn options(command: &str) -> BTreeSet<String> {
    let help = run(&[command, "--help"]);
    let lines = help.text().lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    lines.flat_map(|line| line.split_whitespace().map_while(option).collect::<Vec<_>>()).collect()
}

/// A word that is an option, without its value.
fn option(word: &str) -> Option<String> {
    let name = word.trim_end_matches(',').split(['=', '[']).next()?;
    let is_name = name.trim_start_matches('-').starts_with(|c: char| c.is_ascii_alphanumeric());
    (name.starts_with('-') && is_name).then(|| name.to_owned())
}

/// Text between backticks.
fn spans(page: &Page) -> Vec<String> {
    let prose = page.prose.join("\n");
    prose.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect()
}

/// Every command line that begins with `tcptrace` and the name of a command, split into words.
fn commands(text: &str) -> Vec<Vec<&str>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let starts =
        (1..words.len()).filter(|at| words[at - 1] == "tcptrace" && words[*at].starts_with(char::is_lowercase));
    starts.map(|at| words[at..].to_vec()).collect()
}

#[test]
fn every_command_and_option_in_a_page_exists() {
    let known = Known::ask();
    assert!(known.0.contains_key("watch") && known.0["watch"].contains("--netns"), "`--help` lists them");
    for page in pages() {
        let spans = spans(&page);
        let blocks =
            page.blocks.iter().flat_map(|block| block.text.lines()).chain(page.samples.iter().map(String::as_str));
        for line in blocks.chain(spans.iter().map(String::as_str)) {
            if let Some(unknown) = commands(line).iter().find_map(|words| known.unknown(words)) {
                panic!("{}: `{line}`: there is no {unknown}", page.name);
            }
        }
        // CONTRIBUTING mentions options of other programs, too.
        for span in spans.iter().filter(|_| page.name != "CONTRIBUTING.md") {
            let Some(name) = span.split(' ').next().and_then(option) else { continue };
            let is_known = known.0.values().any(|options| options.contains(&name));
            assert!(is_known, "{}: `{span}`: no command has that option", page.name);
        }
    }
}
