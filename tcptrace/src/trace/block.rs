//! The head of a block.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Magic number of the skippable frame that contains a head.
pub const FRAME: u32 = 0x184d_2a5c;
/// First of the 16 magic numbers of skippable frames.
pub const SKIPPABLE: u32 = 0x184d_2a50;
/// Magic number of a data frame.
pub const DATA_FRAME: u32 = 0xfd2f_b528;
/// First bytes of every head.
pub const MAGIC: [u8; 8] = *b"tcptrace";
/// Version of the format. Readers refuse later ones, so it changes only when they would misread a block. New kinds of
/// records and longer bodies need no new version. Since 2, frequent events are in columns: readers of version 1 would skip
/// them.
pub const VERSION: u16 = 2;
/// Longest head frame that a reader accepts: later heads may be longer than [`BlockHead`].
pub const LONGEST_HEAD: usize = 1024;
/// Longest block that the recorder writes, unpacked.
pub const LONGEST: usize = 1 << 20;
/// Longest block that a reader accepts: earlier recorders wrote longer ones when they had many names to write.
pub const LONGEST_READ: usize = 4 << 20;

/// Describes a block, in a skippable frame before its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BlockHead {
    pub magic: [u8; 8],
    /// CRC-32 of the rest of the frame.
    pub checksum: U32,
    pub version: U16,
    /// Bits of [`flag`].
    pub flags: U16,
    /// Random id of the recording.
    pub recording: [u8; 16],
    /// Number of the file within the recording, from 0.
    pub file: U32,
    /// Events of sockets in this block; the first traces count other events, too.
    pub events: U32,
    /// Number of the block within the recording, from 0.
    pub block: U64,
    /// Time of the first event, in ns of `CLOCK_BOOTTIME`.
    pub first_at: U64,
    /// Time of the last event.
    pub last_at: U64,
    /// Lowest id of its sockets.
    pub min_id: U64,
    /// Highest id of its sockets.
    pub max_id: U64,
    /// Length of the records, unpacked.
    pub raw_len: U32,
    /// Length of the data frame.
    pub data_len: U32,
}

/// Bits of [`BlockHead::flags`].
pub mod flag {
    /// The block contains more than passing time and the events of sockets between `min_id` and `max_id`.
    pub const MORE: u16 = 1;
    /// The block ends a file that was written beside the recording. The recording goes on with another block of the
    /// same number.
    pub const BESIDE: u16 = 2;
}

/// Why bytes are not a usable head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHead {
    /// The bytes are something else, or damaged.
    #[error("no valid block header")]
    SomethingElse,
    /// A later version wrote the block.
    #[error("it was written in format {0} by a later tcptrace; this one reads formats up to {VERSION}")]
    Later(u16),
    /// The lengths are impossible.
    #[error("a block header claims {0} bytes, and the limit is {LONGEST_READ}")]
    TooLong(u32),
}

/// Bytes of a frame's header: magic number and length.
pub const FRAME_HEADER: usize = 8;

impl BlockHead {
    /// The whole frame: header and head, with its checksum.
    pub fn frame(mut self) -> [u8; FRAME_HEADER + size_of::<Self>()] {
        self.checksum = U32::new(crc32fast::hash(&self.as_bytes()[CHECKED_FROM..]));
        let mut frame = [0; FRAME_HEADER + size_of::<Self>()];
        frame[..4].copy_from_slice(&FRAME.to_le_bytes());
        frame[4..FRAME_HEADER].copy_from_slice(&(size_of::<Self>() as u32).to_le_bytes());
        frame[FRAME_HEADER..].copy_from_slice(self.as_bytes());
        frame
    }

    /// Parses the content of the frame.
    ///
    /// # Errors
    /// When it is no head, or one of a later version. [`BlockHead::check_length`] checks the lengths.
    pub fn parse(content: &[u8]) -> Result<Self, NoHead> {
        let (head, _) = Self::read_from_prefix(content).map_err(|_| NoHead::SomethingElse)?;
        if head.magic != MAGIC || head.checksum.get() != crc32fast::hash(&content[CHECKED_FROM..]) {
            return Err(NoHead::SomethingElse);
        }
        if head.version.get() > VERSION {
            return Err(NoHead::Later(head.version.get()));
        }
        Ok(head)
    }

    /// Checks the lengths against the longest possible block.
    ///
    /// # Errors
    /// When no block can be that long.
    pub fn check_length(&self) -> Result<(), NoHead> {
        let longest = self.raw_len.get().max(self.data_len.get());
        // Incompressible data grows a little when packed.
        if longest as usize > LONGEST_READ + LONGEST_READ / 64 { Err(NoHead::TooLong(longest)) } else { Ok(()) }
    }
}

/// The checksum does not cover the bytes before this one.
const CHECKED_FROM: usize = 12;

/// Splits the header of a frame into its magic number and the length that follows it in skippable frames.
pub fn frame_header(header: [u8; FRAME_HEADER]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = header;
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}
