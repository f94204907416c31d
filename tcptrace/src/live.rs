//! The live kernel as a source of items for any sink: no subcommand, no format, no terminal.

mod audit;
mod clock;
mod messages;
mod queries;
mod source;
mod tally;
mod way;

pub use self::audit::Audited;
pub use self::clock::{boot_ns, read_all as read_clocks};
pub use self::messages::report;
pub use self::source::{Besides, Looked, Source, look};
pub use self::tally::Tally;
