//! The crates that the program is made of.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::command;

/// The crates in the program's dependency tree that are not of this workspace, sorted.
pub(super) struct Crates(Vec<Crate>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Crate {
    pub(super) name: String,
    pub(super) version: String,
    /// Its SPDX expression.
    pub(super) licence: String,
    pub(super) authors: Vec<String>,
    /// The folder of its sources.
    pub(super) folder: PathBuf,
    /// Whether it contains code in another language.
    pub(super) has_foreign_code: bool,
}

impl Crates {
    /// Asks Cargo.
    pub(super) fn of_tcptrace() -> Result<Self> {
        let mut cargo = command::cargo();
        cargo.args(["metadata", "--locked", "--format-version", "1", "--filter-platform", &super::build::triple()]);
        let metadata = serde_json::from_str(&command::output(&mut cargo)?).context("cannot read Cargo's metadata")?;
        Self::below("tcptrace", &metadata).context("Cargo's metadata is not as expected")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Crate> {
        self.0.iter()
    }

    /// The folders that contain the crates' folders.
    pub(super) fn registries(&self) -> BTreeSet<&Path> {
        self.iter().filter_map(|it| it.folder.parent()).collect()
    }

    /// Follows the dependencies of a package, except those of builds and tests, and macros, whose code runs in the compiler.
    fn below(name: &str, metadata: &Value) -> Option<Self> {
        let packages = metadata["packages"].as_array()?;
        let nodes = metadata["resolve"]["nodes"].as_array()?;
        let package = |id: &Value| packages.iter().find(|package| package["id"] == *id);
        let first = packages.iter().find(|package| package["name"] == name && package["source"].is_null())?;
        let (mut seen, mut found, mut next) = (BTreeSet::new(), BTreeSet::new(), vec![&first["id"]]);
        while let Some(id) = next.pop() {
            let package = package(id)?;
            if is_macro(package) || !seen.insert(id.as_str()?) {
                continue;
            }
            if !package["source"].is_null() {
                found.insert(Crate::parse(package)?);
            }
            let node = nodes.iter().find(|node| node["id"] == *id)?;
            let linked = node["deps"].as_array()?.iter().filter(|dependency| is_linked(dependency));
            next.extend(linked.map(|dependency| &dependency["pkg"]));
        }
        Some(Self(found.into_iter().collect()))
    }
}

impl Crate {
    fn parse(package: &Value) -> Option<Self> {
        let text = |field: &str| package[field].as_str().map(str::to_owned);
        let authors = package["authors"].as_array().into_iter().flatten();
        Some(Self {
            name: text("name")?,
            version: text("version")?,
            licence: text("license").unwrap_or_default(),
            authors: authors.filter_map(Value::as_str).map(str::to_owned).collect(),
            folder: Path::new(package["manifest_path"].as_str()?).parent()?.to_owned(),
            has_foreign_code: !package["links"].is_null(),
        })
    }
}

fn is_macro(package: &Value) -> bool {
    let targets = package["targets"].as_array().into_iter().flatten();
    targets.flat_map(|target| target["kind"].as_array()).flatten().any(|kind| kind == "proc-macro")
}

fn is_linked(dependency: &Value) -> bool {
    dependency["dep_kinds"].as_array().into_iter().flatten().any(|kind| kind["kind"].is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_crates_that_are_linked_count() {
        let package = |name: &str, source: Option<&str>, kind: &str| {
            json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT", "authors": [], "links": null,
                "source": source, "manifest_path": format!("/r/{name}-1.0.0/Cargo.toml"), "targets": [{"kind": [kind]}]})
        };
        let node = |name: &str, deps: &[(&str, Option<&str>)]| {
            let deps = deps.iter().map(|(pkg, kind)| json!({"pkg": pkg, "dep_kinds": [{"kind": kind}]}));
            json!({"id": name, "deps": deps.collect::<Vec<_>>()})
        };
        let metadata = json!({
            "packages": [package("tcptrace", None, "lib"), package("common", None, "lib"), package("a", Some("r"), "lib"),
                package("cc", Some("r"), "lib"), package("derive", Some("r"), "proc-macro"), package("b", Some("r"), "lib")],
            "resolve": {"nodes": [node("tcptrace", &[("common", None), ("cc", Some("build")), ("derive", None)]),
                node("common", &[("a", None)]), node("a", &[("b", None), ("cc", Some("dev"))]),
                node("b", &[("a", None)]), node("cc", &[]), node("derive", &[("cc", None)])]},
        });
        let crates = Crates::below("tcptrace", &metadata).expect("crates");
        assert_eq!(crates.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(crates.registries().into_iter().collect::<Vec<_>>(), [Path::new("/r")]);
    }
}
