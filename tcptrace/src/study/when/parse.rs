//! Reads a condition. An error points at the place.

use std::fmt;
use std::str::FromStr;

use super::{Atom, Condition, Figure, Node, Operator};
use crate::model::tcp::State;
use crate::study::diagnose::{RULES, rule};

/// The groups of the kernel's names: counters, and levels.
const COUNTERS: [&str; 3] = ["Tcp.", "TcpExt.", "conntrack."];
const LEVELS: [&str; 3] = ["sockstat.", "conntrack.count", "conntrack.max"];
/// How deep parentheses and `not` may be nested.
const DEEPEST: usize = 32;
/// How alike a word must be to be suggested.
const SIMILAR: f64 = 0.7;

/// Why something is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct WhenError {
    text: Box<str>,
    /// In bytes.
    at: usize,
    what: String,
}

impl fmt::Display for WhenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = self.text.get(..self.at).unwrap_or_default().chars().count();
        write!(f, "{}\n  {}\n  {:before$}^", self.what, self.text, "")
    }
}

impl FromStr for Condition {
    type Err = WhenError;

    fn from_str(text: &str) -> Result<Self, WhenError> {
        let mut parser = Parser { text, at: 0, depth: 0, atoms: Vec::new() };
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
        WhenError { text: self.text.into(), at: self.at, what: what.into() }
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
            let figure = figure(word).map_err(|what| WhenError { at: begins, ..self.wrong(what) })?;
            self.next();
            Atom::Figure(figure, operator, self.number()?)
        } else {
            let found = rule(word).ok_or_else(|| WhenError { at: begins, ..self.wrong(unknown_rule(word)) })?;
            Atom::Rule(found.id)
        };
        let place = self.atoms.iter().position(|known| *known == atom).unwrap_or_else(|| {
            self.atoms.push(atom);
            self.atoms.len() - 1
        });
        Ok(Node::Atom(place))
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

/// The figure of a name.
fn figure(word: &str) -> Result<Figure, String> {
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
    if rule(word).is_some() {
        return Err(format!("'{word}' is a rule, which holds or does not: leave out the comparison"));
    }
    let near = nearest(&spelt, State::ALL.iter().map(|state| state.as_str()));
    Err(format!(
        "there is no figure '{word}'{near}; figures are states (CLOSE_WAIT), counters (TcpExt.ListenOverflows) and levels \
         (sockstat.TCP.orphan)"
    ))
}

fn unknown_rule(word: &str) -> String {
    if figure(word).is_ok() {
        return format!("'{word}' needs a comparison, such as {word} > 500");
    }
    let near = nearest(word, RULES.iter().map(|rule| rule.id));
    format!("there is no rule '{word}'{near} ('tcptrace diagnose --rules' lists them)")
}

/// A suggestion, if there is a similar word.
fn nearest<'w>(typed: &str, all: impl Iterator<Item = &'w str>) -> String {
    let rated = all.map(|word| (strsim::jaro_winkler(typed, word), word));
    let best = rated.filter(|(likeness, _)| *likeness > SIMILAR).max_by(|one, other| one.0.total_cmp(&other.0));
    best.map(|(_, word)| format!("; did you mean '{word}'?")).unwrap_or_default()
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

    #[test]
    fn what_comes_twice_is_one() {
        assert_eq!(condition("fd-limit or (fd-limit and CLOSE_WAIT > 1 or CLOSE_WAIT > 1)").atoms().len(), 2);
    }

    #[rstest]
    #[case::a_typo("fd-limit or close-wait-leek", 12, "did you mean 'close-wait-leak'?")]
    #[case::no_comparison("CLOSE_WAIT", 0, "needs a comparison")]
    #[case::no_rule("CLOSE_WAITS > 5", 0, "did you mean 'CLOSE_WAIT'?")]
    #[case::a_rule_compared("fd-limit > 5", 0, "is a rule")]
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

    #[test]
    fn nesting_is_bounded() {
        assert!("(".repeat(100_000).parse::<Condition>().is_err());
        assert!("not ".repeat(100_000).parse::<Condition>().is_err());
    }
}
