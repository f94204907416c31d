//! What the kernel shows: sockets, network namespaces, descriptors and control groups on request, and events
//! ([`probe`], which alone loads eBPF programs).

mod clock;
mod containers;
mod counters;
mod descriptors;
mod diag;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod groups;
mod interfaces;
mod limits;
mod multipath;
mod namespaces;
mod privileges;
pub mod probe;
mod processes;
mod queues;
mod sandbox;
mod setting_files;
mod settings;
mod sockstat;
mod survey;
#[cfg(test)]
mod testing;
mod users;
mod visit;

use std::fmt::Display;
use std::io;

pub use clock::{clock_ns, thread_time};
pub use counters::{Counting, counter_names, counters_here, read_counters};
pub use descriptors::{Holders, holders};
pub use diag::{DiagError, Dump, Wanted, dump, mptcp};
pub use groups::{Groups, LookUp};
pub use interfaces::interface_name;
pub use limits::limits;
pub use multipath::Multipaths;
pub use namespaces::{Namespace, Namespaces, ResolveError};
pub use privileges::{privileges, without_privileges};
pub use processes::{are_all_visible, are_descriptors_shown, are_hidden as are_processes_hidden};
pub use queues::{Queues, accept_queues_here, autobound_here, note_autobound_here};
pub use sandbox::{Sandbox, drop_privileges};
pub use setting_files::setting_files;
pub use settings::{add_host_settings, complete_host_settings, settings, settings_here};
pub use sockstat::allocated;
pub use survey::{Answer, Coverage, Interface, survey};
pub use users::{NoUser, User};
pub use visit::visit;

/// The release of the running kernel, as `uname -r` prints it.
///
/// # Errors
/// When the kernel does not tell.
pub fn release() -> io::Result<String> {
    Ok(nix::sys::utsname::uname()?.release().to_string_lossy().into_owned())
}

/// Adds the file to an error.
fn about(path: impl Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{path}: {error}"))
}
