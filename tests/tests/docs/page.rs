//! The pages, and the commands in them.

use std::fs;
use std::path::{Path, PathBuf};

/// A page of Markdown.
pub(crate) struct Page {
    /// Its path in the repository.
    pub(crate) name: String,
    /// Its blocks with commands, in order.
    pub(crate) blocks: Vec<Block>,
    /// Its other lines.
    pub(crate) prose: Vec<String>,
    /// Output that a test cannot repeat, with its commands.
    pub(crate) samples: Vec<String>,
}

/// A block of commands.
pub(crate) struct Block {
    /// The heading above it, up to a colon.
    pub(crate) section: String,
    /// Line of its first command.
    pub(crate) line: usize,
    /// Its text.
    pub(crate) text: String,
    is_console: bool,
}

/// Commands that run together, and their output.
pub(crate) struct Step {
    /// Line in the page.
    pub(crate) line: usize,
    /// The text to type.
    pub(crate) typed: String,
    /// The lines of output in the page; a `sh` block has none.
    pub(crate) shown: Option<Vec<String>>,
}

/// Every page, sorted by name.
pub(crate) fn pages() -> Vec<Page> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let docs = fs::read_dir(root.join("tcptrace/docs")).expect("the pages").map(|file| file.expect("a page").path());
    let mut paths: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|is| is == "md")).collect();
    paths.extend(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(root).expect("a file in the repository").to_str().expect("UTF-8");
        Page::parse(name, &fs::read_to_string(path).expect("read a page"))
    };
    paths.iter().map(read).collect()
}

impl Page {
    /// Parses its text.
    pub(crate) fn parse(name: &str, text: &str) -> Self {
        let mut page = Self { name: name.to_owned(), blocks: Vec::new(), prose: Vec::new(), samples: Vec::new() };
        let mut section = String::new();
        let mut lines = (1..).zip(text.lines());
        while let Some((number, line)) = lines.next() {
            if let Some(kind) = line.strip_prefix("```") {
                let inside: Vec<&str> =
                    lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
                page.add(kind, &section, number + 1, &inside);
            } else {
                if let Some(heading) = line.strip_prefix("## ") {
                    section = heading.split(':').next().unwrap_or(heading).to_owned();
                }
                page.prose.push(line.to_owned());
            }
        }
        page
    }

    fn add(&mut self, kind: &str, section: &str, line: usize, inside: &[&str]) {
        match kind {
            "sh" | "console" => {
                let (section, text) = (section.to_owned(), inside.join("\n"));
                self.blocks.push(Block { section, line, text, is_console: kind == "console" });
            }
            "text" => self.samples.extend(inside.iter().map(|&line| line.to_owned())),
            "sql" => {}
            other => panic!("{}:{line}: CONTRIBUTING.md knows no block of the kind `{other}`", self.name),
        }
    }
}

impl Block {
    /// The commands to run, in order.
    pub(crate) fn steps(&self) -> Vec<Step> {
        if !self.is_console {
            return vec![Step { line: self.line, typed: self.text.clone(), shown: None }];
        }
        let mut steps: Vec<Step> = Vec::new();
        for (line, text) in (self.line..).zip(self.text.lines()) {
            match (text.strip_prefix("$ "), steps.last_mut()) {
                (Some(typed), _) => steps.push(Step { line, typed: typed.to_owned(), shown: Some(Vec::new()) }),
                (None, Some(step)) => step.shown.iter_mut().for_each(|shown| shown.push(text.to_owned())),
                (None, None) => panic!("line {line}: output without a command"),
            }
        }
        steps
    }
}

#[test]
fn a_page_is_read_as_its_readers_read_it() {
    let text =
        "# Page\n\n## First: one\n\n```sh\na &\nb\n```\n\nSay `x`.\n\n## Second\n\n```console\n$ c\nsaid\n$ d\n```\n";
    let page = Page::parse("page.md", text);
    let steps: Vec<_> = page.blocks.iter().flat_map(Block::steps).collect();
    let steps: Vec<_> = steps.iter().map(|step| (step.line, step.typed.as_str(), step.shown.as_deref())).collect();
    let said = ["said".to_owned()];
    assert_eq!(steps, [(6, "a &\nb", None), (15, "c", Some(&said[..])), (17, "d", Some(&[]))]);
    assert_eq!(page.blocks.iter().map(|block| &block.section).collect::<Vec<_>>(), ["First", "Second"]);
}
