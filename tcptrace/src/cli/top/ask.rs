//! The filter as it is typed: the options of `watch`, with or without their dashes.

use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use foldhash::fast::FixedState;
use hashlink::LruCache;

use crate::cli::select::FilterArgs;
use crate::kernel::Namespaces;
use crate::model::criteria::Criteria;

/// Turns text into filters.
#[derive(Debug)]
pub(super) struct Parsed {
    namespaces: Namespaces,
    /// The filters of the command line, which hold all the time.
    given: Criteria,
    named: Named,
}

/// What network namespaces are called now, as events tell it: in the sandbox, no name can be looked up. Copies share it.
#[derive(Clone, Debug)]
pub(super) struct Named(Arc<Mutex<Numbers>>);

/// By name.
type Numbers = LruCache<Box<[u8]>, u32, FixedState>;

/// Names that are kept at most.
const MOST_NAMED: usize = 4096;

impl Default for Named {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::with_hasher(MOST_NAMED, FixedState::default()))))
    }
}

impl Named {
    /// Notes a name. The namespace that had it before may be gone.
    pub(super) fn note(&self, inode: u32, name: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), inode);
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).peek(name.as_bytes()).copied()
    }
}

#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Typed {
    #[command(flatten)]
    filter: FilterArgs,
}

impl Parsed {
    pub(super) fn new(namespaces: Namespaces, given: Criteria) -> Self {
        Self { namespaces, given, named: Named::default() }
    }

    /// Where names are noted that namespaces get later.
    pub(super) fn named(&self) -> Named {
        self.named.clone()
    }

    /// The filters of the command line, and further ones.
    pub(super) fn all(&self, typed: Option<Criteria>) -> Vec<Criteria> {
        [Some(self.given.clone()), typed].into_iter().flatten().filter(|it| *it != Criteria::default()).collect()
    }

    /// # Errors
    /// Says in one line what is wrong.
    pub(super) fn typed(&self, text: &str) -> Result<Criteria, String> {
        let typed = Typed::try_parse_from(words(text)).map_err(|error| said(&error.to_string()))?;
        let number = |netns: &str| self.named.number(netns).map_or_else(|| self.namespaces.resolve(netns), Ok);
        typed.filter.criteria_by(number).map_err(|error| format!("{error:#}"))
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

    #[test]
    fn a_namespace_is_found_by_the_name_that_it_got_later() {
        let parsed = Parsed::new(Namespaces::recorded([(7, &b"web"[..])].into_iter()), Criteria::default());
        let netns = |text: &str| parsed.typed(text).map(|criteria| criteria.netns);
        assert_eq!(netns("netns web"), Ok(vec![7]));
        assert_eq!(netns("netns db"), Err("no network namespace is called 'db' (see ip netns)".to_owned()));
        let named = parsed.named();
        named.note(8, b"db");
        assert_eq!(netns("netns db"), Ok(vec![8]));
        // It was removed, and made anew.
        named.note(9, b"web");
        assert_eq!(netns("netns web netns 5"), Ok(vec![9, 5]));
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
