//! A witness, if the kernel allows one, confirms every end of a TIME_WAIT in the other tests.

use serde_json::json;
use tcptrace_tests::ability::need_root;
use tcptrace_tests::attempt::skip;
use tcptrace_tests::{Namespace, Witness, pair};

/// Checks that the witness works and does not confirm everything: otherwise nothing would be confirmed.
#[test]
fn of_the_end_of_a_time_wait() {
    need_root();
    let witness = match Witness::get() {
        Ok(witness) => witness,
        Err(why) => skip(why),
    };
    let net = Namespace::enter();
    let (mut client, mut server) = pair();
    client.finish_sending();
    server.receive_end();
    server.close();
    client.receive_end();
    net.transition(&client, "FIN_WAIT2", "TIME_WAIT");
    client.close();
    net.leave();

    let told = net.life(&client);
    told.has(json!({"time_wait_end": "netns_gone"}));
    let time = |state| std::time::Duration::from_nanos(told.leaving(state)["boot_ns"].as_u64().expect("a time"));
    let late = time("TIME_WAIT") + std::time::Duration::from_secs(60);
    let confirm = || witness.confirm(client.local.port(), client.remote.port(), time("FIN_WAIT2"), late);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(confirm)).is_err(), "it ended a minute earlier");
}
