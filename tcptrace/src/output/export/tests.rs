//! Reads exported files back.

#[cfg(feature = "parquet")]
mod dataset;
mod perfetto;
#[cfg(feature = "parquet")]
mod table;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::model::row::{Connection, Held, Identity, Owner, Stay};
use crate::model::tcp::{Comm, OwnerSource, State, Task};
use crate::output::Json;
use crate::output::samples::{self, CONTEXT};

fn origin() -> Origin {
    Origin {
        number: 0,
        host: "web-1".into(),
        kernel: "6.18.44".into(),
        boot_id: "6ad8fcbd-34df-42d5-bc33-d4b3a4e7d1a9".into(),
        context: CONTEXT.clone(),
    }
}

/// Anything that a trace can hold.
pub(super) fn any_connection() -> impl Strategy<Value = Connection> {
    let held = prop_oneof![any::<u64>().prop_map(Held::AtLeast), (0..1_u64 << 40).prop_map(Held::Exactly)];
    let stay = (0..State::ALL.len(), held).prop_map(|(state, held)| Stay { state: State::ALL[state], held });
    let stays = prop::collection::vec(stay, 0..6);
    let owner = any::<Option<(u32, [u8; 16])>>();
    (any::<(u64, Option<u64>, u64)>(), stays, owner, 0..samples::connections().len()).prop_map(
        |((conn, opened_ns, boot_ns), stays, owner, sample)| {
            let base = samples::connections().swap_remove(sample);
            let owner = owner
                .map(|(pid, comm)| Owner { task: Task { pid, tid: pid, comm: Comm(comm) }, source: OwnerSource::Scan });
            let identity = Identity { conn, owner, ..base.identity };
            Connection { identity, opened_ns, boot_ns, stays, ..base }
        },
    )
}

#[cfg_attr(not(feature = "parquet"), expect(dead_code, reason = "only Parquet is compared with JSON"))]
fn lines(write: impl FnOnce(&mut Json<&mut Vec<u8>>)) -> Vec<Value> {
    let mut lines = Vec::new();
    write(&mut Json::new(&mut lines));
    let lines = String::from_utf8(lines).expect("UTF-8");
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}
