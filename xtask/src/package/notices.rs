//! The copyright notices and licences of the crates in the program, which its packages must include.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::crates::{Crate, Crates};

/// How the names of such files begin.
const NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];

const INTRODUCTION: &str =
    "tcptrace is one program. Besides its own code, it contains the crates below, and code in other
languages that some of them bring along. Each text is followed by the next one; the crates that it
belongs to are named above it, with the licence that they declare.

It also contains Rust's standard library, (c) The Rust Project Developers, MIT OR Apache-2.0, and,
where it is linked statically, parts of the GNU C Library, LGPL-2.1-or-later.
";

/// All of them, each text once.
pub(super) fn collect(crates: &Crates) -> Result<String> {
    let mut texts: BTreeMap<String, Vec<&Crate>> = BTreeMap::new();
    let mut without = Vec::new();
    for it in crates.iter() {
        let files = files(it)?;
        if files.is_empty() {
            without.push(it);
        }
        for file in files {
            let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            texts.entry(tidied(&String::from_utf8_lossy(&text))).or_default().push(it);
        }
    }
    Ok(write(texts, &without))
}

/// The same texts differ in the ends of their lines.
fn tidied(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

fn write(texts: BTreeMap<String, Vec<&Crate>>, without: &[&Crate]) -> String {
    let by_crate = texts.into_iter().map(|(text, mut crates)| {
        crates.dedup();
        (crates, text)
    });
    let mut sorted: Vec<_> = by_crate.collect();
    sorted.sort();
    let mut all = INTRODUCTION.to_owned();
    if !without.is_empty() {
        all.push_str("\nWithout a text of their own:\n");
        for it in without {
            let _ = writeln!(all, "  {} by {}", named(it), it.authors.join(", "));
        }
    }
    for (crates, text) in sorted {
        let names: Vec<_> = crates.into_iter().map(named).collect();
        let _ = write!(all, "\n{}\n{}\n\n{text}\n", "-".repeat(80), names.join("\n"));
    }
    all
}

fn named(it: &Crate) -> String {
    format!("{} {} ({})", it.name, it.version, it.licence)
}

/// Foreign code has its own licence in its folder.
fn files(it: &Crate) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in list(&it.folder)? {
        if path.is_file() && is_notice(&path) {
            found.push(path);
        } else if it.has_foreign_code && path.is_dir() {
            found.extend(list(&path)?.into_iter().filter(|path| path.is_file() && is_notice(path)));
        }
    }
    found.sort();
    Ok(found)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.with_context(|| format!("cannot list {}", folder.display()))?;
    Ok(entries.into_iter().map(|entry| entry.path()).collect())
}

fn is_notice(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    NAMES.iter().any(|begin| name.starts_with(begin)) && !name.ends_with(".RS")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Crate {
        Crate {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            licence: "MIT".to_owned(),
            authors: vec!["Somebody".to_owned()],
            folder: PathBuf::new(),
            has_foreign_code: false,
        }
    }

    #[test]
    fn a_text_is_written_once_with_all_its_crates() {
        let [a, b, c] = ["a", "b", "c"].map(of);
        let texts = [("Shared".to_owned(), vec![&a, &b, &b]), ("Own".to_owned(), vec![&b])];
        let written = write(texts.into_iter().collect(), &[&c]);
        assert_eq!(written.matches("Shared").count(), 1);
        assert!(written.contains("\na 1.0.0 (MIT)\nb 1.0.0 (MIT)\n\nShared\n"), "{written}");
        assert!(written.contains("\nb 1.0.0 (MIT)\n\nOwn\n"), "{written}");
        assert!(written.contains("  c 1.0.0 (MIT) by Somebody\n"), "{written}");
    }

    #[test]
    fn texts_differ_by_their_words_only() {
        assert_eq!(tidied("\r\nA \r\n\r\nB\r\n"), tidied("A\n\nB"));
    }

    #[test]
    fn notices_are_found_by_name() {
        let is = |name: &str| is_notice(Path::new(name));
        assert!(["LICENSE", "LICENSE-MIT", "license.md", "COPYING", "NOTICE.txt", "Copyright"].into_iter().all(is));
        assert!(!["README.md", "src", "license.rs", "unlicensed"].into_iter().any(is));
    }
}
