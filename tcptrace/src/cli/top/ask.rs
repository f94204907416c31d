//! The filter as it is typed: the options of `watch`, with or without their dashes.

use clap::Parser;

use crate::cli::select::FilterArgs;
use crate::kernel::Namespaces;
use crate::model::criteria::Criteria;

/// Turns text into filters.
#[derive(Debug)]
pub(super) struct Parsed {
    namespaces: Namespaces,
    /// The filters of the command line, which hold all the time.
    given: Criteria,
}

#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Typed {
    #[command(flatten)]
    filter: FilterArgs,
}

impl Parsed {
    pub(super) fn new(namespaces: Namespaces, given: Criteria) -> Self {
        Self { namespaces, given }
    }

    /// The filters of the command line, and further ones.
    pub(super) fn all(&self, typed: Option<Criteria>) -> Vec<Criteria> {
        [Some(self.given.clone()), typed].into_iter().flatten().filter(|it| *it != Criteria::default()).collect()
    }

    /// # Errors
    /// Says in one line what is wrong.
    pub(super) fn typed(&self, text: &str) -> Result<Criteria, String> {
        let typed = Typed::try_parse_from(words(text)).map_err(|error| said(&error.to_string()))?;
        typed.filter.criteria(&self.namespaces).map_err(|error| format!("{error:#}"))
    }
}

/// `port 443`, `port=443` and `--port 443` mean the same.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut is_value = false;
    for word in text.split_whitespace() {
        let is_flag = matches!(word, "owner-only" | "--owner-only" | "-4" | "-6");
        let word = if is_value || word.starts_with('-') { word.to_owned() } else { format!("--{word}") };
        is_value = !is_value && !is_flag && !word.contains('=');
        words.push(word);
    }
    words
}

/// The first line of an error, without its heading.
fn said(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn parse(text: &str) -> Result<Criteria, String> {
        Parsed::new(Namespaces::recorded(std::iter::empty()), Criteria::default()).typed(text)
    }

    #[rstest]
    #[case("--port 443 --comm nginx")]
    #[case("port 443 comm nginx")]
    #[case("port=443 comm=nginx")]
    fn spellings(#[case] text: &str) {
        let criteria = parse(text).expect("filters");
        assert_eq!((criteria.ports, criteria.comms), (vec![443], vec!["nginx".to_owned()]));
    }

    #[rstest]
    #[case("", None)]
    #[case("-4 port 80", None)]
    #[case("por", Some("unexpected argument '--por' found"))]
    #[case("port", Some("a value is required for '--port <PORT>' but none was supplied"))]
    #[case("port http", Some("invalid value 'http' for '--port <PORT>': invalid digit found in string"))]
    fn what_is_wrong(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(parse(text).err().as_deref(), expected);
    }
}
