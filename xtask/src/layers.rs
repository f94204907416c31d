//! Checks the `use` lines of the library's modules against one table: no dependency upwards, no cycle.
//!
//! A room is a top-level module. Inside a room, the modules of one parent may use each other without cycles; a module
//! and its parent count as one. Tests may use everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use syn::visit::{self, Visit};

use crate::workspace;

/// Each room, with the rooms that it may use besides itself.
const ROOMS: [(&str, &[&str]); 9] = [
    ("model", &[]),
    ("kernel", &["model"]),
    ("engine", &["model"]),
    ("trace", &["model"]),
    ("live", &["engine", "kernel", "model"]),
    ("replay", &["engine", "model", "trace"]),
    ("study", &["engine", "model"]),
    ("output", &["model", "study"]),
    ("cli", &["engine", "kernel", "live", "model", "output", "replay", "study", "trace"]),
];

/// Parents whose modules implement parts of one shared type, and so may form cycles.
const MAY_CIRCLE: [&str; 1] = ["engine::lifecycle"];

/// Crates that only one module, with its children, may name.
const ONLY_IN: [(&str, &str); 1] = [("aya", "kernel::probe")];

/// Arguments of `layers`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print which room uses which
    #[arg(long)]
    print: bool,
}

/// Checks the library's sources.
///
/// # Errors
/// Lists each forbidden dependency.
pub(crate) fn run(args: &Args) -> Result<()> {
    let graph = Graph::read(&workspace::root().join("tcptrace/src"))?;
    if args.print {
        graph.print();
    }
    let faults = graph.faults();
    if !faults.is_empty() {
        bail!("forbidden dependencies between modules (xtask/src/layers.rs has the table):\n{}", faults.join("\n"));
    }
    println!("{} modules in {} rooms: no dependency upwards, no cycle", graph.modules.len(), ROOMS.len());
    Ok(())
}

/// The path of a module below the crate's root.
type Module = Vec<String>;

#[derive(Default)]
struct Graph {
    modules: BTreeSet<Module>,
    /// Each module, with the modules that it uses.
    arrows: BTreeSet<(Module, Module)>,
    /// Restricted crates, with the modules that name them.
    crates: BTreeSet<(String, Module)>,
}

impl Graph {
    fn read(sources: &Path) -> Result<Self> {
        let mut files = Vec::new();
        find(sources, &mut Vec::new(), &mut files)?;
        let mut graph = Self { modules: files.iter().map(|(module, _)| module.clone()).collect(), ..Self::default() };
        for (module, path) in files.iter().filter(|(module, _)| !is_test(module)) {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let file = syn::parse_file(&text).with_context(|| format!("cannot parse {}", path.display()))?;
            let mut paths = Paths::default();
            paths.visit_file(&file);
            paths.0.iter().for_each(|path| graph.note(module, path));
        }
        Ok(graph)
    }

    /// Records that a module names this path.
    fn note(&mut self, module: &Module, path: &[String]) {
        let mut names = path.iter().map(String::as_str).peekable();
        let mut place = match names.peek() {
            Some(&"crate") => Vec::new(),
            Some(&("self" | "super")) => module.clone(),
            Some(first) if self.modules.contains(&joined(module, first)) => module.clone(),
            Some(first) => {
                self.crates.insert(((*first).to_owned(), module.clone()));
                return;
            }
            None => return,
        };
        for name in names {
            match name {
                "crate" | "self" => {}
                "super" => drop(place.pop()),
                _ if self.modules.contains(&joined(&place, name)) => place.push(name.to_owned()),
                _ => break,
            }
        }
        if place != *module && !place.is_empty() && !is_test(&place) {
            self.arrows.insert((module.clone(), place));
        }
    }

    fn faults(&self) -> Vec<String> {
        let upwards = self.arrows.iter().filter(|(from, to)| from[0] != to[0] && !may_use(&from[0], &to[0]));
        let upwards = upwards.map(|(from, to)| format!("  {} uses {}", from.join("::"), to.join("::")));
        let circles = self.circles().into_iter().map(|names| format!("  in a cycle: {}", names.join(", ")));
        let crates = self.crates.iter().filter(|(name, module)| {
            let only = ONLY_IN.iter().find(|(only, _)| only == name);
            only.is_some_and(|(_, place)| !format!("{}::", module.join("::")).starts_with(&format!("{place}::")))
        });
        let crates = crates.map(|(name, module)| format!("  {} names the crate {name}", module.join("::")));
        upwards.chain(circles).chain(crates).collect()
    }

    /// Cycles among modules of one parent, each with its children.
    fn circles(&self) -> Vec<Vec<String>> {
        let mut siblings: BTreeMap<&[String], BTreeSet<(&str, &str)>> = BTreeMap::new();
        for (from, to) in &self.arrows {
            let common = from.iter().zip(to).take_while(|(from, to)| from == to).count();
            if let (Some(one), Some(other)) = (from.get(common), to.get(common)) {
                siblings.entry(&from[..common]).or_default().insert((one, other));
            }
        }
        siblings.retain(|parent, _| !MAY_CIRCLE.contains(&&*parent.join("::")));
        let circles = siblings.into_iter().map(|(parent, arrows)| {
            circle(arrows).into_iter().map(|name| joined(parent, name).join("::")).collect::<Vec<_>>()
        });
        circles.filter(|circle| !circle.is_empty()).collect()
    }

    fn print(&self) {
        for (room, _) in ROOMS {
            let used = self.arrows.iter().filter(|(from, to)| from[0] == room && to[0] != room);
            let used: BTreeSet<&str> = used.map(|(_, to)| to[0].as_str()).collect();
            println!("{room:8} uses {}", used.into_iter().collect::<Vec<_>>().join(", "));
        }
    }
}

fn may_use(from: &str, to: &str) -> bool {
    ROOMS.iter().any(|(room, used)| *room == from && used.contains(&to))
}

/// Removes modules that use none of the others, or that none of the others uses, until only cycles are left.
fn circle<'n>(mut arrows: BTreeSet<(&'n str, &'n str)>) -> BTreeSet<&'n str> {
    loop {
        let users: BTreeSet<&str> = arrows.iter().map(|(from, _)| *from).collect();
        let used: BTreeSet<&str> = arrows.iter().map(|(_, to)| *to).collect();
        let before = arrows.len();
        arrows.retain(|(from, to)| used.contains(from) && users.contains(to));
        if arrows.len() == before {
            return users;
        }
    }
}

fn joined(parent: &[String], name: &str) -> Module {
    [parent, &[name.to_owned()]].concat()
}

/// Names of test modules.
fn is_test(module: &[String]) -> bool {
    module.iter().any(|name| matches!(name.as_str(), "tests" | "testing" | "samples"))
}

/// Finds the modules below a folder; files directly in the root are not below a room.
fn find(folder: &Path, parent: &mut Module, files: &mut Vec<(Module, PathBuf)>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
        parent.push(name.to_owned());
        if path.is_dir() {
            find(&path, parent, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !(parent.len() == 1 && matches!(name, "lib" | "main"))
        {
            files.push((parent.clone(), path.clone()));
        }
        parent.pop();
    }
    Ok(())
}

/// The paths that a file names outside its tests and its documentation.
#[derive(Default)]
struct Paths(BTreeSet<Vec<String>>);

impl Paths {
    fn note_uses(&mut self, before: &[String], tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => self.note_uses(&joined(before, &path.ident.to_string()), &path.tree),
            syn::UseTree::Name(name) => drop(self.0.insert(joined(before, &name.ident.to_string()))),
            syn::UseTree::Rename(name) => drop(self.0.insert(joined(before, &name.ident.to_string()))),
            syn::UseTree::Glob(_) => drop(self.0.insert(before.to_vec())),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.note_uses(before, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        let is_test = |attribute: &syn::Attribute| {
            attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|of| of == "test")
        };
        if !attributes.iter().any(is_test) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.note_uses(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        // A single name was imported or declared here.
        if path.segments.len() > 1 {
            self.0.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
            fs::write(path, text).expect("written");
        }
        Graph::read(folder.path()).expect("sources").faults()
    }

    #[test]
    fn whatever_may_be_used() {
        let faults = graph(&[
            ("lib.rs", "pub mod model; pub mod engine;"),
            ("model.rs", "pub mod row;"),
            ("model/row.rs", "//! [`crate::engine`]\nuse super::Word;"),
            ("engine.rs", "use crate::model::{self, row::Row}; #[cfg(test)] mod tests { use crate::cli::main; }"),
            ("engine/tests.rs", "use crate::cli::main;"),
            ("cli.rs", "use crate::engine::Engine; fn main() { crate::model::row::new() }"),
        ]);
        assert_eq!(faults, [""; 0]);
    }

    #[test]
    fn arrows_upwards() {
        let faults = graph(&[
            ("model.rs", ""),
            ("model/row.rs", "fn row() -> crate::engine::Row { aya::load() }"),
            ("engine.rs", "use super::output::{text, json::Json};"),
            ("output.rs", ""),
            ("output/json.rs", ""),
        ]);
        let expected = [
            "  engine uses output",
            "  engine uses output::json",
            "  model::row uses engine",
            "  model::row names the crate aya",
        ];
        assert_eq!(faults, expected);
    }

    #[test]
    fn circles() {
        let faults = graph(&[
            ("study.rs", "use self::report::Report;"),
            ("study/report.rs", "use super::rows::Row;"),
            ("study/report/deep.rs", "use crate::study::rows::Row;"),
            ("study/rows.rs", "use super::series::rate;"),
            ("study/series.rs", "use super::report::deep::Report;"),
            ("study/leaf.rs", "use super::rows::Row;"),
        ]);
        assert_eq!(faults, ["  in a cycle: study::report, study::rows, study::series"]);
    }
}
