//! Whether everything was seen: what events tell, against what the kernel counts by itself. Pure.
//!
//! The counters are those that one event stands behind, no more and no less (`net/ipv4`, 5.8 to 6.18). Left out are those
//! that also count what shows in no event (`OutRsts`, `ListenDrops`, most of `TcpExt`), and `CurrEstab`, which stable
//! kernels count in two ways that their version does not tell apart. Those of
//! [`Unseen`](crate::model::counters::Unseen) are reported beside, and not compared.

mod compare;
mod tally;

#[cfg(test)]
mod tests;

pub use self::compare::{Scope, compare};
pub use self::tally::Tally;
