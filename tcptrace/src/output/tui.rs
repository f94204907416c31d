//! A live screen: panes that draw a [`Frame`](crate::study::top::Frame), and keys that change what they show. It knows
//! nothing of where the figures come from.

mod bar;
mod connection;
mod draw;
mod findings;
mod groups;
mod help;
mod keys;
mod paint;
mod ports;
mod queues;
mod table;
mod totals;
mod view;
mod waiters;

#[cfg(test)]
mod tests;

pub use self::keys::Act;
pub use self::paint::Look;
pub use self::view::{Pane, Playing, View, print};
