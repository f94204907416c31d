//! The request and its answer as bytes (`linux/netlink.h`, `linux/sock_diag.h`, `linux/inet_diag.h`).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use nix::errno::Errno;
use nix::libc;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Reason, Wanted};
use crate::model::event::{Found, Id, Kept, Multipath};
use crate::model::socket::{Progress, Socket, Timer};
use crate::model::tcp::{State, Tuple};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;

/// `NLM_F_DUMP_INTR`.
const INTERRUPTED: u16 = 0x10;

/// Written into the request, so that the answer has it too.
const SEQUENCE: u32 = 1;

/// `TCP_NEW_SYN_RECV`: the state in which the kernel keeps requests, and which it shows as SYN_RECV.
const NEW_SYN_RECV: u8 = 12;

/// Every state but CLOSED: no table of the kernel has closed sockets. Higher bits are pseudo states.
const STATES: u32 = (1 << (NEW_SYN_RECV + 1)) - 1 - 1;

/// `TCP_BOUND_INACTIVE`, since 6.8: sockets that are bound and nothing else. Kernels of before know no such bit, and have
/// nothing to show for it.
const BOUND_INACTIVE: u8 = 13;

/// `INET_DIAG_INFO`.
const INFO: u16 = 2;

/// `INET_DIAG_ULP_INFO`, since 5.5 and only beside `INET_DIAG_INFO`; and its contents.
const ULP: u16 = 19;
const ULP_NAME: u16 = 1;
const ULP_MPTCP: u16 = 3;

/// `MPTCP_SUBFLOW_ATTR_TOKEN_LOC`.
const LOCAL_TOKEN: u16 = 2;

/// `INET_DIAG_SHUTDOWN`: the attribute that every full socket has.
const SHUTDOWN: u16 = 8;

/// `INET_DIAG_CGROUP_ID`, since 5.9, of full sockets only.
const CGROUP_ID: u16 = 21;

/// `INET_DIAG_SOCKOPT`, since 5.10, of full sockets only: `struct inet_diag_sockopt`, whose second byte begins with
/// `bind_address_no_port`.
const SOCKOPT: u16 = 22;
const BIND_NO_PORT: u8 = if cfg!(target_endian = "little") { 1 } else { 1 << 7 };

/// `TCPI_OPT_TIMESTAMPS`.
const TIMESTAMPS: u8 = 1;

/// `struct nlmsghdr`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct inet_diag_sockid`.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SocketId {
    local_port: U16,
    remote_port: U16,
    local_ip: [u8; 16],
    remote_ip: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`, with its header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Request {
    header: Header,
    family: u8,
    protocol: u8,
    /// Attributes that cost the kernel something.
    extensions: u8,
    padding: u8,
    states: u32,
    id: SocketId,
}

/// `struct inet_diag_msg`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Message {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: SocketId,
    expires_ms: u32,
    recv_queue: u32,
    send_queue: u32,
    uid: u32,
    inode: u32,
}

/// `struct nlattr`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct AttributeHeader {
    length: u16,
    kind: u16,
}

const _: () = assert!(size_of::<Header>() == 16 && size_of::<Request>() == 16 + 56 && size_of::<Message>() == 72);

/// What an answer does not contain itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    /// When it arrived.
    pub(super) at: u64,
    /// The network namespace.
    pub(super) netns: Option<u32>,
    /// What was asked for.
    pub(super) protocol: Of,
}

/// Whose sockets an answer lists: the two differ in their attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Tcp,
    Mptcp,
}

/// Progress of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// It is complete.
    pub(super) done: bool,
    /// The kernel noticed a change during the dump.
    pub(super) interrupted: bool,
}

/// The same for MPTCP sockets. The protocol number of MPTCP does not fit into the request: an attribute has it
/// (`INET_DIAG_REQ_PROTOCOL`, since 5.9). The number in the request itself stands for nothing, so that older kernels
/// list nothing.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct MptcpRequest {
    request: Request,
    attribute: AttributeHeader,
    protocol: u32,
}

/// `INET_DIAG_REQ_PROTOCOL`.
const REQUEST_PROTOCOL: u16 = 3;

impl MptcpRequest {
    /// Asks for every MPTCP socket of an address family.
    pub(super) fn new(family: u8) -> Self {
        let mut request = Request { protocol: 0, extensions: 1 << (INFO - 1), ..Request::new(family, Wanted::All) };
        request.header.length = size_of::<Self>() as u32;
        let length = (size_of::<AttributeHeader>() + size_of::<u32>()) as u16;
        let attribute = AttributeHeader { length, kind: REQUEST_PROTOCOL };
        Self { request, attribute, protocol: libc::IPPROTO_MPTCP.unsigned_abs() }
    }
}

/// For listeners whose port the kernel chose, as `ss --listening autobound` asks: a filter of one instruction.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct AutoboundRequest {
    request: Request,
    attribute: AttributeHeader,
    operation: Operation,
}

/// `struct inet_diag_bc_op`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Operation {
    code: u8,
    /// How far to go on if it holds: to the end is a match. Beyond the end is none.
    yes: u8,
    no: u16,
}

/// `INET_DIAG_REQ_BYTECODE`.
const REQUEST_BYTECODE: u16 = 1;

/// `INET_DIAG_BC_AUTO`.
const AUTOBOUND: u8 = 6;

impl AutoboundRequest {
    pub(super) fn new(family: u8) -> Self {
        let mut request = Request::new(family, Wanted::Listening);
        request.header.length = size_of::<Self>() as u32;
        let length = (size_of::<AttributeHeader>() + size_of::<Operation>()) as u16;
        let attribute = AttributeHeader { length, kind: REQUEST_BYTECODE };
        let yes = size_of::<Operation>() as u8;
        let operation = Operation { code: AUTOBOUND, yes, no: u16::from(yes) + 4 };
        Self { request, attribute, operation }
    }
}

impl Request {
    /// Asks for the TCP sockets of an address family.
    pub(super) fn new(family: u8, wanted: Wanted) -> Self {
        let header = Header {
            length: size_of::<Self>() as u32,
            kind: BY_FAMILY,
            flags: (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16,
            sequence: SEQUENCE,
            port: 0,
        };
        let protocol = libc::IPPROTO_TCP as u8;
        let is_little =
            matches!(wanted, Wanted::All | Wanted::AllAndBound | Wanted::In(_) | Wanted::Listening | Wanted::Requests);
        let extensions = if is_little { 0 } else { 1 << (INFO - 1) };
        Self { header, family, protocol, extensions, padding: 0, states: states(wanted), id: SocketId::default() }
    }
}

impl Request {
    /// For the one socket that was found, with its [`Progress`]. `None` if it is not known well enough.
    pub(super) fn one(found: &Found) -> Option<Self> {
        let Id::Cookie(cookie) = found.id else { return None };
        let Tuple { local_ip, remote_ip, local_port, remote_port } = found.tuple;
        let ipv4 = local_ip.to_ipv4_mapped().zip(remote_ip.to_ipv4_mapped());
        // A socket of IPv6 with IPv4-mapped addresses is found by those, too.
        let family = if ipv4.is_some() { libc::AF_INET } else { libc::AF_INET6 };
        let bytes = |ip: Ipv6Addr| match ip.to_ipv4_mapped().filter(|_| ipv4.is_some()) {
            Some(ip) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&ip.octets());
                bytes
            }
            None => ip.octets(),
        };
        let mut request = Self::new(family as u8, Wanted::Lingering);
        request.header.flags = libc::NLM_F_REQUEST as u16;
        request.id = SocketId {
            local_port: local_port.into(),
            remote_port: remote_port.into(),
            local_ip: bytes(local_ip),
            remote_ip: bytes(remote_ip),
            interface: found.interface,
            cookie: [cookie as u32, (cookie >> 32) as u32],
        };
        Some(request)
    }
}

/// The states as bits.
fn states(wanted: Wanted) -> u32 {
    use tcptrace_common::state::{CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, LISTEN};
    let some: &[u8] = match wanted {
        Wanted::All | Wanted::AllAndPaths => return STATES,
        Wanted::AllAndBound | Wanted::AllAndBoundAndPaths => return STATES | 1 << BOUND_INACTIVE,
        Wanted::In(bits) => return bits,
        Wanted::Listening => &[LISTEN],
        Wanted::Requests => &[SYN_RECV, NEW_SYN_RECV],
        Wanted::Lingering => &[CLOSE_WAIT, FIN_WAIT1, FIN_WAIT2, CLOSING, LAST_ACK],
        Wanted::Waiting => &[CLOSE_WAIT, CLOSING, FIN_WAIT2],
        Wanted::Flowing => &[ESTABLISHED, CLOSE_WAIT, FIN_WAIT1, FIN_WAIT2, CLOSING, LAST_ACK],
    };
    some.iter().fold(0, |bits, state| bits | 1 << state)
}

/// These states as bits. Where requests are wanted, the kernel keeps them in a state of their own.
pub(super) fn bits(of: &[State]) -> u32 {
    let is_wanted = |number: &u8| State::from_kernel(*number).is_some_and(|state| of.contains(&state));
    let bits = (1..NEW_SYN_RECV).filter(is_wanted).fold(0, |bits, state| bits | 1 << state);
    let requests = of.contains(&State::SynRecv);
    (if requests { bits | 1 << NEW_SYN_RECV } else { bits }) & STATES
}

/// Reads a piece of the answer.
pub(super) fn parse(
    mut piece: &[u8],
    about: &Circumstances,
    progress: &mut Step,
    sink: &mut dyn FnMut(Socket),
) -> Result<(), Reason> {
    while !piece.is_empty() && !progress.done {
        let (header, body, rest) = split(piece).ok_or(Reason::Malformed)?;
        piece = rest;
        if header.sequence == SEQUENCE {
            progress.interrupted |= header.flags & INTERRUPTED != 0;
            take(&header, body, about, progress, sink)?;
        }
    }
    Ok(())
}

/// The first message, and what follows it.
fn split(piece: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let (header, _) = Header::read_from_prefix(piece).ok()?;
    let length = usize::try_from(header.length).ok()?;
    let body = piece.get(size_of::<Header>()..length)?;
    // The last one may lack padding.
    let rest = piece.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((header, body, rest))
}

fn take(
    header: &Header,
    body: &[u8],
    about: &Circumstances,
    progress: &mut Step,
    sink: &mut dyn FnMut(Socket),
) -> Result<(), Reason> {
    match i32::from(header.kind) {
        libc::NLMSG_ERROR => complaint(body).map_or(Ok(()), Err),
        libc::NLMSG_OVERRUN => Err(Reason::Overrun),
        libc::NLMSG_DONE => {
            progress.done = true;
            // Newer kernels end with a result.
            if body.is_empty() { Ok(()) } else { complaint(body).map_or(Ok(()), Err) }
        }
        kind if kind == i32::from(BY_FAMILY) => {
            let (message, attributes) = Message::read_from_prefix(body).map_err(|_| Reason::Malformed)?;
            if let Some(socket) = socket(&message, attributes, about) {
                sink(socket);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The error in a negative errno; 0 means success.
fn complaint(body: &[u8]) -> Option<Reason> {
    match i32::read_from_prefix(body) {
        Ok((0, _)) => None,
        Ok((code, _)) => Some(Reason::Kernel(Errno::from_raw(code.wrapping_neg()))),
        Err(_) => Some(Reason::Malformed),
    }
}

/// `None` for a socket that is not traced: another family, a pseudo state.
fn socket(message: &Message, attributes: &[u8], about: &Circumstances) -> Option<Socket> {
    let state = match message.state {
        NEW_SYN_RECV => State::SynRecv,
        BOUND_INACTIVE => State::Closed,
        state => State::from_kernel(state)?,
    };
    let attributes = Attributes::read(attributes, about.protocol);
    let timer_left_ns = u64::from(message.expires_ms) * 1_000_000;
    let timer = timer(message.timer);
    let is_mini = timer == Timer::TimeWait;
    // A full socket in SYN_RECV, by Fast Open or on its way to ESTABLISHED, has the attribute too.
    let is_request = state == State::SynRecv && !is_mini && message.inode == 0 && !attributes.is_full;
    let kept = if is_mini { Kept::Mini { due_ns: timer_left_ns } } else { kept(state, message.inode) };
    let tuple = tuple(message)?;
    let found = Found {
        at: about.at,
        id: Id::Cookie(u64::from(message.id.cookie[0]) | u64::from(message.id.cookie[1]) << 32),
        tuple,
        netns: about.netns,
        uid: (!is_mini && !is_request).then_some(message.uid),
        cgroup: attributes.cgroup,
        interface: if tuple.is_link_local() { message.id.interface } else { 0 },
        state,
        kept,
    };
    Some(Socket {
        found,
        inode: message.inode,
        recv_queue: message.recv_queue,
        send_queue: message.send_queue,
        timer,
        timer_left_ns,
        retransmits: message.retransmits,
        bind_no_port: attributes.bind_no_port,
        is_request,
        progress: attributes.progress,
        multipath: match about.protocol {
            Of::Tcp => attributes.subflow_of,
            Of::Mptcp => Some(Multipath { token: attributes.token, state: Some(state) }),
        },
    })
}

const SYN_RECV: u8 = tcptrace_common::state::SYN_RECV;

fn timer(number: u8) -> Timer {
    match number {
        1 => Timer::Retransmit,
        2 => Timer::Keepalive,
        3 => Timer::TimeWait,
        4 => Timer::Probe,
        _ => Timer::None,
    }
}

/// A full socket without an inode is not accepted yet, or was closed: its state shows which.
fn kept(state: State, inode: u32) -> Kept {
    match state {
        _ if inode != 0 => Kept::Held,
        State::Listen | State::Closed => Kept::Held,
        State::SynRecv | State::Established | State::CloseWait => Kept::Queued,
        _ => Kept::Orphan,
    }
}

fn tuple(message: &Message) -> Option<Tuple> {
    Some(Tuple {
        local_ip: address(message.family, message.id.local_ip)?,
        remote_ip: address(message.family, message.id.remote_ip)?,
        local_port: message.id.local_port.get(),
        remote_port: message.id.remote_port.get(),
    })
}

fn address(family: u8, bytes: [u8; 16]) -> Option<Ipv6Addr> {
    let [a, b, c, d, ..] = bytes;
    match i32::from(family) {
        libc::AF_INET => Some(Ipv4Addr::new(a, b, c, d).to_ipv6_mapped()),
        libc::AF_INET6 => Some(bytes.into()),
        _ => None,
    }
}

/// The attributes of interest.
#[derive(Default)]
struct Attributes {
    /// It is a full socket.
    is_full: bool,
    cgroup: Option<u64>,
    progress: Option<Progress>,
    bind_no_port: Option<bool>,
    /// For a TCP socket.
    subflow_of: Option<Multipath>,
    /// For an MPTCP socket.
    token: Option<NonZeroU32>,
}

/// The beginning of `struct mptcp_info`.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct MptcpInfo {
    numbers: [u8; 6],
    padding: [u8; 2],
    flags: u32,
    token: u32,
}

/// The beginning of `struct tcp_info`.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct TcpInfo {
    state_and_others: [u8; 5],
    options: u8,
    scales_and_more: [u8; 2],
    before: [u32; 9],
    last_data_sent_ms: u32,
    last_ack_sent_ms: u32,
    last_data_recv_ms: u32,
    last_ack_recv_ms: u32,
    between: [u32; 11],
    pacing_rates: [u64; 2],
    bytes_acked: u64,
    bytes_received: u64,
}

const _: () = assert!(std::mem::offset_of!(TcpInfo, bytes_acked) == 120, "as in `linux/tcp.h`");

impl TcpInfo {
    fn progress(&self) -> Progress {
        Progress {
            acked: self.bytes_acked,
            received: self.bytes_received,
            quiet_ms: self.last_ack_recv_ms,
            received_ms: self.last_data_recv_ms,
            sent_ms: self.last_data_sent_ms,
            timestamps: self.options & TIMESTAMPS != 0,
        }
    }
}

impl Attributes {
    fn read(bytes: &[u8], protocol: Of) -> Self {
        let mut attributes = Self::default();
        for (kind, value) in each(bytes) {
            match kind {
                INFO if protocol == Of::Mptcp => attributes.token = mptcp_token(value),
                INFO => attributes.progress = TcpInfo::read_from_prefix(value).ok().map(|(info, _)| info.progress()),
                SHUTDOWN => attributes.is_full = true,
                CGROUP_ID => attributes.cgroup = u64::read_from_bytes(value).ok(),
                SOCKOPT => attributes.bind_no_port = value.get(1).map(|bits| bits & BIND_NO_PORT != 0),
                ULP => attributes.subflow_of = subflow_of(value),
                _ => {}
            }
        }
        attributes
    }
}

/// A listener has no token: 0 stands for none.
fn mptcp_token(info: &[u8]) -> Option<NonZeroU32> {
    MptcpInfo::read_from_prefix(info).ok().and_then(|(info, _)| NonZeroU32::new(info.token))
}

/// The MPTCP connection that uses a TCP socket, if any. For a listener the kernel shows only the protocol's name.
fn subflow_of(ulp: &[u8]) -> Option<Multipath> {
    let find = |bytes, wanted| each(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let name = find(ulp, ULP_NAME)?;
    let token = find(ulp, ULP_MPTCP).and_then(|it| find(it, LOCAL_TOKEN)).and_then(|it| u32::read_from_bytes(it).ok());
    name.starts_with(b"mptcp").then_some(Multipath { token: token.and_then(NonZeroU32::new), state: None })
}

/// Attributes and their values, in order.
fn each(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, value, rest) = attribute(bytes)?;
        bytes = rest;
        Some((kind, value))
    })
}

/// The first attribute, and what follows it.
fn attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (header, _) = AttributeHeader::read_from_prefix(bytes).ok()?;
    let length = usize::from(header.length);
    let value = bytes.get(size_of::<AttributeHeader>()..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    // The upper two bits are flags.
    Some((header.kind & 0x3fff, value, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::model::event::Bound;

    const ABOUT: Circumstances = Circumstances { at: 7, netns: Some(8), protocol: Of::Tcp };

    const CLOSE_WAIT: u8 = tcptrace_common::state::CLOSE_WAIT;

    fn message(state: u8, timer: u8, inode: u32) -> Message {
        let id = SocketId {
            local_port: 80.into(),
            remote_port: 40_000.into(),
            local_ip: [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            remote_ip: [127, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            interface: 6,
            cookie: [5, 1],
        };
        let (expires_ms, recv_queue, send_queue) = (250, 3, 4);
        Message { family: 2, state, timer, retransmits: 2, id, expires_ms, recv_queue, send_queue, uid: 1000, inode }
    }

    fn framed(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let length = (size_of::<Header>() + body.len()) as u32;
        let mut bytes = Header { length, kind, flags, sequence: SEQUENCE, port: 0 }.as_bytes().to_vec();
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = AttributeHeader { length: (4 + value.len()) as u16, kind }.as_bytes().to_vec();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn answer(message: &Message, attributes: &[Vec<u8>]) -> Vec<u8> {
        framed(BY_FAMILY, 0, &[message.as_bytes(), &attributes.concat()].concat())
    }

    fn read(piece: &[u8]) -> (Result<(), Reason>, Step, Vec<Socket>) {
        let (mut progress, mut sockets) = (Step::default(), Vec::new());
        let result = parse(piece, &ABOUT, &mut progress, &mut |socket| sockets.push(socket));
        (result, progress, sockets)
    }

    fn only(piece: &[u8]) -> Socket {
        let (result, _, sockets) = read(piece);
        assert_eq!(result, Ok(()));
        assert_eq!(sockets.len(), 1);
        sockets[0]
    }

    #[test]
    fn a_full_socket_is_read() {
        let attributes = [attribute(SHUTDOWN, &[0]), attribute(CGROUP_ID, &9_u64.to_ne_bytes())];
        let socket = only(&answer(&message(CLOSE_WAIT, 4, 77), &attributes));
        let found = Found {
            at: 7,
            id: Id::Cookie(0x1_0000_0005),
            tuple: Tuple {
                local_ip: Ipv4Addr::new(127, 0, 0, 1).to_ipv6_mapped(),
                remote_ip: Ipv4Addr::new(127, 0, 0, 2).to_ipv6_mapped(),
                local_port: 80,
                remote_port: 40_000,
            },
            netns: Some(8),
            uid: Some(1000),
            cgroup: Some(9),
            interface: 0,
            state: State::CloseWait,
            kept: Kept::Held,
        };
        let expected = Socket {
            found,
            inode: 77,
            recv_queue: 3,
            send_queue: 4,
            timer: Timer::Probe,
            timer_left_ns: 250_000_000,
            retransmits: 2,
            bind_no_port: None,
            is_request: false,
            progress: None,
            multipath: None,
        };
        assert_eq!(socket, expected);
    }

    #[test]
    fn a_subflow_says_so() {
        let ulp = |info: &[u8]| attribute(ULP, &[attribute(ULP_NAME, b"mptcp\0"), info.to_vec()].concat());
        let of = |attributes| only(&answer(&message(CLOSE_WAIT, 0, 77), &[attributes])).multipath;
        let tokens = [attribute(1, &[9; 4]), attribute(LOCAL_TOKEN, &0x1a0e_7afa_u32.to_ne_bytes())].concat();
        let nested = attribute(ULP_MPTCP | 0x8000, &tokens);
        assert_eq!(of(ulp(&nested)), Some(Multipath { token: NonZeroU32::new(0x1a0e_7afa), state: None }));
        assert_eq!(of(ulp(&[])), Some(Multipath { token: None, state: None }));
        assert_eq!(of(attribute(ULP, &attribute(ULP_NAME, b"tls\0"))), None);
    }

    #[test]
    fn a_socket_of_mptcp_has_its_token_and_state() {
        let mut info = [0_u8; 80];
        info[12..16].copy_from_slice(&0x1a0e_7afa_u32.to_ne_bytes());
        let piece = answer(&message(CLOSE_WAIT, 0, 77), &[attribute(INFO, &info)]);
        let (about, mut sockets) = (Circumstances { protocol: Of::Mptcp, ..ABOUT }, Vec::new());
        parse(&piece, &about, &mut Step::default(), &mut |socket| sockets.push(socket)).expect("an answer");
        let expected = Some(Multipath { token: NonZeroU32::new(0x1a0e_7afa), state: Some(State::CloseWait) });
        assert_eq!(sockets[0].multipath, expected);
    }

    #[test]
    fn progress_is_read() {
        let mut info = [0_u8; 232];
        info[5] = 0x13;
        info[44..48].copy_from_slice(&1_300_u32.to_ne_bytes());
        info[52..56].copy_from_slice(&1_400_u32.to_ne_bytes());
        info[56..60].copy_from_slice(&1_500_u32.to_ne_bytes());
        info[120..128].copy_from_slice(&7_u64.to_ne_bytes());
        info[128..136].copy_from_slice(&8_u64.to_ne_bytes());
        let (quiet_ms, received_ms, sent_ms) = (1_500, 1_400, 1_300);
        let expected = Some(Progress { acked: 7, received: 8, quiet_ms, received_ms, sent_ms, timestamps: true });
        assert_eq!(only(&answer(&message(CLOSE_WAIT, 0, 1), &[attribute(INFO, &info)])).progress, expected);
        assert_eq!(only(&answer(&message(CLOSE_WAIT, 0, 1), &[attribute(INFO, &info[..130])])).progress, None);
    }

    #[test]
    fn a_mini_socket_has_a_timer_and_no_user() {
        let socket = only(&answer(&message(5, 3, 0), &[]));
        assert_eq!(socket.found.state, State::FinWait2);
        assert_eq!(socket.found.kept, Kept::Mini { due_ns: 250_000_000 });
        assert_eq!((socket.found.uid, socket.found.cgroup), (None, None));
    }

    #[rstest]
    #[case::request(SYN_RECV, false, true)]
    #[case::request_by_its_own_name(NEW_SYN_RECV, false, true)]
    #[case::fast_open(SYN_RECV, true, false)]
    fn a_request_is_told_from_a_full_socket(#[case] state: u8, #[case] is_full: bool, #[case] is_request: bool) {
        let attributes = if is_full { vec![attribute(SHUTDOWN, &[0])] } else { vec![attribute(15, &[0; 4])] };
        let socket = only(&answer(&message(state, 1, 0), &attributes));
        assert_eq!(socket.found.state, State::SynRecv);
        assert_eq!(socket.found.kept, Kept::Queued);
        assert_eq!(socket.is_request, is_request);
        assert_eq!(socket.found.uid.is_none(), is_request);
    }

    #[rstest]
    #[case(State::Established, 1, Kept::Held)]
    #[case(State::Established, 0, Kept::Queued)]
    #[case(State::CloseWait, 0, Kept::Queued)]
    #[case(State::SynRecv, 0, Kept::Queued)]
    #[case(State::Listen, 0, Kept::Held)]
    #[case(State::FinWait1, 0, Kept::Orphan)]
    #[case(State::FinWait2, 0, Kept::Orphan)]
    #[case(State::LastAck, 0, Kept::Orphan)]
    #[case(State::Closing, 0, Kept::Orphan)]
    fn state_and_inode_tell_what_has_it(#[case] state: State, #[case] inode: u32, #[case] expected: Kept) {
        assert_eq!(kept(state, inode), expected);
    }

    #[test]
    fn pseudo_states_and_other_families_are_left_out() {
        let other_family = Message { family: 1, ..message(CLOSE_WAIT, 0, 1) };
        let piece = [answer(&message(14, 0, 1), &[]), answer(&other_family, &[])].concat();
        assert_eq!(read(&piece), (Ok(()), Step::default(), Vec::new()));
    }

    #[test]
    fn one_that_is_bound_and_nothing_else_says_so() {
        let [without, with] = [0, 1].map(|bits| {
            only(&answer(
                &message(BOUND_INACTIVE, 0, 9),
                &[attribute(SHUTDOWN, &[0]), attribute(SOCKOPT, &[0x22, bits])],
            ))
        });
        assert!(without.is_bound_only());
        assert_eq!((without.bind_no_port, with.bind_no_port), (Some(false), Some(true)));
        let bound = Bound { ip: without.found.tuple.local_ip, port: 80, netns: Some(8) };
        assert_eq!(without.inspected().bound, Some(bound));
        assert_eq!(only(&answer(&message(CLOSE_WAIT, 0, 9), &[attribute(SOCKOPT, &[0])])).bind_no_port, None);
    }

    #[test]
    fn nothing_is_read_after_the_end() {
        let done = framed(libc::NLMSG_DONE as u16, 0, &0_i32.to_ne_bytes());
        let (result, progress, sockets) = read(&[done, answer(&message(CLOSE_WAIT, 0, 1), &[])].concat());
        assert_eq!((result, progress.done, sockets.len()), (Ok(()), true, 0));
    }

    #[test]
    fn an_interruption_is_noted_and_what_came_is_kept() {
        let done = framed(libc::NLMSG_DONE as u16, INTERRUPTED, &0_i32.to_ne_bytes());
        let (result, progress, sockets) = read(&[answer(&message(CLOSE_WAIT, 0, 1), &[]), done].concat());
        assert_eq!((result, sockets.len()), (Ok(()), 1));
        assert_eq!(progress, Step { done: true, interrupted: true });
    }

    #[rstest]
    #[case(libc::NLMSG_ERROR, -libc::EPERM, Some(Reason::Kernel(Errno::EPERM)))]
    #[case(libc::NLMSG_ERROR, 0, None)]
    #[case(libc::NLMSG_DONE, -libc::ENOMEM, Some(Reason::Kernel(Errno::ENOMEM)))]
    #[case(libc::NLMSG_DONE, 0, None)]
    #[case(libc::NLMSG_OVERRUN, 0, Some(Reason::Overrun))]
    fn the_kernel_can_complain(#[case] kind: i32, #[case] code: i32, #[case] expected: Option<Reason>) {
        let (result, ..) = read(&framed(kind as u16, 0, &code.to_ne_bytes()));
        assert_eq!(result.err(), expected);
    }

    #[rstest]
    #[case::no_header(&[1, 2, 3])]
    #[case::shorter_than_its_header(&framed(BY_FAMILY, 0, &[])[..8])]
    #[case::length_0(&[0; 16])]
    #[case::longer_than_the_piece(&[255; 16])]
    #[case::half_a_message(&framed(BY_FAMILY, 0, &[0; 40]))]
    fn nonsense_is_refused(#[case] piece: &[u8]) {
        assert_eq!(read(piece).0, Err(Reason::Malformed));
    }

    #[test]
    fn another_answer_is_skipped() {
        let mut piece = answer(&message(CLOSE_WAIT, 0, 1), &[]);
        piece[8] ^= 2;
        assert_eq!(read(&piece), (Ok(()), Step::default(), Vec::new()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(piece in prop::collection::vec(any::<u8>(), 0..400)) {
            read(&piece).0.ok();
        }

        #[test]
        fn no_message_makes_it_panic(
            kind in prop::sample::select(vec![1_u16, 2, 3, 4, BY_FAMILY]),
            body in prop::collection::vec(any::<u8>(), 0..200),
            wrong in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut piece = framed(kind, 0, &body);
            piece.extend(framed(kind, 0, &body));
            let at = wrong.index(piece.len());
            piece[at] = byte;
            read(&piece).0.ok();
        }
    }
}
