//! Reads a condition. An error points at the place.

use std::fmt;
use std::str::FromStr;

use super::{Atom, Condition, Figure, Node, Operator};
use crate::model::tcp::State;
use crate::study::diagnose::finding::Severity;
use crate::study::diagnose::{RULES, rule};

/// The groups of the kernel's names: counters, and levels.
const COUNTERS: [&str; 3] = ["Tcp.", "TcpExt.", "conntrack."];
const LEVELS: [&str; 4] = ["sockstat.", "conntrack.count", "conntrack.max", "Tcp.CurrEstab"];
/// How deep parentheses and `not` may be nested.
const DEEPEST: usize = 32;
/// How alike a word must be to be suggested.
const SIMILAR: f64 = 0.7;
/// How many words are suggested.
const SUGGESTED: usize = 3;
/// Columns of a list of names.
const WIDTH: usize = 92;

/// Why something is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct WhenError {
    text: Box<str>,
    /// In bytes.
    at: usize,
    what: String,
    /// The names that are known, where a name of the kernel is not.
    known: Vec<Box<str>>,
}

impl fmt::Display for WhenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = self.text.get(..self.at).unwrap_or_default().chars().count();
        write!(f, "{}\n  {}\n  {:before$}^", self.what, self.text, "")?;
        let mut left = 0;
        for (place, name) in self.known.iter().enumerate() {
            if left < name.len() + 2 {
                f.write_str(if place == 0 { "\n  known:\n    " } else { "\n    " })?;
                left = WIDTH;
            }
            let comma = if place + 1 < self.known.len() { ", " } else { "" };
            write!(f, "{name}{comma}")?;
            left = left.saturating_sub(name.len() + 2);
        }
        Ok(())
    }
}

/// The kernel's counters and levels on this machine, with their groups (`TcpExt.ListenDrops`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub counters: Vec<Box<str>>,
    pub levels: Vec<Box<str>>,
}

impl FromStr for Condition {
    type Err = WhenError;

    /// Takes the names of the kernel's counters and levels as they are: each may be known somewhere.
    fn from_str(text: &str) -> Result<Self, WhenError> {
        Self::parse(text, None)
    }
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// When it is none, or names a counter or a level that is not among those that are known.
    pub fn parse(text: &str, known: Option<&Known>) -> Result<Self, WhenError> {
        let mut parser = Parser { text, known, at: 0, depth: 0, atoms: Vec::new() };
        let root = parser.any()?;
        match parser.peek() {
            Token::End => Ok(Self { text: text.into(), root, atoms: parser.atoms }),
            Token::Close => Err(parser.wrong("this parenthesis closes nothing")),
            _ => Err(parser.wrong("expected 'and' or 'or' here")),
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    known: Option<&'t Known>,
    at: usize,
    depth: usize,
    atoms: Vec<Atom>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'t> {
    Word(&'t str),
    Operator(Operator),
    Open,
    Close,
    End,
    Unknown,
}

impl<'t> Parser<'t> {
    /// The next token, and its length.
    fn token(&mut self) -> (Token<'t>, usize) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += rest.len() - rest.trim_start().len();
        let rest = rest.trim_start();
        let is_word = |it: char| it.is_ascii_alphanumeric() || "_-.".contains(it);
        let word = rest.find(|it| !is_word(it)).unwrap_or(rest.len());
        if word > 0 {
            return (Token::Word(&rest[..word]), word);
        }
        const OPERATORS: [(&str, Operator); 7] = [
            (">=", Operator::AtLeast),
            ("<=", Operator::AtMost),
            ("!=", Operator::Other),
            ("==", Operator::Equal),
            (">", Operator::More),
            ("<", Operator::Less),
            ("=", Operator::Equal),
        ];
        if let Some((spelt, operator)) = OPERATORS.iter().find(|(spelt, _)| rest.starts_with(spelt)) {
            return (Token::Operator(*operator), spelt.len());
        }
        match rest.chars().next() {
            None => (Token::End, 0),
            Some('(') => (Token::Open, 1),
            Some(')') => (Token::Close, 1),
            Some(_) => (Token::Unknown, 0),
        }
    }

    fn peek(&mut self) -> Token<'t> {
        self.token().0
    }

    fn next(&mut self) -> Token<'t> {
        let (token, length) = self.token();
        self.at += length;
        token
    }

    /// Takes this keyword, if it is next.
    fn takes(&mut self, keyword: &str) -> bool {
        let is_next = matches!(self.peek(), Token::Word(word) if word.eq_ignore_ascii_case(keyword));
        if is_next {
            self.next();
        }
        is_next
    }

    fn wrong(&self, what: impl Into<String>) -> WhenError {
        WhenError { text: self.text.into(), at: self.at, what: what.into(), known: Vec::new() }
    }

    fn any(&mut self) -> Result<Node, WhenError> {
        let mut nodes = vec![self.all()?];
        while self.takes("or") {
            nodes.push(self.all()?);
        }
        Ok(Node::Any(nodes))
    }

    fn all(&mut self) -> Result<Node, WhenError> {
        let mut nodes = vec![self.one()?];
        while self.takes("and") {
            nodes.push(self.one()?);
        }
        Ok(Node::All(nodes))
    }

    fn one(&mut self) -> Result<Node, WhenError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.wrong("this is nested too deeply"));
        }
        let node = if self.takes("not") { Node::Not(Box::new(self.one()?)) } else { self.inner()? };
        self.depth -= 1;
        Ok(node)
    }

    fn inner(&mut self) -> Result<Node, WhenError> {
        match self.peek() {
            Token::Open => {
                self.next();
                let node = self.any()?;
                if self.peek() != Token::Close {
                    return Err(self.wrong("expected ')' here"));
                }
                self.next();
                Ok(node)
            }
            Token::Word(word) if !is_keyword(word) => self.atom(),
            Token::End => {
                Err(self.wrong("expected a rule or a figure here, such as close-wait-leak or CLOSE_WAIT > 500"))
            }
            Token::Unknown => Err(self.wrong("unexpected character")),
            _ => Err(self.wrong("expected a rule or a figure here")),
        }
    }

    fn atom(&mut self) -> Result<Node, WhenError> {
        self.token();
        let begins = self.at;
        let Token::Word(word) = self.next() else { return Err(self.wrong("expected a word here")) };
        let atom = if let Token::Operator(operator) = self.peek() {
            let figure = figure(word, self.known).map_err(|what| WhenError { at: begins, ..self.wrong(what) })?;
            if let Some(known) = self.known {
                is_known(&figure, known).map_err(|(what, known)| WhenError {
                    at: begins,
                    known,
                    ..self.wrong(what)
                })?;
            }
            self.next();
            Atom::Figure(figure, operator, self.number()?)
        } else {
            if let Some(severity) = severity(word) {
                let rules = RULES.iter().map(|rule| Node::Atom(self.place(Atom::Rule(rule.id, severity))));
                return Ok(Node::Any(rules.collect()));
            }
            let found =
                rule(word).ok_or_else(|| WhenError { at: begins, ..self.wrong(unknown_rule(word, self.known)) })?;
            Atom::Rule(found.id, Severity::Note)
        };
        Ok(Node::Atom(self.place(atom)))
    }

    /// The place of an atom: what comes twice is one.
    fn place(&mut self, atom: Atom) -> usize {
        self.atoms.iter().position(|known| *known == atom).unwrap_or_else(|| {
            self.atoms.push(atom);
            self.atoms.len() - 1
        })
    }

    fn number(&mut self) -> Result<f64, WhenError> {
        let number = match self.peek() {
            Token::Word(word) => word.parse().ok().filter(|number: &f64| number.is_finite()),
            _ => None,
        };
        let number = number.ok_or_else(|| self.wrong("expected a number here, such as 500"))?;
        self.next();
        Ok(number)
    }
}

fn is_keyword(word: &str) -> bool {
    ["and", "or", "not"].iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
}

/// What any rule may find.
fn severity(word: &str) -> Option<Severity> {
    Severity::ALL.into_iter().find(|severity| word.eq_ignore_ascii_case(severity.as_str()))
}

/// The figure of a name.
fn figure(word: &str, known: Option<&Known>) -> Result<Figure, String> {
    let spelt = word.to_ascii_uppercase().replace('-', "_");
    if let Some(state) = State::ALL.iter().find(|state| state.as_str() == spelt) {
        return Ok(Figure::Sockets(*state));
    }
    if LEVELS.iter().any(|group| word.starts_with(group)) {
        return Ok(Figure::Level(word.into()));
    }
    if COUNTERS.iter().any(|group| word.len() > group.len() && word.starts_with(group)) {
        return Ok(Figure::Growth(word.into()));
    }
    if rule(word).is_some() || severity(word).is_some() {
        return Err(format!("'{word}' holds or does not: leave out the comparison"));
    }
    let states = State::ALL.iter().map(|state| state.as_str());
    let near = nearest(word, states.chain(known.into_iter().flat_map(names)));
    Err(format!(
        "there is no figure '{word}'{near}; figures are states (CLOSE_WAIT), counters (TcpExt.ListenOverflows) and levels \
         (sockstat.TCP.orphan)"
    ))
}

fn names(known: &Known) -> impl Iterator<Item = &str> {
    known.counters.iter().chain(&known.levels).map(|name| &**name)
}

/// A name that the kernel does not have would be 0 for ever. Otherwise: what is wrong, and the names of its group.
fn is_known(figure: &Figure, known: &Known) -> Result<(), (String, Vec<Box<str>>)> {
    let (name, is_there, kind) = match figure {
        Figure::Sockets(_) => return Ok(()),
        Figure::Growth(name) => (name, known.counters.contains(name), "counter"),
        Figure::Level(name) => (name, known.levels.contains(name), "level"),
    };
    if is_there {
        return Ok(());
    }
    let group = name.split_inclusive('.').next().unwrap_or_default();
    let of_group: Vec<&str> = names(known).filter(|known| known.starts_with(group)).collect();
    let near = nearest(name, of_group.iter().copied());
    Err((format!("this kernel has no {kind} '{name}'{near}"), of_group.into_iter().map(Box::from).collect()))
}

fn unknown_rule(word: &str, known: Option<&Known>) -> String {
    if figure(word, known).is_ok() {
        return format!("'{word}' needs a comparison, such as {word} > 500");
    }
    let severities = Severity::ALL.into_iter().map(Severity::as_str);
    let near = nearest(word, RULES.iter().map(|rule| rule.id).chain(severities));
    format!("there is no rule '{word}'{near} ('tcptrace diagnose --rules' lists them)")
}

/// Suggestions, if there are similar words.
fn nearest<'w>(typed: &str, all: impl Iterator<Item = &'w str>) -> String {
    let rated = all.map(|word| (likeness(typed, word), word));
    let mut rated: Vec<_> = rated.filter(|(likeness, _)| *likeness > SIMILAR).collect();
    rated.sort_by(|one, other| other.0.total_cmp(&one.0));
    let best = rated.first().map_or(0.0, |(likeness, _)| *likeness);
    // What is much less like it than the first one is no suggestion.
    let near = rated.iter().take_while(|(likeness, _)| best - likeness < 0.05).take(SUGGESTED);
    let near: Vec<_> = near.map(|(_, word)| format!("'{word}'")).collect();
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) }
}

/// How alike two words are, in letters of one case. Words of the same group are alike as far as what follows is.
fn likeness(typed: &str, word: &str) -> f64 {
    let [typed, word] = [typed, word].map(|it| it.to_ascii_lowercase().replace('-', "_"));
    match (typed.split_once('.'), word.split_once('.')) {
        (Some((group, one)), Some((other_group, other))) if group == other_group => strsim::jaro_winkler(one, other),
        (None, Some((_, other))) => strsim::jaro_winkler(&typed, other),
        _ => strsim::jaro_winkler(&typed, &word),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn condition(text: &str) -> Condition {
        text.parse().unwrap_or_else(|error| unreachable!("{error}"))
    }

    #[test]
    fn and_binds_more_than_or() {
        let all = condition("close-wait-leak or fd-limit AND not CLOSE_WAIT>=500");
        assert_eq!(all.rules(), ["close-wait-leak", "fd-limit"]);
        assert_eq!(all.figures().collect::<Vec<_>>(), [&Figure::Sockets(State::CloseWait)]);
        let holds = |atoms: [bool; 3]| all.holds(&atoms);
        assert!(holds([true, false, true]) && holds([false, true, false]));
        assert!(!holds([false, true, true]) && !holds([false, false, false]));
        let grouped = condition("(close-wait-leak or fd-limit) and not CLOSE_WAIT >= 500");
        assert!(!grouped.holds(&[true, false, true]));
    }

    #[rstest]
    #[case("close-wait > 5", Figure::Sockets(State::CloseWait))]
    #[case("time_wait > 5", Figure::Sockets(State::TimeWait))]
    #[case("TcpExt.ListenOverflows > 5", Figure::Growth("TcpExt.ListenOverflows".into()))]
    #[case("sockstat.TCP.orphan > 5", Figure::Level("sockstat.TCP.orphan".into()))]
    #[case("conntrack.count > 5", Figure::Level("conntrack.count".into()))]
    #[case("conntrack.drop > 5", Figure::Growth("conntrack.drop".into()))]
    fn figures(#[case] text: &str, #[case] expected: Figure) {
        assert_eq!(condition(text).atoms(), [Atom::Figure(expected, Operator::More, 5.0)]);
    }

    /// Any rule that finds something so bad.
    #[test]
    fn a_severity_is_every_rule() {
        let all = condition("Warning or CLOSE_WAIT > 5 or fd-limit");
        assert_eq!(all.rules().len(), RULES.len());
        assert_eq!(all.atoms().len(), RULES.len() + 2, "the rule alone may find less");
        let fd_limit = Atom::Rule("fd-limit", Severity::Warning);
        let atoms: Vec<bool> = all.atoms().iter().map(|atom| *atom == fd_limit).collect();
        assert!(all.holds(&atoms) && !all.holds(&vec![false; atoms.len()]));
    }

    #[test]
    fn what_comes_twice_is_one() {
        assert_eq!(condition("fd-limit or (fd-limit and CLOSE_WAIT > 1 or CLOSE_WAIT > 1)").atoms().len(), 2);
    }

    #[rstest]
    #[case::a_typo("fd-limit or close-wait-leek", 12, "did you mean 'close-wait-leak'?")]
    #[case::no_comparison("CLOSE_WAIT", 0, "needs a comparison")]
    #[case::no_rule("CLOSE_WAITS > 5", 0, "did you mean 'CLOSE_WAIT'?")]
    #[case::a_rule_compared("fd-limit > 5", 0, "leave out the comparison")]
    #[case::a_severity_compared("warning > 5", 0, "leave out the comparison")]
    #[case::no_number("CLOSE_WAIT > many", 13, "expected a number")]
    #[case::not_finite("CLOSE_WAIT > inf", 13, "expected a number")]
    #[case::nothing("", 0, "expected a rule or a figure")]
    #[case::nothing_behind("fd-limit and ", 13, "expected a rule or a figure")]
    #[case::two_rules("fd-limit close-wait-leak", 9, "expected 'and' or 'or'")]
    #[case::not_closed("(fd-limit", 9, "expected ')'")]
    #[case::not_opened("fd-limit)", 8, "closes nothing")]
    #[case::a_keyword("fd-limit or or", 12, "expected a rule or a figure")]
    #[case::a_character("fd-limit or é", 12, "unexpected character")]
    fn errors_point_at_the_place(#[case] text: &str, #[case] at: usize, #[case] what: &str) {
        let error = text.parse::<Condition>().expect_err("it is wrong");
        assert!(error.what.contains(what), "{error}");
        assert_eq!(error.at, at, "{error}");
    }

    #[test]
    fn the_caret_is_below_the_place() {
        let error = "fd-limit or close-wait-leek".parse::<Condition>().expect_err("it is wrong");
        let lines: Vec<_> = error.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines[1..], ["  fd-limit or close-wait-leek", "              ^"]);
    }

    fn known() -> Known {
        let names = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect();
        Known {
            counters: names(&["Tcp.ActiveOpens", "TcpExt.ListenDrops", "TcpExt.ListenOverflows", "TcpExt.TW"]),
            levels: names(&["Tcp.CurrEstab", "sockstat.TCP.inuse", "sockstat.TCP.orphan"]),
        }
    }

    #[rstest]
    #[case("TcpExt.ListenOverflows > 5 and sockstat.TCP.orphan > 1")]
    #[case("Tcp.CurrEstab > 5 or close-wait > 1 or fd-limit")]
    fn what_the_kernel_has_is_a_figure(#[case] text: &str) {
        Condition::parse(text, Some(&known())).unwrap_or_else(|error| unreachable!("{error}"));
    }

    /// A name that nobody has is 0 for ever: such a condition would never hold, and nobody would know.
    #[rstest]
    #[case::a_typo(
        "fd-limit or TcpExt.ListenOverflow > 5",
        12,
        "no counter 'TcpExt.ListenOverflow'; did you mean 'TcpExt.ListenOverflows'?"
    )]
    #[case::nothing_like_it("TcpExt.Foo > 5", 0, "this kernel has no counter 'TcpExt.Foo'\n")]
    #[case::another_case("TcpExt.tw > 5", 0, "did you mean 'TcpExt.TW'?")]
    #[case::another_case_of_the_group("tcpext.ListenDrops > 5", 0, "did you mean 'TcpExt.ListenDrops'?")]
    #[case::no_group("ListenDrops > 5", 0, "did you mean 'TcpExt.ListenDrops'?")]
    #[case::a_level(
        "sockstat.TCP.orphans > 5",
        0,
        "no level 'sockstat.TCP.orphans'; did you mean 'sockstat.TCP.orphan'?"
    )]
    #[case::a_constant("Tcp.RtoMin > 5", 0, "no counter 'Tcp.RtoMin'")]
    #[case::conntrack_is_not_there("conntrack.drop > 5", 0, "no counter 'conntrack.drop'")]
    fn what_the_kernel_lacks_is_refused(#[case] text: &str, #[case] at: usize, #[case] what: &str) {
        let error = Condition::parse(text, Some(&known())).expect_err("nothing has this name");
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(error.at, at, "{error}");
    }

    #[test]
    fn the_names_of_the_group_are_listed() {
        let error = Condition::parse("TcpExt.Foo > 5", Some(&known())).expect_err("nothing has this name");
        let words = "this kernel has no counter 'TcpExt.Foo'\n  TcpExt.Foo > 5\n  ^\n  known:\n    \
                     TcpExt.ListenDrops, TcpExt.ListenOverflows, TcpExt.TW";
        assert_eq!(error.to_string(), words);
        let known = Known { counters: (0..99).map(|number| format!("TcpExt.{number}").into()).collect(), ..known() };
        let error = Condition::parse("TcpExt.Foo > 5", Some(&known)).expect_err("nothing has this name").to_string();
        assert!(error.lines().all(|line| line.len() <= 100) && error.ends_with("TcpExt.98"), "{error}");
    }

    #[test]
    fn nesting_is_bounded() {
        assert!("(".repeat(100_000).parse::<Condition>().is_err());
        assert!("not ".repeat(100_000).parse::<Condition>().is_err());
    }
}
