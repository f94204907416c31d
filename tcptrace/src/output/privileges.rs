//! The capabilities that tcptrace has a use for, as a table.

use std::io::{self, Write};

use super::fields::PRIVILEGE;
use super::{Csv, Format, Json};
use crate::model::privilege::{Alternative, Privilege};
use crate::model::sanitise::sanitise_message;

/// Writes one line per capability.
///
/// # Errors
/// Errors of the writer.
pub fn privileges(mut out: impl Write, format: Format, privileges: &[Privilege]) -> io::Result<()> {
    match format {
        Format::Text => text(&mut out, privileges),
        Format::Json => Json::new(out).table(&PRIVILEGE, privileges),
        Format::Csv => Csv::new(out).table(&PRIVILEGE, privileges),
    }
}

fn text(out: &mut impl Write, privileges: &[Privilege]) -> io::Result<()> {
    let width = privileges.iter().map(|privilege| privilege.name.len()).max().unwrap_or(0);
    writeln!(out, "HELD  KEPT  {:<width$}  FOR WHAT", "CAPABILITY")?;
    for Privilege { name, is_held, is_kept, purpose } in privileges {
        writeln!(out, "{:<4}  {:<4}  {name:<width$}  {purpose}", word(*is_held), word(*is_kept))?;
    }
    Ok(())
}

/// Writes, as text, which ways tcptrace does not go would be open here.
///
/// # Errors
/// Errors of the writer.
pub fn alternatives(mut out: impl Write, alternatives: &[Alternative]) -> io::Result<()> {
    let width = alternatives.iter().map(|alternative| alternative.name.len()).fold(8, usize::max);
    writeln!(out, "\nOPEN  {:<width$}  HOW, OR WHY NOT", "NOT USED")?;
    for Alternative { name, is_possible, detail } in alternatives {
        writeln!(out, "{:<4}  {name:<width$}  {}", word(*is_possible), sanitise_message(detail))?;
    }
    Ok(())
}

const fn word(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format) -> String {
        let one = |name: &str, is_held, is_kept| Privilege { name: name.into(), is_held, is_kept, purpose: "reads" };
        let all = [one("CAP_BPF", true, true), one("CAP_SYSLOG", false, false)];
        let mut out = Vec::new();
        privileges(&mut out, format, &all).expect("it is printed");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn as_a_table() {
        let expected = "HELD  KEPT  CAPABILITY  FOR WHAT\n\
                        yes   yes   CAP_BPF     reads\n\
                        no    no    CAP_SYSLOG  reads\n";
        assert_eq!(printed(Format::Text), expected);
    }

    #[test]
    fn ways_that_are_not_used() {
        let one = |name, is_possible, detail: &str| Alternative { name, is_possible, detail: detail.into() };
        let all = [one("BPF token", false, "this kernel has none"), one("pinned links", true, "in /sys/\u{1b}[2J")];
        let mut out = Vec::new();
        alternatives(&mut out, &all).expect("it is printed");
        let expected = "\nOPEN  NOT USED      HOW, OR WHY NOT\n\
                        no    BPF token     this kernel has none\n\
                        yes   pinned links  in /sys/\\x1b[2J\n";
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }

    #[test]
    fn as_rows() {
        let first = r#"{"event":"privilege","capability":"CAP_BPF","held":true,"kept":true,"purpose":"reads"}"#;
        assert_eq!(printed(Format::Json).lines().next(), Some(first));
        assert_eq!(printed(Format::Csv).lines().next(), Some("event,capability,held,kept,purpose"));
    }
}
