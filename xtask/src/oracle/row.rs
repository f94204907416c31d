//! Rows of tcptrace, with the fields that are compared.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::actor::{PORT, life_at};

/// A row of `connections --format json`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) netns: u64,
    pub(super) value: Value,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// Its beginning, in ns of `CLOCK_BOOTTIME`.
    pub(super) begun: u64,
}

impl Row {
    fn parse(line: &str) -> Result<Option<Self>> {
        let value: Value = serde_json::from_str(line).with_context(|| format!("tcptrace printed `{line}`"))?;
        if value["event"] != "connection" {
            return Ok(None);
        }
        let address = |name: &str| {
            let text = value[name].as_str().unwrap_or_default();
            parse(text).with_context(|| format!("`{text}` is no address"))
        };
        let lasted: u64 = states(&value).map(|(_, ns, _)| ns).sum();
        let (local, remote) = (address("local")?, address("remote")?);
        let begun = value["boot_ns"].as_u64().context("a row without a time")?.saturating_sub(lasted);
        let netns = value["netns"].as_u64().context("a row without a network namespace")?;
        Ok(Some(Self { netns, local, remote, begun, value }))
    }

    /// The number of its life.
    pub(super) fn life(&self) -> Option<usize> {
        [self.local, self.remote].into_iter().find_map(life)
    }

    /// Its states, each with its duration and whether that is a lower bound.
    pub(super) fn states(&self) -> impl Iterator<Item = (&str, u64, bool)> {
        states(&self.value)
    }
}

/// An address without its interface.
fn parse(text: &str) -> Option<SocketAddr> {
    let Some((ip, rest)) = text.split_once('%') else { return text.parse().ok() };
    format!("{ip}{}", &rest[rest.find(']')?..]).parse().ok()
}

/// The life whose server has this address.
pub(super) fn life(server: SocketAddr) -> Option<usize> {
    if server.port() != PORT {
        return None;
    }
    life_at(server.ip())
}

fn states(value: &Value) -> impl Iterator<Item = (&str, u64, bool)> {
    value["states"].as_array().into_iter().flatten().map(|stay| {
        let name = stay["state"].as_str().unwrap_or("?");
        (name, stay["ns"].as_u64().unwrap_or(0), stay["at_least"].as_bool().unwrap_or(true))
    })
}

/// All rows of a file by network namespace, and the lines themselves.
pub(super) fn read(file: &Path) -> Result<HashMap<u64, Vec<Row>>> {
    let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut rows: HashMap<u64, Vec<Row>> = HashMap::new();
    for line in BufReader::new(opened).lines() {
        if let Some(row) = Row::parse(&line.context("cannot read a row")?)? {
            rows.entry(row.netns).or_default().push(row);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other programs' rows may be among them, if a network namespace reuses the number of a destroyed one.
    #[test]
    fn an_address_may_have_an_interface() {
        for (text, expected) in [
            ("[fe80::a%near0]:44399", Some("[fe80::a]:44399")),
            ("[fd00::1]:7000", Some("[fd00::1]:7000")),
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("[fe80::a%near0:1", None),
            ("%", None),
        ] {
            assert_eq!(parse(text).map(|address| address.to_string()).as_deref(), expected, "{text}");
        }
    }
}
