//! What reads the bytes that tracing needs.

use std::hash::RandomState;
use std::sync::Arc;

use super::btf::{Btf, Kind};
use super::decode::{Batch, Decoder};
use super::layout::{Layout, Need, ReuseBits};
use super::symbols::Symbols;
use crate::model::event::ResetReason;

/// Bytes of a record's unit of length, as [`records`] cuts them.
const UNIT: usize = 8;

/// Reads raw BTF, and looks everything up in it that the programs need.
pub fn btf(raw: &[u8]) {
    if let Ok(layout) = Layout::from_btf(raw) {
        for need in [Need::Socket, Need::Mini, Need::Packet, Need::Files, Need::Optional] {
            layout.lacks(need);
        }
        layout.arguments("kfree_skb");
    }
    let Ok(btf) = Btf::read(raw) else { return };
    for kind in [Kind::Structure, Kind::Union, Kind::Modifier] {
        for (_, of) in btf.each(kind).take(100) {
            btf.offset(of, "y.x");
            btf.bits(of, "z");
            btf.target(of);
        }
    }
}

/// A batch of records of the ring buffer. Before each, one byte says how long it is, in units of 8 bytes.
pub fn records(mut bytes: &[u8]) -> Batch {
    let mut batch = Batch::new(Arc::new(decoder()));
    while let Some((units, rest)) = bytes.split_first() {
        let (record, rest) = rest.split_at(rest.len().min(usize::from(*units) * UNIT));
        batch.push(record);
        bytes = rest;
    }
    batch
}

/// Of a kernel where a mini-socket's timer can have been cancelled from two functions.
fn decoder() -> Decoder {
    const FUNCTIONS: &[u8] = b"1000 t tw_timer_handler\n2000 t mod_timer\n3000 t tcp_v4_rcv\n4000 T _etext\n";
    Decoder {
        tick_ns: 4_000_000,
        minis_watched: true,
        symbols: Symbols::parse(FUNCTIONS).unwrap_or_default(),
        reset_reasons: vec![ResetReason::Other, ResetReason::AbortOnData],
        reuse: Some(ReuseBits { address: 0b1111, port: 0b1_0000 }),
        own_pids: [77, 0],
        scrambler: RandomState::new(),
    }
}

/// Reads any text as the kernel's table of symbols.
pub(in crate::kernel) fn symbols(text: &[u8]) {
    if let Ok(symbols) = Symbols::parse(text) {
        symbols.cancelled_by(&[0, symbols.timer_handler, u64::MAX]);
    }
}
