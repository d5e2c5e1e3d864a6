use proptest::prelude::*;

use super::*;
use crate::notify::testing::{START, alert};
use crate::notify::webhook::testing::webhook;

fn at(seconds: i64) -> Timestamp {
    START + Span(seconds * 1000)
}

/// A webhook, its groups, and a receiver that does as it is told.
struct Bench {
    config: Webhook,
    groups: Groups,
}

impl Bench {
    fn new(keys: &str) -> Self {
        Self { config: webhook(keys), groups: Groups::default() }
    }

    /// `n` fires at `seconds`, to be believed for four minutes.
    fn fire(&mut self, n: &str, seconds: i64) {
        let mut alert = alert("Down", &[("n", n)]);
        alert.ends_at = at(seconds + 240);
        assert!(self.groups.receive(&self.config, alert, at(seconds)));
    }

    fn end(&mut self, n: &str, seconds: i64) {
        let mut alert = alert("Down", &[("n", n)]);
        alert.ends_at = at(seconds);
        assert!(self.groups.receive(&self.config, alert, at(seconds)));
    }

    /// What is told at `seconds`: numbers that fire, and in brackets those that ended; `-` for nothing.
    fn told(&mut self, seconds: i64, outcome: Outcome) -> String {
        let messages = self.groups.due(&self.config, at(seconds), 100);
        let mut shown = Vec::new();
        for message in &messages {
            self.groups.done(&self.config, message, outcome, at(seconds));
            let one = |alert: &Alert| {
                let n = alert.labels.get("n").unwrap();
                if alert.is_resolved(at(seconds)) { format!("({n})") } else { n.to_owned() }
            };
            shown.push(message.alerts.iter().map(one).collect::<Vec<_>>().join(" "));
        }
        if shown.is_empty() { "-".to_owned() } else { shown.join("; ") }
    }

    fn taken(&mut self, seconds: i64) -> String {
        self.told(seconds, Outcome::Taken)
    }
}

#[test]
fn a_group_waits_then_changes_at_its_interval_then_repeats() {
    let mut bench = Bench::new("group_wait = '30s'\ngroup_interval = '5m'\nrepeat_interval = '1h'");
    bench.fire("1", 0);
    assert_eq!(bench.taken(29), "-");
    bench.fire("2", 29);
    assert_eq!(bench.taken(30), "1 2");
    bench.fire("3", 31);
    assert_eq!(bench.taken(329), "-");
    for second in [200, 320] {
        for n in ["1", "2", "3"] {
            bench.fire(n, second);
        }
    }
    assert_eq!(bench.taken(330), "1 2 3");
    // Nothing new until the hour is over.
    for second in (330..3900).step_by(60) {
        for n in ["1", "2", "3"] {
            bench.fire(n, second);
        }
        assert_eq!(bench.taken(second), "-", "{second}");
    }
    for n in ["1", "2", "3"] {
        bench.fire(n, 3930);
    }
    assert_eq!(bench.taken(3930), "1 2 3");
}

#[test]
fn ends_are_told_once_and_then_forgotten() {
    let mut bench = Bench::new("group_wait = '0s'\ngroup_interval = '1m'");
    bench.fire("1", 0);
    bench.fire("2", 0);
    assert_eq!(bench.taken(0), "1 2");
    bench.end("1", 20);
    bench.fire("2", 50);
    assert_eq!(bench.taken(60), "(1) 2");
    assert_eq!(bench.groups.len(), 1);
    bench.end("2", 70);
    assert_eq!(bench.taken(120), "(2)");
    assert_eq!((bench.groups.len(), bench.groups.told().len()), (0, 0));
    assert_eq!(bench.groups.next_due(), None);
    // The rules go on telling of the end for a while.
    bench.end("2", 70);
    assert_eq!(bench.groups.next_due(), None);
}

#[test]
fn ends_are_kept_silent_where_they_are_not_wanted() {
    let mut bench = Bench::new("group_wait = '0s'\ngroup_interval = '1m'\nsend_resolved = false");
    bench.fire("1", 0);
    assert_eq!(bench.taken(0), "1");
    bench.end("1", 20);
    assert_eq!(bench.taken(60), "-");
    assert_eq!(bench.groups.len(), 0);
}

#[test]
fn an_alert_that_is_not_heard_of_any_more_ends_by_itself() {
    let mut bench = Bench::new("group_wait = '0s'\ngroup_interval = '1m'");
    bench.fire("1", 0);
    assert_eq!(bench.taken(0), "1");
    assert_eq!(bench.taken(180), "-");
    assert_eq!(bench.taken(240), "(1)");
}

#[test]
fn an_alert_that_ends_before_anybody_was_told_is_no_message() {
    let mut bench = Bench::new("group_wait = '30s'");
    bench.fire("1", 0);
    bench.end("1", 10);
    assert_eq!(bench.taken(30), "-");
    assert_eq!(bench.groups.len(), 0);
}

#[test]
fn failures_are_tried_again_with_growing_waits_and_what_holds_then() {
    let mut bench = Bench::new("group_wait = '0s'\ngroup_interval = '5m'");
    bench.fire("1", 0);
    assert_eq!(bench.told(0, Outcome::Failed), "1");
    assert_eq!(bench.groups.next_due(), Some(at(1)));
    assert_eq!(bench.told(1, Outcome::Failed), "1");
    assert_eq!(bench.groups.next_due(), Some(at(3)));
    bench.fire("2", 2);
    assert_eq!(bench.told(3, Outcome::Failed), "1 2");
    let mut now = 7;
    for _ in 0..20 {
        bench.fire("1", now);
        bench.fire("2", now);
        assert_eq!(bench.told(now, Outcome::Failed), "1 2");
        let next = bench.groups.next_due().unwrap();
        assert!(next <= at(now) + BACKOFF_MAX && next > at(now));
        now = (next.0 - START.0) / 1000;
    }
    assert_eq!(bench.taken(now), "1 2");
    assert_eq!(bench.groups.next_due(), Some(at(now + 300)));
}

#[test]
fn what_is_refused_is_tried_again_at_the_interval() {
    let mut bench = Bench::new("group_wait = '0s'\ngroup_interval = '2m'");
    bench.fire("1", 0);
    assert_eq!(bench.told(0, Outcome::Refused), "1");
    assert_eq!(bench.groups.next_due(), Some(at(120)));
    assert_eq!(bench.taken(120), "1");
}

#[test]
fn one_message_of_a_group_is_on_its_way_at_a_time() {
    let mut bench = Bench::new("group_wait = '0s'");
    bench.fire("1", 0);
    assert_eq!(bench.groups.due(&bench.config, at(0), 100).len(), 1);
    bench.fire("2", 1);
    assert_eq!(bench.groups.due(&bench.config, at(1), 100).len(), 0);
    assert_eq!(bench.groups.next_due(), None);
}

#[test]
fn labels_decide_the_group() {
    let mut bench = Bench::new("group_wait = '0s'\ngroup_by = ['n']");
    bench.fire("1", 0);
    bench.fire("2", 0);
    assert_eq!(bench.taken(0), "1; 2");
    let mut bench = Bench::new("group_wait = '0s'\ngroup_by = ['...']");
    bench.fire("1", 0);
    bench.fire("2", 0);
    assert_eq!(bench.taken(0), "1; 2");
    let mut bench = Bench::new("group_wait = '0s'\ngroup_by = []");
    bench.fire("1", 0);
    bench.fire("2", 0);
    assert_eq!(bench.taken(0), "1 2");
}

#[test]
fn a_restart_tells_nothing_twice() {
    let mut bench = Bench::new("group_wait = '30s'\nrepeat_interval = '1h'");
    bench.fire("1", 0);
    assert_eq!(bench.taken(30), "1");
    let text = serde_json::to_string(bench.groups.told()).unwrap();
    bench.groups = Groups::new(serde_json::from_str(&text).unwrap());
    bench.fire("1", 100);
    assert_eq!(bench.taken(130), "-");
    bench.fire("1", 200);
    bench.fire("2", 200);
    assert_eq!(bench.taken(430), "1 2");
    // What ended while nobody looked is told when the rules tell of it.
    let told = bench.groups.told().clone();
    bench.groups = Groups::new(told);
    bench.end("1", 500);
    bench.end("2", 500);
    assert_eq!(bench.taken(530), "(1) (2)");
    let mut bench = Bench::new("repeat_interval = '1h'");
    bench.groups =
        Groups::new(BTreeMap::from([("{}".to_owned(), Told { at: START.0, ..Told::default() })]));
    bench.groups.forget_old(&bench.config, at(3599));
    assert_eq!(bench.groups.told().len(), 1);
    bench.groups.forget_old(&bench.config, at(3601));
    assert_eq!(bench.groups.told().len(), 0);
}

#[test]
fn another_grouping_tells_of_new_groups_only() {
    let mut bench = Bench::new("group_wait = '0s'");
    bench.fire("1", 0);
    assert_eq!(bench.taken(0), "1");
    let groups = std::mem::take(&mut bench.groups);
    bench.groups = groups.regrouped(&bench.config, at(10));
    assert_eq!((bench.taken(10), bench.groups.len()), ("-".to_owned(), 1));
    bench.config = webhook("group_wait = '0s'\ngroup_by = ['n']");
    let groups = std::mem::take(&mut bench.groups);
    bench.groups = groups.regrouped(&bench.config, at(20));
    assert_eq!(bench.taken(20), "1");
}

#[test]
fn there_is_room_for_so_many() {
    let mut bench = Bench::new("");
    for n in 0..ALERTS_MAX {
        bench.fire(&n.to_string(), 0);
    }
    let one_more = alert("Down", &[("n", "x")]);
    assert!(!bench.groups.receive(&bench.config, one_more, at(0)));
    bench.fire("0", 1);
    assert_eq!(bench.groups.len(), ALERTS_MAX);
}

proptest! {
    /// Whatever happens, a receiver that takes everything knows in the end what fires.
    #[test]
    fn what_was_told_last_is_what_holds(
        steps in proptest::collection::vec((0_usize..4, 0_u8..3, 0_i64..100), 1..60),
    ) {
        let mut bench = Bench::new("group_wait = '10s'\ngroup_interval = '20s'\nrepeat_interval = '10m'");
        let mut known = BTreeSet::new();
        let mut firing = BTreeMap::new();
        let mut now = 0;
        let mut tell = |bench: &mut Bench, now: i64| {
            for message in bench.groups.due(&bench.config.clone(), at(now), 100) {
                for alert in &message.alerts {
                    let n = alert.labels.get("n").unwrap().to_owned();
                    if alert.is_resolved(at(now)) { known.remove(&n); } else { known.insert(n); }
                }
                let config = bench.config.clone();
                bench.groups.done(&config, &message, Outcome::Taken, at(now));
            }
            known.clone()
        };
        for (n, what, wait) in steps {
            now += wait;
            let n = n.to_string();
            if what == 0 {
                bench.end(&n, now);
                firing.remove(&n);
            } else {
                bench.fire(&n, now);
                firing.insert(n, now + 240);
            }
            tell(&mut bench, now);
        }
        let mut last = BTreeSet::new();
        for _ in 0..3 {
            now += 20;
            last = tell(&mut bench, now);
        }
        let holds: BTreeSet<String> =
            firing.into_iter().filter(|(_, end)| *end > now).map(|(n, _)| n).collect();
        prop_assert_eq!(last, holds);
    }
}

#[test]
fn what_fires_comes_before_what_ended_when_there_is_no_room() {
    let mut bench = Bench::new("group_by = ['n']\ngroup_wait = '0s'");
    for n in 0..ALERTS_MAX {
        bench.fire(&n.to_string(), 0);
    }
    assert!(!bench.groups.receive(&bench.config, alert("Down", &[("n", "x")]), at(1)));
    let messages = bench.groups.due(&bench.config, at(1), usize::MAX);
    for message in &messages {
        bench.groups.done(&bench.config, message, Outcome::Taken, at(1));
    }
    bench.end("7", 2);
    assert!(bench.groups.receive(&bench.config, alert("Down", &[("n", "x")]), at(3)));
    assert_eq!((bench.groups.take_evicted(), bench.groups.len()), (1, ALERTS_MAX));
}

#[test]
fn a_clock_that_is_set_back_silences_nothing() {
    let mut bench = Bench::new("group_wait = '30s'\ngroup_interval = '5m'");
    bench.fire("1", 3600);
    // An hour back.
    assert_eq!(bench.taken(31), "1");
    bench.fire("2", 100);
    assert_eq!(bench.taken(330), "-");
    assert_eq!(bench.taken(331), "1 2");
}
