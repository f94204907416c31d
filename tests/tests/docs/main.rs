//! Runs the commands of the pages, and compares their output with the pages.
//!
//! Needs root, iproute2, procps and Python. The first incident of the guide takes a minute and a half, because a
//! TIME_WAIT takes a minute; everything else runs at the same time and ends earlier.
#![expect(clippy::panic, reason = "a panic is how a test fails")]

// The tests' own `#[test]`, in every module.
#[macro_use(test)]
extern crate tcptrace_tests;

mod guide;
mod options;
mod page;
mod shape;
mod walk;

use page::{Page, pages};
use tcptrace_tests::ability::{kernel, need_root};
use tcptrace_tests::attempt::skip;
use walk::Walk;

/// Blocks that are not run: the beginning of each, and the reason.
const LEFT_OUT: [(&str, &str); 4] = [
    ("cargo run --release --no-default-features -- watch", "builds the program, and runs until Ctrl-C"),
    ("cargo xtask test", "runs this test"),
    ("cargo xtask ebpf ", "needs a toolchain for eBPF; CI runs it"),
    ("cargo xtask vm ", "boots other kernels, which takes minutes; CI runs it"),
];

/// The first kernel that measures everything on the pages.
const WHOLE_PICTURE: (u32, u32) = (6, 11);

/// Skips the calling test if the pages' commands cannot run here.
fn need_what_pages_need() {
    need_root();
    if kernel() < WHOLE_PICTURE {
        skip("the pages show what newer kernels measure");
    }
}

fn is_left_out(block: &page::Block) -> bool {
    LEFT_OUT.iter().any(|(start, _)| block.text.starts_with(start))
}

/// The guide has tests of its own, one for each incident.
#[test]
fn every_page_does_what_it_shows() {
    need_what_pages_need();
    for page in pages().iter().filter(|page| page.name != guide::PAGE) {
        let blocks: Vec<_> = page.blocks.iter().filter(|block| !is_left_out(block)).collect();
        Walk::through(page, &blocks).looks_as_shown();
    }
}

#[test]
fn every_block_is_run_or_left_out_for_a_reason() {
    let pages = pages();
    for (start, why) in LEFT_OUT {
        let shown = pages.iter().flat_map(|page: &Page| &page.blocks).any(|block| block.text.starts_with(start));
        assert!(shown, "no page shows `{start}`, which is left out because it {why}");
    }
    let guide = pages.iter().find(|page| page.name == guide::PAGE).expect("a guide");
    for block in &guide.blocks {
        assert!(guide::INCIDENTS.contains(&block.section.as_str()), "{}: no test runs `{}`", block.line, block.section);
    }
}
