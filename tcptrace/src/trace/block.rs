//! The head of a block.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Magic number of the skippable frame that a head is in.
pub const FRAME: u32 = 0x184d_2a5c;
/// Skippable frames have a magic number from this one on, up to 15 more.
pub const SKIPPABLE: u32 = 0x184d_2a50;
/// Magic number of a data frame.
pub const DATA_FRAME: u32 = 0xfd2f_b528;
/// What marks a head as one.
pub const MAGIC: [u8; 8] = *b"tcptrace";
/// Version of the format. Readers refuse later ones, so it changes only when they would misread a block; new kinds of
/// records and longer bodies need no new version.
pub const VERSION: u16 = 1;
/// Longest frame of a head that is believed: later heads may be longer than [`BlockHead`].
pub const LONGEST_HEAD: usize = 1024;
/// Longest block that is written, unpacked.
pub const LONGEST: usize = 1 << 20;
/// Longest block that is believed: earlier recorders wrote longer ones when they had many names to tell.
pub const LONGEST_READ: usize = 4 << 20;

/// What a block says of itself, in a skippable frame before its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BlockHead {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// CRC-32 of the rest of the frame.
    pub checksum: U32,
    /// [`VERSION`].
    pub version: U16,
    /// Bits of [`flag`].
    pub flags: U16,
    /// Made up at random by every recording.
    pub recording: [u8; 16],
    /// Which file of the recording, from 0.
    pub file: U32,
    /// Events of sockets in this block; the first traces count others, too.
    pub events: U32,
    /// Which block of the recording, from 0.
    pub block: U64,
    /// Time of the first event, in ns of `CLOCK_BOOTTIME`.
    pub first_at: U64,
    /// Of the last one.
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
    /// There is more in the block than events of the sockets between `min_id` and `max_id`, and passing time.
    pub const MORE: u16 = 1;
    /// The block ends a file that was written beside the recording: another one with its number goes on with that.
    pub const BESIDE: u16 = 2;
}

/// Why something is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHead {
    /// It is something else, or it is damaged.
    #[error("there is no block here")]
    SomethingElse,
    /// The format is a later one.
    #[error("it was written in format {0} by a later tcptrace; this one reads formats up to {VERSION}")]
    Later(u16),
    /// It says what cannot be.
    #[error("a block claims {0} bytes, and none has more than {LONGEST_READ}")]
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

    /// Reads what is in the frame.
    ///
    /// # Errors
    /// When it is no head, or a later one. Whether its lengths can be believed is for [`BlockHead::check_length`].
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

    /// Whether there can be a block as long as it says.
    ///
    /// # Errors
    /// When there can be none.
    pub fn check_length(&self) -> Result<(), NoHead> {
        let longest = self.raw_len.get().max(self.data_len.get());
        // What cannot be packed grows a little.
        if longest as usize > LONGEST_READ + LONGEST_READ / 64 { Err(NoHead::TooLong(longest)) } else { Ok(()) }
    }
}

/// What is before it is not covered by the checksum.
const CHECKED_FROM: usize = 12;

/// Splits the header of a frame into its magic number and the length that follows, where it is skippable.
pub fn frame_header(header: [u8; FRAME_HEADER]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = header;
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}
