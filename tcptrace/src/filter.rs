//! Temporary stand-in until the filter module lands; overwrite freely. The cli uses exactly this API.
use crate::lifecycle::Row;
use crate::tcp::{Closer, State};
use ipnet::IpNet;
/// C.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "stand-in")]
pub struct Criteria { pub ports: Vec<u16>, pub local_ports: Vec<u16>, pub remote_ports: Vec<u16>, pub networks: Vec<IpNet>, pub pids: Vec<u32>, pub comms: Vec<String>, pub netns: Vec<u32>, pub states: Vec<State>, pub closers: Vec<Closer>, pub min_duration_ns: Option<u64>, pub ipv4: bool, pub ipv6: bool }
impl Criteria { /// K.
 pub fn kernel(&self) -> tcptrace_common::Filter { let mut f = tcptrace_common::Filter::default(); if let [n] = self.netns[..] { f.netns = n; } f } }
/// F.
pub struct Filter;
impl Filter { /// N.
 pub fn new(_: Criteria) -> Self { Self }
 /// P.
 pub fn push(&mut self, row: Row, out: &mut Vec<Row>) { out.push(row) }
 /// F.
 pub fn finish(&mut self, _: &mut Vec<Row>) {}
 /// F.
 pub fn filtered_out(&self) -> u64 { 0 } }
