use std::collections::HashSet;

use super::*;
use crate::model::event::Cause;
use crate::model::tcp::{Closer, End, OwnerSource, Side, State, TimeWaitEnd};
use crate::study::diagnose::settings::Source;
use crate::study::ports::Reuse;

fn assert_documented(table: &dyn Describe) {
    let fields = table.describe();
    for field in &fields {
        let name = field.name;
        assert!(field.doc.ends_with('.') && !field.doc.contains("  "), "{name}: {}", field.doc);
        let unit = ["_ns", "_us"].into_iter().find_map(|suffix| name.ends_with(suffix).then(|| &suffix[1..]));
        assert!(unit.is_none_or(|unit| unit == field.unit), "{name} is in {}", field.unit);
        let speaks_of_null = field.doc.to_ascii_lowercase().contains("null");
        assert!(speaks_of_null || !field.nullable, "{name} does not say when it is null");
    }
    let names: HashSet<_> = fields.iter().map(|field| field.name).collect();
    assert_eq!(names.len(), fields.len(), "names of {} are unique", table.name());
}

fn assert_words(table: &dyn Describe, name: &str, words: impl Iterator<Item = &'static str>) {
    let fields = table.describe();
    let field = fields.iter().find(|field| field.name == name).expect("a field");
    let documented: HashSet<&str> =
        field.doc.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_')).collect();
    for word in words {
        assert!(documented.contains(word), "the doc of {name} leaves out {word}");
    }
}

#[test]
fn every_field_is_documented() {
    TABLES.iter().for_each(|table| assert_documented(*table));
}

#[test]
fn every_kind_of_row_has_a_name_of_its_own() {
    let names: HashSet<_> = TABLES.iter().map(|table| table.name()).collect();
    assert_eq!(names.len(), TABLES.len());
}

#[test]
fn every_word_is_documented() {
    let closers = || Closer::ALL.iter().map(|word| word.as_str());
    assert_words(&TRANSITION, "old", State::ALL.iter().map(|word| word.as_str()));
    assert_words(&TRANSITION, "closer", closers());
    assert_words(&TRANSITION, "side", Side::ALL.iter().map(|word| word.as_str()));
    assert_words(&TRANSITION, "owner_source", OwnerSource::ALL.iter().map(|word| word.as_str()));
    assert_words(&CONNECTION, "closer", closers());
    assert_words(&LOSS, "cause", Cause::ALL.iter().map(|cause| cause.as_str()));
    assert_words(&REPORT_LOSS, "cause", Cause::ALL.iter().map(|cause| cause.as_str()));
    assert_words(&CONNECTION, "end", End::ALL.iter().map(|word| word.as_str()));
    assert_words(&PORTS, "reuse", Reuse::ALL.iter().map(|word| word.as_str()));
    assert_words(&SETTING, "source", Source::ALL.iter().map(|word| word.as_str()));
    assert_words(&CONNECTION, "time_wait_end", TimeWaitEnd::ALL.iter().map(|word| word.as_str()));
}

/// A line for each kind of row. The fields of only some rows follow the bar.
#[test]
fn names_are_a_contract() {
    let line = |table: &&dyn Describe| {
        let (all, some): (Vec<_>, Vec<_>) = table.describe().into_iter().partition(|field| field.is_required);
        let words = |fields: Vec<Described>| fields.iter().map(|field| field.name).collect::<Vec<_>>().join(" ");
        let bar = if some.is_empty() { "" } else { " | " };
        format!("{}: {}{bar}{}", table.name(), words(all), words(some))
    };
    let lines: Vec<String> = TABLES.iter().map(line).collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    watch: event time boot_ns conn protocol family local remote netns old new held_ns held_at_least pid tid comm uid cgroup owner_source side closer reason orphan netns_name cgroup_id container unit close_pid close_comm pod pod_namespace container_name | holder_pid holder_comm fd holders accepted listener_pid listener_comm bytes_unacked bytes_since mptcp_subflow mptcp_token mptcp_state
    connections: event opened closed boot_ns conn protocol family local remote netns pid tid comm uid cgroup owner_source side closer end states established_ns close_wait_ns time_wait_ns time_wait_end bytes_sent bytes_received bytes_unread retransmits srtt_us close_pid close_tid close_comm complete netns_name cgroup_id container unit in_flight retransmits_unanswered reset_received idle_before_close_ns pod pod_namespace container_name | state age_ns age_at_least holder_pid holder_comm fd holders accepted listener_pid listener_comm bytes_unacked bytes_since mptcp_subflow mptcp_token mptcp_state
    watch, connections: lost: event time boot_ns cause count
    watch, connections: counter: event time boot_ns netns netns_name counter increase over_ns what meaning
    watch, connections: audit: event time boot_ns netns netns_name counter seen expected difference within
    watch, connections: unseen: event time boot_ns netns netns_name counter increase over_ns what meaning
    watch, connections: audited: event time boot_ns namespaces gone unclear transitions lost lost_transitions unexplained
    watch, connections: summary: event seen events lost lost_at_least damaged followed filtered undecided undecided_shown exit
    snapshot: event by state total held queued orphan mini pid comm listener_pid listener_comm local remote netns several_owners groups
    snapshot --list: event time boot_ns conn protocol family local remote netns netns_name state kept age_ns age_at_least time_wait_left_ns recv_queue send_queue timer timer_left_ns retransmits pid comm fd holders owner_source inode uid cgroup cgroup_id container unit listener_pid listener_comm mptcp_subflow mptcp_token mptcp_state idle_ns pod pod_namespace container_name
    snapshot --ports: event local remote netns netns_name range reserved blocked usable usable_at_most taken open fin_wait2 time_wait reusable reuse free share half_taken holds_ns holds_measured sustainable_per_second rate_per_second demand levels_off_at seconds_left pid comm several_owners groups
    check: event feature purpose available detail partial
    check: privilege: event capability held kept purpose
    report: report: event from to duration_ns events transitions lost lost_at_least damaged connections opened opened_per_second opened_peak_per_second opened_peak_time ended ended_per_second ended_peak_per_second ended_peak_time open incomplete failed reset counted bytes_sent bytes_received retransmits closer_undecided
    report: report_host: event host
    report: report_loss: event cause events lost_at_least
    report: report_damage: event detail
    report: report_counter: event counter increase first last what meaning others partial host netns netns_name
    report: report_count: event property value connections share
    report: report_state: event state sockets at_least open never_accepted min_ns p50_ns p90_ns p99_ns max_ns at_least_p50_ns at_least_max_ns peak_sockets peak_time peak_duration_ns unplaced p50_at_least p90_at_least p99_at_least
    report: report_bucket: event state from_ns to_ns exact at_least
    report: report_group: event state by connections share total_ns total_share open failed at_least never_accepted p50_ns p90_ns longest_ns longest_at_least bytes_sent bytes_received others partial host pid processes comm container unit cgroup remote local_port netns netns_name p99_ns p50_at_least p90_at_least p99_at_least
    report: report_churn: event side connections per_second longer active p50_ns mean_bytes_sent mean_bytes_received others partial host pid processes comm container unit cgroup remote local_port
    report: report_failure: event end by connections share others partial host pid processes comm container unit cgroup remote local_port netns netns_name
    report: report_open: event state by connections share never_accepted oldest_ns oldest_at_least others partial host pid processes comm container unit cgroup remote local_port netns netns_name
    report: report_point: event time duration_ns opened ended failed time_wait close_wait fin_wait2 established syn_sent syn_recv fin_wait1 closing last_ack
    report: report_slowest: event slow held_ns held_at_least host opened closed conn family local remote netns netns_name pid comm uid cgroup container unit owner_source side closer end states time_wait_end bytes_sent bytes_received retransmits complete
    report: report_fired: event host time when rule headline figures finding
    diagnose: diagnosis: event host kernel boot_id source from to looked_ns sockets opened opens_per_second netns events_lost
    diagnose: finding: event host id severity confidence headline subject figures evidence why do dont sure because_of explains first_seen last_seen count seconds_left examples
    diagnose: checked: event host id outcome reason figures
    diagnose: setting: event host netns name value default source effect risk
    diagnose: summary: event findings checked not_checked hidden exit
    diagnose --rules: rule: event id title needs recorded figures
    top --once: top: event time observed_ns surveyed sockets opened_per_second ended_per_second failed_per_second lost lost_by_cause
    top --once: top_state: event state sockets
    top --once: top_rate: event property word per_second
    top --once: top_group: event by sockets established time_wait close_wait fin_wait2 syn_sent syn_recv fin_wait1 closing last_ack opened_per_second failed_per_second oldest_close_wait_ns oldest_at_least queued queue_limit ports_free ports_left_s partial host pid processes comm container unit cgroup remote local_port netns netns_name
    top --once: top_waiter: event conn local remote state age_ns age_at_least pid comm fd
    top --once: top_queue: event local netns queued limit requests pid
    top --once: top_finding: event id severity confidence headline because_of count
    ");
}
