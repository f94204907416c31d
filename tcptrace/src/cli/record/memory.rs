//! The newest part of a recording, in memory until somebody asks for it.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;

use crate::cli::say;
use crate::trace::{Plan, Store, StoreError};

/// What is kept is forgotten by a quarter at a time: each part begins with what it takes to read it alone.
const PARTS: u32 = 4;

/// Blocks of the newest past.
pub(in super::super) struct Memory {
    plan: Plan,
    last_ns: u64,
    most_bytes: u64,
    parts: VecDeque<Part>,
    /// How often it was written.
    dumps: u32,
    dumping: Vec<Store>,
    /// Less than what was asked for is kept, and that was said.
    is_short: bool,
}

#[derive(Default)]
struct Part {
    blocks: Vec<Bytes>,
    bytes: u64,
    since: u64,
    until: u64,
}

impl Memory {
    /// Keeps this time, and this many bytes at most.
    ///
    /// # Errors
    /// When the file that it will be written to exists, unless it may be replaced.
    pub(super) fn new(plan: Plan, last: Duration, most_bytes: u64) -> Result<Self> {
        if !plan.force && plan.path.symlink_metadata().is_ok() {
            return Err(StoreError::exists(&plan.path).into());
        }
        let last_ns = u64::try_from(last.as_nanos()).unwrap_or(u64::MAX);
        let parts = VecDeque::from([Part::default()]);
        Ok(Self { plan, last_ns, most_bytes, parts, dumps: 0, dumping: Vec::new(), is_short: false })
    }

    /// Takes a block in. Returns whether a new part is to begin.
    pub(super) fn keep(&mut self, block: Bytes, now: u64) -> bool {
        let (most_bytes, last_ns) = (self.most_bytes, self.last_ns);
        let Some(part) = self.parts.back_mut() else { return true };
        if part.blocks.is_empty() {
            part.since = now;
        }
        part.bytes += block.len() as u64;
        part.until = now;
        part.blocks.push(block);
        part.bytes > most_bytes / u64::from(PARTS) || now.saturating_sub(part.since) > last_ns / u64::from(PARTS)
    }

    /// Begins a new part, and forgets those that are too old or too much.
    pub(super) fn begin_part(&mut self, now: u64) {
        self.parts.push_back(Part::default());
        while let [oldest, _, ..] = self.parts.make_contiguous() {
            let is_old = oldest.until.saturating_add(self.last_ns) < now;
            let is_much = self.bytes() > self.most_bytes / u64::from(PARTS) * u64::from(PARTS - 1);
            if !is_old && !is_much {
                break;
            }
            if !is_old && !self.is_short {
                self.is_short = true;
                say("there is more than fits into memory: less than --last is kept (--max-size)");
            }
            self.parts.pop_front();
        }
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Has everything written that is kept, the first time into the file itself, then into numbered ones.
    pub(super) fn dump(&mut self) -> Result<()> {
        let plan = Plan { numbered: self.dumps > 0, ..self.plan.clone() };
        let path = plan.path_of(self.dumps).display().to_string();
        let blocks: Vec<Bytes> = self.parts.iter().flat_map(|part| &part.blocks).cloned().collect();
        say(format_args!("writing the last {} to '{path}'", indicatif::HumanBytes(self.bytes())));
        self.dumping.push(Store::of_blocks(&plan, self.dumps, &blocks)?);
        self.dumps += 1;
        Ok(())
    }

    /// Waits until everything is written. Returns why something was not.
    pub(super) fn finish(&mut self) -> Option<String> {
        let mut failure = None;
        for mut store in self.dumping.drain(..) {
            store.finish();
            failure = failure.or(store.failure().map(str::to_owned));
        }
        failure
    }
}
