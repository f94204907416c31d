//! The frequent events of a block, in columns: numbers of one meaning are next to each other, which packs better and is
//! faster to write and to read than a record each.
//!
//! The body of a record of kind [`COLUMNS`](super::wire::kind::COLUMNS) holds variable-length numbers: how many entries it
//! has, how many columns, and the length of each column; and then the columns, in the order of [`at`]. Readers ignore
//! columns that they do not know. An entry is a [code](at::CODE): 0 stands for the next record behind this one that does
//! more than describe; another one is the number of a [`Shape`], from 1, which says in which columns the rest of the
//! event is.

/// How many columns there are.
pub(super) const COUNT: usize = 28;

/// Which column holds what. Numbers have a variable length, and differences are zigzag, except where another form is named.
pub(super) mod at {
    /// The [shapes](super::Shape), 8 bytes each.
    pub(in super::super) const SHAPES: usize = 0;
    /// Addresses: the length, 4 or 16, and the bytes.
    pub(in super::super) const IPS: usize = 1;
    /// What many sockets have in common: network namespace, user, control group, interface, and whether ids are
    /// addresses.
    pub(in super::super) const OWNERS: usize = 2;
    /// Threads: process, thread, and the 16 bytes of the name.
    pub(in super::super) const TASKS: usize = 3;
    /// What sockets showed when they were closed, but for what differs between most of them: unread bytes,
    /// retransmissions, `sk_err`, the bits, retransmissions in a row, probes, and the mini-socket and its time, as in
    /// [`End`](super::super::wire::End).
    pub(in super::super) const ENDS: usize = 4;
    /// A byte for each entry.
    pub(in super::super) const CODE: usize = 5;
    /// The time since the previous event: two bytes each, lowest first, in two columns.
    pub(in super::super) const TIME_0: usize = 6;
    pub(in super::super) const TIME_1: usize = 7;
    /// The rest of it.
    pub(in super::super) const TIME_2: usize = 8;
    /// The difference between the index of the socket and that of the previous event.
    pub(in super::super) const SOCKET: usize = 9;
    /// The difference between the id of a new socket and that of the previous new one.
    pub(in super::super) const ID: usize = 10;
    /// The lower port: its difference from that of the previous description, in 16 bits.
    pub(in super::super) const PORT_LOW: usize = 11;
    /// The higher port: its difference, likewise, in two columns of a byte each.
    pub(in super::super) const PORT_HIGH_0: usize = 12;
    pub(in super::super) const PORT_HIGH_1: usize = 13;
    /// Which address in [`IPS`].
    pub(in super::super) const LOCAL_IP: usize = 14;
    pub(in super::super) const REMOTE_IP: usize = 15;
    /// Which one in [`OWNERS`].
    pub(in super::super) const OWNER: usize = 16;
    /// Address of a socket, beside its cookie: 8 bytes.
    pub(in super::super) const ADDRESS: usize = 17;
    /// Which one in [`TASKS`].
    pub(in super::super) const TASK: usize = 18;
    /// The idle times that are not 0, in ms.
    pub(in super::super) const ACKED_MS: usize = 19;
    pub(in super::super) const RECEIVED_MS: usize = 20;
    pub(in super::super) const SENT_MS: usize = 21;
    /// Which one in [`ENDS`].
    pub(in super::super) const END: usize = 22;
    pub(in super::super) const BYTES_SENT: usize = 23;
    pub(in super::super) const BYTES_RECEIVED: usize = 24;
    /// The round-trip time in µs, plus 1; 0 if there is none.
    pub(in super::super) const SRTT: usize = 25;
    /// The time until the timer of a mini-socket is due, in ns, zigzag.
    pub(in super::super) const DUE: usize = 26;
    /// Which address in [`ADDRESS`].
    pub(in super::super) const WHICH_ADDRESS: usize = 27;
}

/// What events have in common that differ only in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// The kind of record that such an event would have.
    pub(super) kind: u8,
    /// Of a change, the old state plus sixteen times the new one; the substate of a mini-socket.
    pub(super) states: u8,
    /// The number of an [`Act`](super::wire::Act); what happened to a mini-socket.
    pub(super) number: u8,
    /// Which idle times are known, as in [`IdleAtEnd`](super::wire::IdleAtEnd), and [`IS_IDLE`].
    pub(super) idle: u8,
    /// Bits of [`bit`](super::wire::bit).
    pub(super) bits: u16,
    /// Bits of [`more`].
    pub(super) more: u16,
}

/// Most shapes of a block: a code is a byte.
pub(super) const MOST_SHAPES: usize = 255;

/// Idle times are told, even if all are unknown.
pub(super) const IS_IDLE: u8 = 64;

/// What follows in which columns.
pub(super) mod more {
    /// It describes a socket with the next index.
    pub(in super::super) const NEW: u16 = 1;
    /// It describes a socket again.
    pub(in super::super) const AGAIN: u16 = 2;
    /// The higher port is the local one.
    pub(in super::super) const SWAPPED: u16 = 4;
    pub(in super::super) const TASK: u16 = 8;
    pub(in super::super) const END: u16 = 16;
    /// It has the address of its socket.
    pub(in super::super) const ADDRESS: u16 = 32;
    /// The same as the last one of this socket.
    pub(in super::super) const SAME_ADDRESS: u16 = 64;
}

impl Shape {
    pub(super) fn to_bytes(self) -> [u8; 8] {
        let ([a, b], [c, d]) = (self.bits.to_le_bytes(), self.more.to_le_bytes());
        [self.kind, self.states, self.number, self.idle, a, b, c, d]
    }

    pub(super) fn from_bytes([kind, states, number, idle, a, b, c, d]: [u8; 8]) -> Self {
        let (bits, more) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        Self { kind, states, number, idle, bits, more }
    }
}
