use super::*;
use crate::model::event::Cause;
use crate::model::tcp::{Closer, End, OwnerSource, Side, State, TimeWaitEnd};
use crate::study::report::TRACKED;
use std::collections::HashSet;

fn names<R>(fields: &[Field<R>]) -> Vec<&'static str> {
    fields.iter().map(|field| field.name).collect()
}

fn assert_documented<R>(fields: &[Field<R>]) {
    for field in fields {
        let name = field.name;
        assert!(field.doc.ends_with('.') && !field.doc.contains("  "), "{name}: {}", field.doc);
        let unit = ["_ns", "_us"].into_iter().find_map(|suffix| name.ends_with(suffix).then(|| &suffix[1..]));
        assert!(unit.is_none_or(|unit| unit == field.unit), "{name} is in {}", field.unit);
    }
    assert_eq!(names(fields).into_iter().collect::<HashSet<_>>().len(), fields.len(), "names are unique");
}

fn assert_words<R>(fields: &[Field<R>], name: &str, words: impl Iterator<Item = &'static str>) {
    let field = fields.iter().find(|field| field.name == name).expect("a field");
    let documented: HashSet<&str> =
        field.doc.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_')).collect();
    for word in words {
        assert!(documented.contains(word), "the doc of {name} leaves out {word}");
    }
}

#[test]
fn every_field_is_documented() {
    assert_documented(TRANSITION_FIELDS);
    assert_documented(CONNECTION_FIELDS);
    assert_documented(STUCK_TRANSITION_FIELDS);
    assert_documented(SOCKET_FIELDS);
    assert_documented(COUNT_FIELDS);
    assert_documented(FEATURE_FIELDS);
    assert_documented(LOSS_FIELDS);
    assert_documented(AUDIT_FIELDS);
    assert_documented(AUDITED_FIELDS);
    assert_documented(STUCK_CONNECTION_FIELDS);
    assert_documented(REPORT_FIELDS);
    assert_documented(REPORT_HOST_FIELDS);
    assert_documented(REPORT_LOSS_FIELDS);
    assert_documented(REPORT_DAMAGE_FIELDS);
    assert_documented(REPORT_COUNT_FIELDS);
    assert_documented(REPORT_STATE_FIELDS);
    assert_documented(REPORT_BUCKET_FIELDS);
    assert_documented(REPORT_GROUP_FIELDS);
    assert_documented(REPORT_FAILURE_FIELDS);
    assert_documented(REPORT_CHURN_FIELDS);
    assert_documented(REPORT_OPEN_FIELDS);
    assert_documented(REPORT_POINT_FIELDS);
    assert_documented(REPORT_SLOWEST_FIELDS);
}

#[test]
fn every_word_is_documented() {
    let closers = || Closer::ALL.iter().map(|word| word.as_str());
    assert_words(TRANSITION_FIELDS, "old", State::ALL.iter().map(|word| word.as_str()));
    assert_words(TRANSITION_FIELDS, "closer", closers());
    assert_words(TRANSITION_FIELDS, "side", Side::ALL.iter().map(|word| word.as_str()));
    assert_words(TRANSITION_FIELDS, "owner_source", OwnerSource::ALL.iter().map(|word| word.as_str()));
    assert_words(CONNECTION_FIELDS, "closer", closers());
    assert_words(LOSS_FIELDS, "cause", Cause::ALL.iter().map(|cause| cause.as_str()));
    assert_words(CONNECTION_FIELDS, "end", End::ALL.iter().map(|word| word.as_str()));
    assert_words(CONNECTION_FIELDS, "time_wait_end", TimeWaitEnd::ALL.iter().map(|word| word.as_str()));
}

#[test]
fn names_are_a_contract() {
    let transition = "event time boot_ns conn protocol family local remote netns old new held_ns held_at_least pid \
                      tid comm uid cgroup owner_source side closer reason orphan netns_name cgroup_id container unit \
                      close_pid close_comm";
    assert_eq!(names(TRANSITION_FIELDS).join(" "), transition);
    let connection = "event opened closed boot_ns conn protocol family local remote netns pid tid comm uid cgroup \
                      owner_source side closer end states established_ns close_wait_ns time_wait_ns time_wait_end \
                      bytes_sent bytes_received bytes_unread retransmits srtt_us close_pid close_tid close_comm \
                      complete netns_name cgroup_id container unit in_flight retransmits_unanswered reset_received";
    assert_eq!(names(CONNECTION_FIELDS).join(" "), connection);
    let socket = "event time boot_ns conn protocol family local remote netns netns_name state kept age_ns age_at_least \
                  time_wait_left_ns recv_queue send_queue timer timer_left_ns retransmits pid comm fd holders \
                  owner_source inode uid cgroup cgroup_id container unit listener_pid listener_comm \
                  mptcp_subflow mptcp_token mptcp_state";
    assert_eq!(names(SOCKET_FIELDS).join(" "), socket);
    let count = "event by state total held queued orphan mini pid comm listener_pid listener_comm local remote netns \
                 several_owners groups";
    assert_eq!(names(COUNT_FIELDS).join(" "), count);
    assert_eq!(names(FEATURE_FIELDS).join(" "), "event feature purpose available detail partial");
    assert_eq!(names(LOSS_FIELDS).join(" "), "event time boot_ns cause count");
    let audit = "event time boot_ns netns netns_name counter seen expected difference within";
    assert_eq!(names(AUDIT_FIELDS).join(" "), audit);
    let audited = "event time boot_ns namespaces gone unclear transitions lost lost_transitions unexplained";
    assert_eq!(names(AUDITED_FIELDS).join(" "), audited);
    let stuck = "holder_pid holder_comm fd holders accepted listener_pid listener_comm bytes_unacked bytes_since \
                 mptcp_subflow mptcp_token mptcp_state";
    let figures = "event from to duration_ns events transitions lost lost_at_least damaged connections opened opened_per_second \
                   opened_peak_per_second opened_peak_time ended ended_per_second ended_peak_per_second \
                   ended_peak_time open incomplete failed reset counted bytes_sent bytes_received retransmits \
                   closer_undecided";
    assert_eq!(names(REPORT_FIELDS).join(" "), figures);
    let group = "others partial host pid processes comm container unit cgroup remote local_port";
    let bounds = "p50_at_least p90_at_least p99_at_least";
    let groups = "event state by connections share total_ns total_share open failed at_least never_accepted p50_ns \
                  p90_ns longest_ns longest_at_least bytes_sent bytes_received";
    assert_eq!(names(REPORT_GROUP_FIELDS).join(" "), format!("{groups} {group} netns netns_name p99_ns {bounds}"));
    let failure = "event end by connections share";
    assert_eq!(names(REPORT_FAILURE_FIELDS).join(" "), format!("{failure} {group} netns netns_name"));
    let open = "event state by connections share never_accepted oldest_ns oldest_at_least";
    assert_eq!(names(REPORT_OPEN_FIELDS).join(" "), format!("{open} {group} netns netns_name"));
    let churn = "event side connections per_second longer active p50_ns mean_bytes_sent mean_bytes_received";
    assert_eq!(names(REPORT_CHURN_FIELDS).join(" "), format!("{churn} {group}"));
    assert_eq!(names(REPORT_COUNT_FIELDS).join(" "), "event property value connections share");
    let state = "event state sockets at_least open never_accepted min_ns p50_ns p90_ns p99_ns max_ns at_least_p50_ns \
                 at_least_max_ns peak_sockets peak_time peak_duration_ns unplaced";
    assert_eq!(names(REPORT_STATE_FIELDS).join(" "), format!("{state} {bounds}"));
    assert_eq!(names(REPORT_BUCKET_FIELDS).join(" "), "event state from_ns to_ns exact at_least");
    let states = TRACKED.map(|state| state.as_str().to_ascii_lowercase()).join(" ");
    let point = format!("event time duration_ns opened ended failed {states}");
    assert_eq!(names(REPORT_POINT_FIELDS).join(" "), point);
    let slowest = "event slow held_ns held_at_least host opened closed conn family local remote netns netns_name pid \
                   comm uid cgroup container unit owner_source side closer end states time_wait_end bytes_sent \
                   bytes_received retransmits complete";
    assert_eq!(names(REPORT_SLOWEST_FIELDS).join(" "), slowest);
    assert_eq!(names(STUCK_TRANSITION_FIELDS).join(" "), stuck);
    assert_eq!(names(STUCK_CONNECTION_FIELDS).join(" "), format!("state age_ns age_at_least {stuck}"));
}
