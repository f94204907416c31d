//! When a condition is reported: once for each thing that makes it hold, and not too often.

use std::collections::BTreeSet;

use super::Condition;

/// What makes an atom hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    /// Whom it is about, which tells it from others: words that stay as long as it lasts.
    pub whom: Box<str>,
    /// Something else that makes the condition hold explains it: it is no news beside that.
    pub is_effect: bool,
}

/// What is new: the place of an atom, and whom it is about.
pub type News = BTreeSet<(usize, Box<str>)>;

/// A condition, and what was reported of it.
#[derive(Clone, Debug)]
pub struct Alarm {
    condition: Condition,
    pause_ns: u64,
    /// What has made an atom hold ever since it was reported.
    reported: News,
    /// It has held ever since it was reported.
    is_reported: bool,
    /// It is silent until then, in ns of `CLOCK_BOOTTIME`.
    silent_until: u64,
}

impl Alarm {
    /// Is silent for `pause_ns` after each report.
    pub fn new(condition: Condition, pause_ns: u64) -> Self {
        Self { condition, pause_ns, reported: News::new(), is_reported: false, silent_until: 0 }
    }

    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// What to report, given what makes each atom hold now; `None`: nothing. What goes on is not news: it is reported again
    /// once it has ended and come back, or when something else makes the condition hold.
    pub fn check(&mut self, now: u64, atoms: &[Vec<Ground>]) -> Option<News> {
        let all = atoms.iter().enumerate().flat_map(|(place, all)| all.iter().map(move |ground| (place, ground)));
        let there: News = all.clone().map(|(place, ground)| (place, ground.whom.clone())).collect();
        self.reported.retain(|known| there.contains(known));
        let held: Vec<bool> = atoms.iter().map(|grounds| !grounds.is_empty()).collect();
        let holds = self.condition.holds(&held);
        self.is_reported &= holds;
        let causes = all.clone().filter(|(_, ground)| !ground.is_effect);
        let news: News = causes.map(|(place, ground)| (place, ground.whom.clone())).collect();
        let news: News = news.difference(&self.reported).cloned().collect();
        let is_new = !self.is_reported || !news.is_empty();
        if self.is_reported {
            // An effect belongs to what was reported, whether or not its cause goes on.
            let effects = all.clone().filter(|(_, ground)| ground.is_effect);
            self.reported.extend(effects.map(|(place, ground)| (place, ground.whom.clone())));
        }
        if !holds || !is_new || now < self.silent_until {
            return None;
        }
        self.reported = there;
        self.is_reported = true;
        self.silent_until = now.saturating_add(self.pause_ns);
        Some(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each check is a second after the one before; letters are the atoms that hold: `a`, `b`. A digit after one is whom it
    /// is about, and a `'` that something else explains it.
    fn news(when: &str, pause: u64, checks: &[&str]) -> Vec<Option<Vec<String>>> {
        let mut alarm = Alarm::new(when.parse().expect("a condition"), pause);
        let check = |(now, check): (u64, &&str)| {
            let mut atoms = [Vec::new(), Vec::new()];
            for word in check.split(' ').filter(|word| !word.is_empty()) {
                let whom = word[1..].trim_end_matches('\'').into();
                let place = usize::from(word.starts_with('b'));
                atoms[place].push(Ground { whom, is_effect: word.ends_with('\'') });
            }
            let news = alarm.check(now, &atoms)?;
            Some(news.into_iter().map(|(place, whom)| format!("{}{whom}", ["a", "b"][place])).collect())
        };
        (0..).zip(checks).map(check).collect()
    }

    fn reports(when: &str, pause: u64, checks: &[&str]) -> Vec<bool> {
        news(when, pause, checks).iter().map(Option::is_some).collect()
    }

    const EITHER: &str = "close-wait-leak or fd-limit";

    #[test]
    fn what_goes_on_is_reported_once() {
        assert_eq!(reports(EITHER, 0, &["", "a", "a", "", "a"]), [false, true, false, false, true]);
    }

    #[test]
    fn another_cause_is_news() {
        assert_eq!(reports(EITHER, 0, &["a", "a b", "b", "a b"]), [true, true, false, true]);
    }

    /// The same rule finds the same of another process.
    #[test]
    fn another_process_is_news() {
        let some = |word: &str| Some(vec![word.to_owned()]);
        assert_eq!(news(EITHER, 0, &["a1", "a1 a2", "a2", "a2 a1"]), [some("a1"), some("a2"), None, some("a1")]);
    }

    /// What is explained by what was reported needs no file of its own.
    #[test]
    fn an_effect_is_no_news() {
        assert_eq!(reports(EITHER, 0, &["a", "a b'", "b", ""]), [true, false, false, false]);
        assert_eq!(news(EITHER, 0, &["a b'"]), [Some(vec!["a".to_owned()])]);
        assert_eq!(reports(EITHER, 0, &["b'", "b'"]), [true, false], "the condition holds all the same");
    }

    /// What comes in the pause is reported after it, if it is still there.
    #[test]
    fn a_pause_puts_off() {
        assert_eq!(reports(EITHER, 3, &["a", "a b", "a b", "a b", "a b"]), [true, false, false, true, false]);
        assert_eq!(reports(EITHER, 3, &["a", "b", "", "", "a"]), [true, false, false, false, true]);
    }

    #[test]
    fn both_or_none() {
        let both = "close-wait-leak and not fd-limit";
        assert_eq!(reports(both, 0, &["", "b", "a b", "a", "a"]), [false, false, false, true, false]);
        assert_eq!(reports("not (close-wait-leak or fd-limit)", 0, &["a", "", ""]), [false, true, false]);
    }
}
