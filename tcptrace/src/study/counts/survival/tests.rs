//! Calculations by hand, and simulated lives of known length.

use proptest::prelude::*;

use super::*;

/// Observed from the beginning to the end.
fn whole(ns: u64) -> Seen {
    Seen { from_ns: Some(0), to_ns: ns, ended: true }
}

/// Observed from the beginning on, and not ended.
fn lasting(ns: u64) -> Seen {
    Seen { ended: false, ..whole(ns) }
}

/// Older than its observation.
fn older(ns: u64, ended: bool) -> Seen {
    Seen { from_ns: None, to_ns: ns, ended }
}

fn of(all: impl IntoIterator<Item = Seen>) -> Survival<7> {
    let mut survival = Survival::default();
    all.into_iter().for_each(|seen| survival.add(seen));
    survival
}

fn times(number: usize, seen: Seen) -> impl Iterator<Item = Seen> {
    std::iter::repeat_n(seen, number)
}

const S: u64 = 1_000_000_000;

/// Remission of leukaemia under 6-mercaptopurine in weeks (Freireich et al. 1963), as in every textbook: the median of
/// the product-limit estimate is 23, and its curve never falls below 0.448.
#[test]
fn the_textbook_has_a_median_of_23() {
    let ended = [6, 6, 6, 7, 10, 13, 16, 22, 23].map(whole);
    let censored = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35].map(lasting);
    let survival = of(ended.into_iter().chain(censored));
    // 0.857 after 6, 0.807 after 7, 0.753 after 10, 0.690, 0.627, 0.538 after 22.
    for (hundredths, expected) in [(14, 6), (19, 7), (24, 10), (30, 13), (37, 16), (46, 22), (50, 23), (55, 23)] {
        assert_eq!(survival.quantile(hundredths), Held::Exactly(expected), "{hundredths}");
    }
    // Half of the stays that presumably last were still observed at 25, and fewer after that.
    assert_eq!(survival.quantile(56), Held::AtLeast(25));
}

#[test]
fn a_leak_makes_the_median_longer() {
    let survival = of(times(10, whole(7_690)).chain((0..20).map(|number| lasting(4 * S + number))));
    assert_eq!(survival.quantile(50), Held::AtLeast(4 * S));
    assert_eq!(survival.quantile(30), Held::Exactly(7_690));
}

#[test]
fn two_that_are_known_do_not_stand_for_all() {
    let open = (0..72_662_u64).map(|number| lasting(number * 25 * S / 72_662));
    let survival = of(times(2, whole(260_000_000)).chain(open));
    for hundredths in [1, 50, 99] {
        let found = survival.quantile(hundredths);
        assert!(matches!(found, Held::AtLeast(ns) if (22 * S..=25 * S).contains(&ns)), "{found}");
    }
}

/// Of TIME_WAITs that begin at any time within 70 s, few are seen to their end. Those began first; they are not the
/// shortest.
#[test]
fn a_few_that_were_watched_long_enough_stand_for_all() {
    let begun = |number: u64| (number * 70 * S / 7_000, 60 * S + number % 16 * S / 10);
    let seen = |(at, ns)| if at + ns <= 70 * S { whole(ns) } else { lasting(70 * S - at) };
    let survival = of((0..7_000).map(|number| seen(begun(number))));
    assert!(survival.known().total() < 1_000);
    for hundredths in [10, 50, 99] {
        let found = survival.quantile(hundredths);
        assert!(matches!(found, Held::Exactly(ns) if (60 * S..62 * S).contains(&ns)), "{found}");
    }
}

#[test]
fn a_leak_that_is_older_than_the_recording_counts() {
    let survival = of(times(10, whole(S / 1000)).chain(times(1_000, older(25 * S, false))));
    assert_eq!(survival.quantile(50), Held::AtLeast(25 * S));
    assert_eq!(of(times(3, older(25 * S, true))).quantile(50), Held::AtLeast(25 * S));
}

/// Their true lengths are anything from the observed length on.
#[test]
fn unknown_beginnings_make_it_a_lower_bound_if_they_matter() {
    let few = of(times(100, whole(60 * S)).chain((1..=5).map(|number| older(number * S, true))));
    assert_eq!(few.quantile(50), Held::Exactly(60 * S));
    assert_eq!(few.quantile(99), Held::AtLeast(60 * S));
    let many = of(times(100, whole(60 * S)).chain(times(150, older(S, true))));
    assert_eq!(many.quantile(50), Held::AtLeast(S));
}

#[test]
fn one_that_lasts_long_does_not_stand_for_all() {
    let survival = of(times(10, whole(7_690)).chain(times(20, lasting(4 * S))).chain([whole(18_000 * S)]));
    assert_eq!(survival.quantile(50), Held::AtLeast(4 * S));
    assert_eq!(of([1, 10, 100].map(lasting)).quantile(50), Held::AtLeast(10));
}

#[test]
fn nothing_says_nothing() {
    assert_eq!(of([]).quantile(50), Held::Unknown);
    assert_eq!(of([lasting(0)]).quantile(50), Held::Unknown);
    assert_eq!(of([whole(0)]).quantile(50), Held::Exactly(0));
    let mut emptied = of([whole(5), older(7, false)]);
    emptied.remove(whole(5));
    emptied.remove(older(7, false));
    assert_eq!((emptied.total(), emptied.quantile(50)), (0, Held::Unknown));
}

/// Of two stays that are observed from 10 on, one ends at 20. Of three that are observed from 0 on, one had ended at 5.
#[test]
fn those_that_come_later_are_at_risk_later() {
    let come = |to_ns| Seen { from_ns: Some(10), to_ns, ended: true };
    let survival = of([whole(5), whole(20), whole(30), come(20), come(30)]);
    // 2/3 after 5, half of that after 20, zero after 30.
    assert_eq!([33, 34, 66, 67].map(|q| survival.quantile(q)), [5, 20, 20, 30].map(Held::Exactly));
}

/// Numbers that depend only on the seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In 0..1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.unit() * bound as f64) as u64
    }
}

/// Kinds of lives: short ones, timers, and leaks.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Of exponential length.
    Memoryless { mean: f64 },
    /// Nearly constant length.
    Timer { length: f64 },
    /// Some are short, the others very long.
    Leak { share: f64 },
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (0.1..20.0).prop_map(|mean| Kind::Memoryless { mean }),
        (1.0..60.0).prop_map(|length| Kind::Timer { length }),
        (0.1..0.9).prop_map(|share| Kind::Leak { share }),
    ]
}

impl Kind {
    fn length(self, random: &mut Random) -> u64 {
        let seconds = match self {
            Self::Memoryless { mean } => -mean * (1.0 - random.unit()).ln(),
            Self::Timer { length } => length * (1.0 + random.unit() / 30.0),
            Self::Leak { share } if random.unit() < share => 1_000.0,
            Self::Leak { .. } => 0.001 + random.unit() / 100.0,
        };
        1 + (seconds * S as f64) as u64
    }
}

/// Beginning and true length of a stay.
type Life = (u64, u64);

const LIVES: usize = 1_000;

/// How long before the window lives begin.
const BEFORE: u64 = 100 * S;

/// Lives that begin at any time from long before the window to its end, with lengths of the same range.
fn lives(kind: Kind, window: u64, random: &mut Random) -> Vec<Life> {
    (0..LIVES).map(|_| (random.below(BEFORE + window), kind.length(random))).collect()
}

/// The observation of a life in the window, if there is one.
fn watched((begin, length): Life, window: u64, knows_age: bool) -> Option<Seen> {
    let (opens, closes) = (BEFORE, BEFORE + window);
    let end = begin + length;
    if end <= opens || begin >= closes {
        return None;
    }
    let (last, ended) = (end.min(closes), end <= closes);
    if begin >= opens || knows_age {
        return Some(Seen { from_ns: Some(opens.saturating_sub(begin)), to_ns: last - begin, ended });
    }
    Some(older(last - opens, ended))
}

/// Whether a quantile holds for the true lengths, except for chance: `slack` is a share.
fn holds(found: Held, hundredths: u64, truth: &[u64], slack: f64) -> bool {
    let share = |count: usize| count as f64 / truth.len() as f64;
    let below = |ns: f64| share(truth.iter().filter(|length| (**length as f64) < ns).count());
    let wanted = hundredths as f64 / 100.0;
    let (off, bound) = (1.0 + 1.0 / f64::from(TOLERANCE as u32) + 0.005, found.known_ns().unwrap_or(0) as f64);
    match found {
        Held::Unknown => true,
        Held::AtLeast(_) => below(bound) <= wanted + slack,
        Held::Exactly(_) => below(bound / off) <= wanted + slack && below(bound * off) >= wanted - slack,
    }
}

proptest! {
    /// For any lives, any window, and any number of partial observations: an exact quantile is that of the true lengths
    /// of all observed lives, and a lower bound is below it.
    #[test]
    fn quantiles_are_those_of_the_true_lengths(seed: u64, kind in kind(), window in 1..100_u64) {
        let random = &mut Random(seed);
        let lives = lives(kind, window * S, random);
        let seen: Vec<_> = lives.iter().filter_map(|life| Some((watched(*life, window * S, false)?, life.1))).collect();
        prop_assume!(seen.len() > 100);
        let truth: Vec<u64> = seen.iter().map(|(_, length)| *length).collect();
        let survival = of(seen.iter().map(|(seen, _)| *seen));
        for hundredths in [10, 50, 90, 99] {
            let found = survival.quantile(hundredths);
            let slack = 2.5 / (truth.len() as f64).sqrt();
            prop_assert!(holds(found, hundredths, &truth, slack), "P{hundredths} {found} of {} lives", truth.len());
        }
    }

    /// If all ages are known, lives that predate the window are at risk from its start on. The quantile is that of all
    /// lives, observed or not.
    #[test]
    fn lives_of_known_age_represent_the_missed_ones(seed: u64, mean in 0.5..20.0, window in 20..100_u64) {
        let random = &mut Random(seed);
        let lives = lives(Kind::Memoryless { mean }, window * S, random);
        let truth: Vec<u64> = lives.iter().map(|(_, length)| *length).collect();
        let survival = of(lives.iter().filter_map(|life| watched(*life, window * S, true)));
        for hundredths in [10, 50, 90] {
            let found = survival.quantile(hundredths);
            let slack = 2.5 / (survival.total() as f64).sqrt();
            prop_assert!(holds(found, hundredths, &truth, slack), "P{hundredths} {found} of {}", survival.total());
        }
    }

    /// If everything was observed, the result equals counting.
    #[test]
    fn without_gaps_it_counts(mut lengths in proptest::collection::vec(1..100 * S, 1..200), hundredths in 1..=100_u64) {
        let survival = of(lengths.iter().copied().map(whole));
        lengths.sort_unstable();
        let exact = lengths[(lengths.len() as u64 * hundredths).div_ceil(100) as usize - 1];
        let found = survival.quantile(hundredths);
        prop_assert!(!found.is_at_least(), "all is known");
        let found = found.known_ns().unwrap_or(0);
        prop_assert!(found.abs_diff(exact) <= exact / 256 + 1, "{found} for {exact}");
    }

    #[test]
    fn what_is_merged_can_be_taken_out(one in stays(), other in stays()) {
        let [first, second] = [&one, &other].map(|stays| of(stays.iter().copied()));
        let both = of(one.iter().chain(&other).copied());
        let mut merged = first.clone();
        merged.merge(&second);
        prop_assert_eq!(&merged, &both);
        other.iter().for_each(|seen| merged.remove(*seen));
        prop_assert_eq!(merged.total(), first.total());
        for hundredths in [1, 10, 50, 90, 99, 100] {
            let (found, expected) = (merged.quantile(hundredths), first.quantile(hundredths));
            prop_assert_eq!(found.is_at_least(), expected.is_at_least());
            let (found, expected) = (found.known_ns().unwrap_or(0), expected.known_ns().unwrap_or(0));
            // Smallest and largest length are no longer known, only their buckets.
            prop_assert!(found.abs_diff(expected) <= expected / 64 + 1, "{} for {}", found, expected);
        }
    }
}

fn stays() -> impl Strategy<Value = Vec<Seen>> {
    let stay = (proptest::option::weighted(0.7, 0..S), 1..100 * S, any::<bool>());
    let seen = |(from_ns, ns, ended): (Option<u64>, u64, bool)| {
        let from_ns = from_ns.map(|from: u64| if from < S / 2 { 0 } else { from });
        Seen { from_ns, to_ns: from_ns.unwrap_or(0) + ns, ended }
    };
    proptest::collection::vec(stay.prop_map(seen), 0..60)
}
