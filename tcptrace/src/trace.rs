//! Traces: files that hold what a recording saw, as events, so that every conclusion can be drawn again later.
//!
//! # Format
//!
//! A trace is a series of blocks, each two frames of the Zstandard format (RFC 8878), so that `zstd -dc` opens it:
//!
//! 1. a skippable frame, the [`BlockHead`](block::BlockHead): which recording, which block of it, which time, how long,
//!    and a checksum of all that;
//! 2. a data frame with a checksum: records, each a kind, a length and a body. A reader passes over kinds that it does not
//!    know, and over whatever follows what it knows in a body.
//!
//! A block needs no other one to be read: the sockets and processes of its records are described in it. What is
//! damaged or missing costs its block, and reading goes on at the next head. The heads lead from block to block
//! without unpacking any, which makes an index of its own unnecessary.
//!
//! Numbers in heads are little-endian; in bodies they are variable-length as postcard writes them, times as differences
//! in ns. Head, losses, audit, counters, settings, accept queues, limits and end are JSON. The records are in the order in
//! which the events were taken in.
//!
//! The last record of a file says that it ends, and why ([`Ended`]); the head announces that ([`Head::says_end`]). A file
//! has the names of all network namespaces and control groups that its sockets have, and of the interfaces of link-local
//! addresses, before they are needed; it begins with the newest settings, accept queues and limits. Once there are many
//! names, each is written again when it is needed ([`Item::NamesAnew`]), so that readers keep those of live sockets only.
//!
//! [`Ended`]: crate::model::stream::Ended
//! [`Head::says_end`]: crate::model::stream::Head::says_end
//! [`Item::NamesAnew`]: crate::model::stream::Item::NamesAnew
//!
//! # Compatibility
//!
//! Readers read every trace that an earlier version wrote. What later versions add are kinds of records, fields at the end
//! of bodies, fields of JSON and bits of heads, which readers of this version skip: they tell what they know. Only where
//! they would misread a block, [`block::VERSION`] changes, and they refuse it by name.

pub mod block;
mod decode;
mod encode;
mod read;
mod wire;
pub mod write;

#[cfg(test)]
mod tests;

pub use self::decode::Senseless;
pub use self::encode::Encoder;
pub use self::read::{Block, Blocks, Content, Damage, Reader, Wrong};
