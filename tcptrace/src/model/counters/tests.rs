use proptest::prelude::*;
use rstest::rstest;

use super::*;

const S: u64 = 1_000_000_000;

/// What a namespace shows at a second: its number, its cookie, counts and levels.
fn reading(second: u64, netns: u32, cookie: Option<u64>, counts: &[(&str, u64)], levels: &[(&str, u64)]) -> Counters {
    let values = |values: &[(&str, u64)]| values.iter().map(|(name, value)| ((*name).into(), *value)).collect();
    Counters { netns, cookie, at: second * S, counts: values(counts), levels: values(levels) }
}

fn brief(sample: &Sample) -> String {
    let values = |values: &Values| values.iter().map(|(name, value)| format!(" {name}={value}")).collect::<String>();
    let since = sample.since.map_or("its making".to_owned(), |since| (since / S).to_string());
    let kind = if sample.whole { "all" } else { "more" };
    let quiet = sample.quiet_until.filter(|quiet| Some(*quiet) != sample.since);
    let quiet = quiet.map_or(String::new(), |quiet| format!(" quiet until {}", quiet / S));
    let (at, netns) = (sample.at / S, sample.netns);
    format!("{at}: {netns} {kind} since {since}{quiet}:{}{}", values(&sample.counts), values(&sample.levels))
}

/// Feeds readings of one namespace, one after the other, and returns the samples.
fn told(readings: &[Counters], whole: bool) -> Vec<String> {
    let mut history = History::default();
    let mut samples = Vec::new();
    for reading in readings {
        history.take(reading.clone(), whole, &mut samples);
        history.end_look(None);
    }
    samples.iter().map(brief).collect()
}

const DROPS: &str = "TcpExt.ListenDrops";

#[test]
fn what_no_event_tells_is_told_at_once_and_the_rest_later() {
    let looks = [
        reading(100, 7, Some(1), &[(DROPS, 5), ("Tcp.ActiveOpens", 9)], &[("Tcp.CurrEstab", 2)]),
        reading(101, 7, Some(1), &[(DROPS, 5), ("Tcp.ActiveOpens", 9)], &[("Tcp.CurrEstab", 2)]),
        reading(102, 7, Some(1), &[(DROPS, 5), ("Tcp.ActiveOpens", 10)], &[]),
        reading(103, 7, Some(1), &[(DROPS, 8), ("Tcp.ActiveOpens", 11)], &[]),
        reading(104, 7, Some(1), &[(DROPS, 8), ("Tcp.ActiveOpens", 12)], &[("Tcp.CurrEstab", 1)]),
        reading(112, 7, Some(1), &[(DROPS, 8), ("Tcp.ActiveOpens", 13)], &[("Tcp.CurrEstab", 3)]),
        reading(113, 7, Some(1), &[(DROPS, 8), ("Tcp.ActiveOpens", 14)], &[("Tcp.CurrEstab", 3)]),
    ];
    assert_eq!(
        told(&looks, false),
        [
            "100: 7 all since its making: Tcp.ActiveOpens=9 TcpExt.ListenDrops=5 Tcp.CurrEstab=2",
            "103: 7 more since 101 quiet until 102: Tcp.ActiveOpens=2 TcpExt.ListenDrops=3 Tcp.CurrEstab=0",
            "113: 7 more since 103 quiet until 112: Tcp.ActiveOpens=3 Tcp.CurrEstab=3",
        ]
    );
}

#[test]
fn a_namespace_that_comes_later_is_told_from_its_making_on() {
    let looks = [
        reading(100, 7, Some(1), &[(DROPS, 5)], &[]),
        reading(101, 8, Some(2), &[(DROPS, 4)], &[]),
        reading(102, 8, Some(2), &[(DROPS, 6)], &[]),
    ];
    let expected = [
        "100: 7 all since its making: TcpExt.ListenDrops=5",
        "101: 8 more since its making: TcpExt.ListenDrops=4",
        "102: 8 more since 101: TcpExt.ListenDrops=2",
    ];
    assert_eq!(told(&looks, false), expected);
}

/// A cookie identifies a namespace; where the kernel has none, counters that are smaller than before do.
#[rstest]
#[case::by_cookie(Some(1), Some(2), 9, "all_of_it")]
#[case::same(Some(1), Some(1), 9, "difference")]
#[case::same_and_backwards(Some(1), Some(1), 3, "nothing")]
#[case::backwards(None, None, 3, "all_of_it")]
#[case::gone(None, None, 0, "silence")]
#[case::no_cookie(None, None, 9, "difference")]
fn a_number_that_is_used_again(
    #[case] before: Option<u64>,
    #[case] now: Option<u64>,
    #[case] drops: u64,
    #[case] expected: &str,
) {
    let counts = [(DROPS, drops)];
    let counts = if drops == 0 { &[][..] } else { &counts };
    let looks = [reading(100, 7, before, &[(DROPS, 5)], &[]), reading(101, 7, now, counts, &[])];
    let told = told(&looks, false);
    let told: Vec<&str> = told[1..].iter().map(String::as_str).collect();
    let all_of_it = format!("101: 7 more since its making: TcpExt.ListenDrops={drops}");
    match expected {
        "all_of_it" => assert_eq!(told, [all_of_it.as_str()]),
        "difference" => assert_eq!(told, ["101: 7 more since 100: TcpExt.ListenDrops=4"]),
        "silence" => assert_eq!(told, ["101: 7 more since its making:"]),
        _ => assert_eq!(told, [""; 0]),
    }
}

/// A file begins with the totals, besides the changes.
#[test]
fn everything_is_told_again() {
    let looks = [reading(100, 7, None, &[(DROPS, 5)], &[]), reading(101, 7, None, &[(DROPS, 6)], &[])];
    assert_eq!(
        told(&looks, true),
        [
            "100: 7 all since its making: TcpExt.ListenDrops=5",
            "101: 7 more since 100: TcpExt.ListenDrops=1",
            "101: 7 all since its making: TcpExt.ListenDrops=6",
        ]
    );
}

#[test]
fn those_that_are_gone_are_forgotten() {
    let mut history = History::default();
    let mut samples = Vec::new();
    history.take(reading(100, 7, None, &[(DROPS, 5)], &[]), false, &mut samples);
    history.end_look(Some(&[8].into_iter().collect()));
    history.take(reading(101, 7, None, &[(DROPS, 6)], &[]), false, &mut samples);
    assert_eq!(brief(&samples[1]), "101: 7 more since its making: TcpExt.ListenDrops=6");
}

#[test]
fn only_what_no_event_tells_is_a_row() {
    let sample = Sample {
        at: 9 * S,
        netns: 7,
        since: Some(2 * S),
        quiet_until: Some(8 * S),
        counts: reading(9, 7, None, &[(DROPS, 3), ("Tcp.ActiveOpens", 1), ("TcpExt.SyncookiesSent", 0)], &[]).counts,
        ..Sample::default()
    };
    let row = Increase { at: 9 * S, netns: 7, counter: Unseen::ListenDrops, increase: 3, over_ns: Some(S) };
    assert_eq!(sample.increases().collect::<Vec<_>>(), [row]);
    assert_eq!(Sample { whole: true, ..sample }.increases().count(), 0, "it happened before");
}

#[test]
fn names_in_traces_are_those_that_are_printed() {
    for counter in Unseen::ALL {
        assert_eq!(serde_json::to_value(counter).expect("JSON"), counter.as_str());
        assert!(counter.key().ends_with(counter.as_str()));
    }
}

#[test]
fn what_a_trace_cannot_have_is_passed_over() {
    let long = "x".repeat(65);
    let text = format!(
        r#"{{"at":5,"new":{{"a":[]}},"counts":{{"a b":1,"":2,"\u001b[2J":3,"{long}":"4","Tcp.ActiveOpens":5}}}}"#
    );
    let sample: Sample = serde_json::from_str(&text).expect("a sample");
    assert_eq!((sample.at, sample.counts.len(), sample.counts.get("Tcp.ActiveOpens")), (5, 1, Some(&5)));
    let many: String = (0..100_000).map(|number| format!(r#""n{number}":1,"#)).collect();
    let text = format!(r#"{{"levels":{{{}}}}}"#, many.trim_end_matches(','));
    assert_eq!(serde_json::from_str::<Sample>(&text).expect("a sample").levels.len(), 1024);
    assert!(serde_json::from_str::<Sample>(r#"{"counts":{"a":-1}}"#).is_err());
}

proptest! {
    /// The samples always add up to what the kernel has counted.
    #[test]
    fn differences_add_up(steps in prop::collection::vec((0..5_u64, 0..3_u64, 1..6_u64), 1..40), whole in any::<bool>()) {
        let mut history = History::default();
        let mut samples = Vec::new();
        let (mut drops, mut opens, mut second) = (3, 0, 100);
        for (more_drops, more_opens, later) in steps {
            (drops, opens, second) = (drops + more_drops / 4, opens + more_opens, second + later);
            history.take(reading(second, 7, Some(1), &[(DROPS, drops), ("Tcp.ActiveOpens", opens)], &[]), whole, &mut samples);
            history.end_look(None);
        }
        history.take(reading(second + 10, 7, Some(1), &[(DROPS, drops), ("Tcp.ActiveOpens", opens)], &[]), true, &mut samples);
        let base = &samples[0];
        prop_assert!(base.whole);
        for (name, now) in [(DROPS, drops), ("Tcp.ActiveOpens", opens)] {
            let sum: u64 = samples.iter().filter(|sample| !sample.whole).filter_map(|sample| sample.counts.get(name)).sum();
            prop_assert_eq!(base.counts.get(name).copied().unwrap_or(0) + sum, now);
            prop_assert_eq!(samples.last().and_then(|last| last.counts.get(name)).copied().unwrap_or(0), now);
        }
    }
}
