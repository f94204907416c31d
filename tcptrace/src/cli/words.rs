//! Words on the command line: accepted in every usual spelling. An error names the nearest word.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Error};

use crate::model::feature::Feature;
use crate::model::tcp::{Closer, State};
use crate::study::diagnose::RULES;
use crate::study::diagnose::rule::Rule;

/// Accepts one word of a list. Case, hyphens, underscores and a leading `TCP_` make no difference.
#[derive(Clone, Copy)]
pub(super) struct Words<T: 'static> {
    all: &'static [T],
    word: fn(T) -> &'static str,
    /// The spellings of other tools, normalised by [`key`].
    synonyms: &'static [(&'static str, T)],
}

/// States, as tcptrace, `ss`, `netstat`, bcc's tools and RFC 9293 spell them.
pub(super) fn states() -> Words<State> {
    const SYNONYMS: &[(&str, State)] = &[
        ("estab", State::Established),
        ("listening", State::Listen),
        ("close", State::Closed),
        ("unconn", State::Closed),
        ("synrcvd", State::SynRecv),
        ("synreceived", State::SynRecv),
        ("newsynrecv", State::SynRecv),
    ];
    Words { all: &State::ALL, word: State::as_str, synonyms: SYNONYMS }
}

pub(super) fn closers() -> Words<Closer> {
    Words { all: &Closer::ALL, word: Closer::as_str, synonyms: &[] }
}

/// Features that tcptrace can go without, as `check` names them.
pub(super) fn features() -> Words<Feature> {
    Words { all: &OPTIONAL, word: Feature::as_str, synonyms: &[] }
}

/// All but the transitions.
const OPTIONAL: [Feature; 10] = [
    Feature::Destroy,
    Feature::ResetSent,
    Feature::ResetReceived,
    Feature::MiniCreated,
    Feature::MiniExpired,
    Feature::MiniKilled,
    Feature::MiniFin,
    Feature::Accept,
    Feature::FailedCalls,
    Feature::Holders,
];

/// Rules of `diagnose`, by their ids.
pub(super) fn rules() -> Words<&'static Rule> {
    Words { all: RULES, word: |rule| rule.id, synonyms: &[] }
}

impl<T: Copy> Words<T> {
    /// Every spelling, normalised by [`key`], with its value.
    fn spellings(&self) -> impl DoubleEndedIterator<Item = (String, T)> {
        let own = self.all.iter().map(|value| (key((self.word)(*value)), *value));
        own.chain(self.synonyms.iter().map(|(synonym, value)| ((*synonym).to_owned(), *value)))
    }

    fn find(&self, typed: &str) -> Option<T> {
        let typed = key(typed);
        self.spellings().find(|(spelling, _)| *spelling == typed).map(|(_, value)| value)
    }

    /// The most similar word, if there is a similar one.
    fn nearest(&self, typed: &str) -> Option<&'static str> {
        const SIMILAR: f64 = 0.7;
        let typed = key(typed);
        // `max_by` returns the last of equals; reversed, that is the first.
        let rated = self.spellings().rev().map(|(spelling, value)| (strsim::jaro_winkler(&typed, &spelling), value));
        let best = rated.filter(|(similarity, _)| *similarity > SIMILAR).max_by(|one, other| one.0.total_cmp(&other.0));
        best.map(|(_, value)| (self.word)(value))
    }

    fn unknown(&self, command: &Command, arg: Option<&Arg>, typed: &str) -> Error {
        let mut error = Error::new(ErrorKind::InvalidValue).with_cmd(command);
        let names = self.all.iter().map(|value| (self.word)(*value).to_owned()).collect();
        let arg = arg.map_or_else(|| "...".to_owned(), ToString::to_string);
        error.insert(ContextKind::InvalidArg, ContextValue::String(arg));
        error.insert(ContextKind::InvalidValue, ContextValue::String(typed.to_owned()));
        error.insert(ContextKind::ValidValue, ContextValue::Strings(names));
        if let Some(nearest) = self.nearest(typed) {
            error.insert(ContextKind::SuggestedValue, ContextValue::String(nearest.to_owned()));
        }
        error
    }
}

impl<T: Copy + Send + Sync + 'static> TypedValueParser for Words<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, Error> {
        let typed = value.to_str().ok_or_else(|| Error::new(ErrorKind::InvalidUtf8).with_cmd(command))?;
        self.find(typed).ok_or_else(|| self.unknown(command, arg, typed))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.all.iter().map(|value| PossibleValue::new((self.word)(*value)))))
    }
}

/// A word without hyphens, underscores, spaces, case and a leading `TCP_`.
fn key(word: &str) -> String {
    let letters = word.chars().filter(|letter| !matches!(letter, '-' | '_' | ' '));
    let key: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
    key.strip_prefix("tcp").map(str::to_owned).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The spellings of `ss state`, `netstat`, bcc, the kernel, the RFC and people.
    #[rstest]
    #[case(State::Closed, &["CLOSED", "closed", "UNCONN", "CLOSE", "TCP_CLOSE"])]
    #[case(State::Listen, &["LISTEN", "listening", "listen"])]
    #[case(State::SynSent, &["SYN_SENT", "syn-sent", "SYN-SENT", "synsent"])]
    #[case(State::SynRecv, &["SYN_RECV", "syn-recv", "SYN-RECEIVED", "SYN_RCVD", "TCP_NEW_SYN_RECV", "syn_received"])]
    #[case(State::Established, &["ESTABLISHED", "established", "ESTAB", "estab", "TCP_ESTABLISHED", "Established"])]
    #[case(State::FinWait1, &["FIN_WAIT1", "fin-wait-1", "FIN-WAIT-1", "fin_wait_1", "finwait1", "FIN_WAIT_1"])]
    #[case(State::FinWait2, &["FIN_WAIT2", "fin-wait-2", "fin_wait2", "FINWAIT2", "fin-wait2"])]
    #[case(State::CloseWait, &["CLOSE_WAIT", "close-wait", "closewait", "CLOSE-WAIT", "close wait", "CloseWait"])]
    #[case(State::Closing, &["CLOSING", "closing"])]
    #[case(State::LastAck, &["LAST_ACK", "last-ack", "lastack"])]
    #[case(State::TimeWait, &["TIME_WAIT", "time-wait", "timewait", "TIME-WAIT", "TCP_TIME_WAIT"])]
    fn spellings_of_states(#[case] expected: State, #[case] spellings: &[&str]) {
        for spelling in spellings {
            assert_eq!(states().find(spelling), Some(expected), "{spelling}");
        }
    }

    #[rstest]
    #[case("reset-local", Closer::ResetLocal)]
    #[case("never_established", Closer::NeverEstablished)]
    #[case("ACTIVE", Closer::Active)]
    fn spellings_of_closers(#[case] spelling: &str, #[case] expected: Closer) {
        assert_eq!(closers().find(spelling), Some(expected));
    }

    #[rstest]
    #[case("close-wiat", Some("CLOSE_WAIT"))]
    #[case("CLOSEWAITT", Some("CLOSE_WAIT"))]
    #[case("estabilshed", Some("ESTABLISHED"))]
    #[case("fin-wait-3", Some("FIN_WAIT1"))]
    #[case("timed-wait", Some("TIME_WAIT"))]
    #[case("lisen", Some("LISTEN"))]
    #[case("syn", Some("SYN_SENT"))]
    #[case("bogus", None)]
    #[case("", None)]
    fn nearest_states(#[case] typed: &str, #[case] expected: Option<&str>) {
        assert_eq!(states().find(typed), None);
        assert_eq!(states().nearest(typed), expected);
    }

    /// No spelling has two meanings, and every printed one is accepted.
    #[test]
    fn spellings_are_unambiguous() {
        let mut keys: Vec<String> = states().spellings().map(|(spelling, _)| spelling).collect();
        keys.sort();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
        assert!(State::ALL.iter().all(|state| states().find(state.as_str()) == Some(*state)));
        assert!(Closer::ALL.iter().all(|closer| closers().find(closer.as_str()) == Some(*closer)));
    }
}
