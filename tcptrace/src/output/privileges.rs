//! The capabilities that tcptrace has a use for, as a table.

use std::io::{self, Write};

use super::fields::PRIVILEGE;
use super::{Csv, Format, Json};
use crate::model::privilege::Privilege;

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
    let word = |is_so: bool| if is_so { "yes" } else { "no" };
    writeln!(out, "HELD  KEPT  {:<width$}  FOR WHAT", "CAPABILITY")?;
    for Privilege { name, is_held, is_kept, purpose } in privileges {
        writeln!(out, "{:<4}  {:<4}  {name:<width$}  {purpose}", word(*is_held), word(*is_kept))?;
    }
    Ok(())
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
    fn as_rows() {
        let first = r#"{"event":"privilege","capability":"CAP_BPF","held":true,"kept":true,"purpose":"reads"}"#;
        assert_eq!(printed(Format::Json).lines().next(), Some(first));
        assert_eq!(printed(Format::Csv).lines().next(), Some("event,capability,held,kept,purpose"));
    }
}
