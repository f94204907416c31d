//! Traces: files that store the events of a recording, so that every conclusion can be drawn again later.
//!
//! # Format
//!
//! A trace is a series of blocks, each two frames of the Zstandard format (RFC 8878), so that `zstd -dc` opens it:
//!
//! 1. a skippable frame, the [`BlockHead`](block::BlockHead): recording, block number, period, lengths, and a checksum
//!    over all of them;
//! 2. a data frame with a checksum: records, each with a kind, a length and a body. A reader skips records of unknown
//!    kinds, and bytes that follow the known part of a body. Frequent events have no record each: the first record of the
//!    block has them in columns, which say where the other records come between them.
//!
//! Each block can be read alone: it describes the sockets and processes of its records. Damage costs only the blocks
//! that it hits, and reading resumes at the next head. A reader can go from head to head without unpacking any data, so
//! a trace needs no separate index.
//!
//! Numbers in heads are little-endian; in bodies they are variable-length as postcard writes them, times as differences
//! in ns. Head, losses, audit, counters, settings, accept queues, limits and end are JSON. Records and columns are in the
//! order in which the events were taken in.
//!
//! A file that a flight recorder has written by itself says why in its first block and in its last ([`Item::Fired`]).
//!
//! The last record of a file says that it ends, and why ([`Ended`]); the head announces that ([`Head::says_end`]). A file
//! has the names of all network namespaces and control groups that its sockets have, and of the interfaces of link-local
//! addresses, before they are needed; it begins with the newest settings, accept queues and limits. Once there are many
//! names, each is written again when it is needed ([`Item::NamesAnew`]), so that readers keep those of live sockets only.
//!
//! [`Item::Fired`]: crate::model::stream::Item::Fired
//! [`Ended`]: crate::model::stream::Ended
//! [`Head::says_end`]: crate::model::stream::Head::says_end
//! [`Item::NamesAnew`]: crate::model::stream::Item::NamesAnew
//!
//! # Compatibility
//!
//! Readers read every trace that an earlier version wrote: in version 1 of the format, every event has a record. Later versions may add kinds of records, fields at the end
//! of bodies, fields of JSON and bits of heads. Readers of this version skip those and report the rest.
//! [`block::VERSION`] changes only when such readers would misread a block; they then refuse the block and name its
//! version.

pub mod block;
mod columns;
mod decode;
mod encode;
mod read;
mod wire;
pub mod write;

#[cfg(test)]
mod tests;

pub use self::decode::InvalidRecord;
pub use self::encode::{Encoder, append};
pub use self::read::{Block, Blocks, Content, Damage, Reader, Wrong};
