//! An item more for a block that is packed already.

use std::io;

use zerocopy::byteorder::little_endian::U32;
use zstd::bulk;

use super::{Encoder, full};
use crate::model::stream::Item;
use crate::trace::block::{BlockHead, FRAME_HEADER, LONGEST, flag};

/// Packs a block again with this item behind its others. The block keeps its number: readers see one block, and versions
/// that do not know the item skip it.
///
/// # Errors
/// When the bytes are not a whole block, or the item does not fit into it.
pub fn append(block: &[u8], item: &Item) -> io::Result<Vec<u8>> {
    const HEAD: usize = FRAME_HEADER + size_of::<BlockHead>();
    let (frame, data) = block.split_at_checked(HEAD).ok_or(io::ErrorKind::UnexpectedEof)?;
    let head = BlockHead::parse(&frame[FRAME_HEADER..]).map_err(io::Error::other)?;
    let raw_len = head.raw_len.get() as usize;
    let mut raw = bulk::decompress(data, raw_len)?;
    // A record of the block's own kind of encoder, which needs nothing of the block.
    let mut encoder = Encoder::new(head.recording)?;
    encoder.other(item)?;
    raw.extend_from_slice(&encoder.raw);
    if raw.len() > LONGEST {
        return Err(full());
    }
    let packed = encoder.compressor.compress(&raw)?;
    let length = |bytes: &[u8]| U32::new(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    let flags = head.flags.get() | flag::MORE;
    let head = BlockHead { flags: flags.into(), raw_len: length(&raw), data_len: length(&packed), ..head };
    Ok([&head.frame()[..], &packed].concat())
}
