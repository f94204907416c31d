//! What reads arguments: the door of the fuzz target.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::Parser;
use jiff::tz::TimeZone;

use super::select::{self, FilterArgs};
use super::{replay, study, usage};
use crate::kernel::Namespaces;
use crate::study::when::{Alarm, Condition, Ground};

#[derive(Parser)]
struct Typed {
    #[command(flatten)]
    filter: FilterArgs,
}

/// Reads this text as the value of each kind of option. Once it is accepted, it means something.
pub fn value(text: &str) {
    let zone = TimeZone::fixed(jiff::tz::offset(2));
    if let Ok(moment) = study::when(text) {
        for begins in [0, i64::MIN, i64::MAX, 1_700_000_000_000_000_000] {
            drop(moment.unix_ns(begins, &zone));
        }
    }
    drop((select::duration(text), select::bytes(text), select::ring_bytes(text), replay::speed(text)));
    match text.parse::<Condition>() {
        Ok(condition) => {
            let ground = Ground { whom: Box::default(), is_effect: false };
            let atoms = vec![vec![ground]; condition.atoms().len()];
            Alarm::new(condition, 1).check(0, &atoms);
        }
        Err(error) => drop(error.to_string()),
    }
}

/// Reads filters, as a shell would pass them. What is refused is quoted without anything that moves a cursor.
///
/// # Panics
/// If a control character is quoted.
pub fn filters(arguments: &[&[u8]]) {
    let words = [&b"tcptrace"[..]].into_iter().chain(arguments.iter().copied());
    let words: Vec<_> = words.map(|word| OsString::from_vec(word.to_vec())).collect();
    match usage::parse::<Typed>(&words) {
        Ok(typed) => {
            let criteria = typed.filter.criteria(&Namespaces::recorded([].into_iter()));
            drop(criteria.map(|criteria| (criteria.kernel(), criteria.is_empty())));
        }
        Err(error) => {
            let text = error.to_string();
            let is_harmless = |it: char| it == '\n' || !it.is_control();
            assert!(text.chars().all(is_harmless), "{text:?}");
        }
    }
}
