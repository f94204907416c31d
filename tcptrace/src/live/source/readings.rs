//! Reads the kernel's counters for an audit: in this process, or by way of the helper.

use std::thread;

use crate::kernel::{Namespaces, read_counters};
use crate::live::clock::boot_ns;
use crate::live::way::Way;
use crate::model::finding::Reading;

/// Most network namespaces that can be asked for.
const MOST: usize = 65_536;

/// What reads them.
#[derive(Clone, Debug)]
pub struct Readings(pub(super) Option<Way>);

impl Readings {
    /// The counters of these network namespaces; of all, if there are none. `None` if they cannot be read. It takes a while:
    /// call it in a thread of its own.
    pub fn read(&self, only: Vec<u32>) -> Option<Vec<Reading>> {
        match &self.0 {
            None => read(only),
            Some(way) => way.ask::<Option<_>>(&only)?,
        }
    }
}

/// Reads for the process that follows the kernel, until it is gone.
pub(super) fn serve(way: &Way) {
    way.serve(|only: Vec<u32>| if only.len() <= MOST { read(only) } else { None });
}

/// A thread that has entered another network namespace does not come back.
fn read(only: Vec<u32>) -> Option<Vec<Reading>> {
    let read = move || read_counters(&Namespaces::find(), &only, &|| boot_ns().unwrap_or(0));
    thread::Builder::new().spawn(read).ok()?.join().ok()
}
