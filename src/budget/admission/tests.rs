use std::path::Path;

use stint_storage::SimDisk;
use stint_storage::disk::sim::{Crash, Fault, Plan};

use super::*;
use crate::budget::figures::Figures;
use crate::budget::limits::Origin;
use crate::budget::policy::VITAL;

const PATH: &str = "forward/cloud/ledger";
const WALL: Timestamp = Timestamp(1_700_000_000_000);

struct Bench {
    disk: SimDisk,
    admission: Admission,
    now: Duration,
}

fn limits(target: u64, reserve: u64) -> Limits {
    Limits {
        contract: target + target / 10,
        enforced: target + target / 10,
        target,
        reserve,
        points_per_minute: Some(target),
        missing_ledger: MissingLedger::Nothing,
        origin: Origin::Configured,
    }
}

fn open(disk: &SimDisk, limits: Limits, ran_before: bool, now: Duration) -> Admission {
    open_with(disk, limits, Policy::default(), ran_before, now)
}

fn open_with(
    disk: &SimDisk,
    limits: Limits,
    policy: Policy,
    ran_before: bool,
    now: Duration,
) -> Admission {
    Admission::open(Opening {
        limits: Some(limits),
        policy,
        disk: Arc::new(disk.clone()),
        path: Path::new(PATH),
        ran_before,
        seat: Seat::alone(),
        ranking: None,
        now,
    })
}

impl Bench {
    fn new(target: u64, reserve: u64) -> Self {
        Self::of(target, reserve, Policy::default())
    }

    fn of(target: u64, reserve: u64, policy: Policy) -> Self {
        let disk = SimDisk::new();
        let now = Duration::from_secs(1000);
        let admission = open_with(&disk, limits(target, reserve), policy, false, now);
        Self { disk, admission, now }
    }

    fn pass(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
    }

    /// Registers the series and says that all of them have samples.
    fn want(&mut self, series: &[Labels]) -> Vec<(GroupIndex, Key)> {
        self.admission.advance(self.now, WALL);
        let mut places = Vec::new();
        for labels in series {
            let key = Key::of(labels);
            let place = self.admission.register(labels, key, Provenance::default());
            places.push((place.series.group, key));
        }
        for (group, key) in &places {
            self.admission.saw(*group, self.now);
            if !self.admission.is_settled(*group, *key) {
                self.admission.want(*group, self.now);
            }
        }
        self.admission.plan(self.now, WALL);
        places
    }

    /// As many of `series` as may be sent now; they are sent.
    fn send(&mut self, series: &[Labels]) -> usize {
        let places = self.want(series);
        let sent: Vec<Key> = places
            .iter()
            .filter(|(group, key)| self.admission.check(*group, *key).is_ok())
            .map(|(_, key)| *key)
            .collect();
        self.admission.hand_over(&sent, sent.len() as u64, self.now);
        self.admission.accepted(&sent, self.now);
        sent.len()
    }
}

fn gauge(name: &str, n: u64) -> Labels {
    Labels::from_pairs([("__name__", name), ("n", &n.to_string()), ("job", "j")])
}

fn gauges(name: &str, count: u64) -> Vec<Labels> {
    (0..count).map(|n| gauge(name, n)).collect()
}

fn histogram(name: &str, bounds: &[&str]) -> Vec<Labels> {
    let bucket = format!("{name}_bucket");
    let mut all: Vec<Labels> = bounds
        .iter()
        .map(|le| Labels::from_pairs([("__name__", bucket.as_str()), ("le", le), ("job", "j")]))
        .collect();
    for suffix in ["_sum", "_count"] {
        all.push(Labels::from_pairs([
            ("__name__", format!("{name}{suffix}").as_str()),
            ("job", "j"),
        ]));
    }
    all
}

#[test]
fn a_histogram_is_sent_whole_or_not_at_all() {
    let mut bench = Bench::new(10, 0);
    assert_eq!(bench.send(&gauges("a", 6)), 6);
    assert_eq!(bench.send(&histogram("h", &["1", "2", "+Inf"])), 0);
    assert_eq!(bench.send(&histogram("g", &["1", "+Inf"])), 4);
    assert_eq!(bench.admission.live(), 10);
}

#[test]
fn a_histogram_that_grows_beyond_the_slots_is_taken_out_as_a_whole() {
    let mut bench = Bench::new(10, 0);
    assert_eq!(bench.send(&gauges("a", 5)), 5);
    assert_eq!(bench.send(&histogram("h", &["1", "2", "+Inf"])), 5);
    assert_eq!(bench.send(&histogram("h", &["1", "2", "4", "+Inf"])), 0);
    bench.pass(22 * 60);
    assert_eq!(bench.send(&gauges("a", 5)), 5);
    // The slots are free again, but the group stays out for a while.
    bench.pass(10);
    assert_eq!(bench.send(&histogram("h", &["1", "2", "4", "+Inf"])), 0);
    bench.pass(3600);
    assert_eq!(bench.send(&gauges("a", 4)), 4);
    assert_eq!(bench.send(&histogram("h", &["1", "2", "4", "+Inf"])), 6);
}

#[test]
fn the_reserve_is_kept_for_vital_series() {
    let mut bench = Bench::new(10, 2);
    assert_eq!(bench.send(&gauges("a", 9)), 0);
    assert_eq!(bench.send(&gauges("b", 8)), 8);
    assert_eq!(bench.send(&gauges("up", 2)), 2);
    assert_eq!(bench.admission.policy().class(0).unwrap().name, VITAL);
}

#[test]
fn a_restart_renews_what_was_sent_before_and_grants_nothing_twice() {
    let mut bench = Bench::new(10, 0);
    assert_eq!(bench.send(&gauges("a", 10)), 10);
    let disk = bench.disk.after_crash(Crash::KILL);
    bench.admission = open(&disk, limits(10, 0), true, bench.now);
    assert_eq!(bench.admission.found(), &Found::Leases(10));
    assert_eq!(bench.send(&gauges("b", 3)), 0);
    assert_eq!(bench.send(&gauges("a", 10)), 10);
}

#[test]
fn a_lost_ledger_leaves_only_what_is_beside_the_target() {
    let now = Duration::from_secs(5);
    let admission = open(&SimDisk::new(), limits(100, 0), true, now);
    assert_eq!(admission.slots(now), 10);
    assert_eq!(admission.slots(now + Duration::from_mins(22)), 10);
    assert_eq!(admission.slots(now + Duration::from_mins(23)), 100);
}

#[test]
fn doubt_outlives_restarts_until_the_hold_time_is_over() {
    let disk = SimDisk::new();
    let mut now = Duration::from_secs(5);
    for _ in 0..3 {
        now += Duration::from_mins(10);
        let admission = open(&disk, limits(100, 0), true, now);
        assert_eq!(admission.slots(now), 10);
    }
    let mut admission = open(&disk, limits(100, 0), true, now);
    now += Duration::from_mins(23);
    admission.advance(now, WALL);
    admission.plan(now, WALL);
    assert_eq!(admission.slots(now), 100);
    assert_eq!(open(&disk, limits(100, 0), true, now).slots(now), 100);
}

#[test]
fn a_first_start_ramps_up() {
    let now = Duration::from_secs(5);
    let ramp = Limits { missing_ledger: MissingLedger::Ramp, ..limits(100, 0) };
    let admission = open(&SimDisk::new(), ramp, false, now);
    assert_eq!(admission.slots(now), 50);
    assert_eq!(admission.slots(now + Duration::from_secs(990)), 75);
    assert_eq!(admission.slots(now + Duration::from_mins(22)), 100);
}

#[test]
fn a_ledger_that_cannot_be_written_stops_new_series_only() {
    let mut bench = Bench::new(10, 0);
    assert_eq!(bench.send(&gauges("a", 2)), 2);
    bench.disk.set_plan(Some(Plan { call: 0, fault: Fault::Full, repeated: true }));
    let places = bench.want(&gauges("b", 2));
    let (group, key) = places[0];
    assert_eq!(bench.admission.check(group, key), Err(Reason::LedgerFailed));
    assert_eq!(bench.send(&gauges("a", 2)), 2);
    bench.disk.set_plan(None);
    bench.pass(5);
    assert_eq!(bench.send(&gauges("b", 2)), 2);
}

#[test]
fn a_full_server_keeps_what_it_knows_and_gets_nothing_new() {
    let mut bench = Bench::new(100, 0);
    assert_eq!(bench.send(&gauges("a", 10)), 10);
    let places = bench.want(&gauges("b", 5));
    let sent: Vec<(Key, GroupIndex)> = places.iter().map(|(group, key)| (*key, *group)).collect();
    let keys: Vec<Key> = sent.iter().map(|(key, _)| *key).collect();
    bench.admission.hand_over(&keys, 5, bench.now);
    let refused = bench.admission.server_full(&sent, "no room", bench.now, WALL);
    assert_eq!(refused.len(), 5);
    assert_eq!(bench.send(&gauges("c", 1)), 0);
    let (group, key) = places[0];
    assert_eq!(bench.admission.check(group, key), Err(Reason::ServerFull));
    assert_eq!(bench.send(&gauges("a", 10)), 10);
    assert_eq!(bench.admission.slots(bench.now), 70, "not below seven tenths");
}

#[test]
fn a_better_class_displaces_a_worse_one_after_a_while() {
    let mut bench = Bench::new(10, 0);
    for _ in 0..23 {
        assert_eq!(bench.send(&gauges("a", 5)), 5);
        assert_eq!(bench.send(&gauges("b", 5)), 5);
        bench.pass(60);
    }
    assert_eq!(bench.send(&gauges("up", 3)), 0);
    assert_eq!(bench.send(&gauges("b", 5)), 0, "the last metric in order gave way");
    assert_eq!(bench.send(&gauges("a", 5)), 5);
    for _ in 0..23 {
        bench.pass(60);
        bench.send(&gauges("a", 5));
        bench.want(&gauges("b", 5));
    }
    assert_eq!(bench.send(&gauges("up", 3)), 3);
}

#[test]
fn forgotten_series_leave_nothing_behind() {
    let mut bench = Bench::new(10, 0);
    let places = bench.want(&gauges("a", 4));
    for (group, key) in places {
        bench.admission.forget(group, key);
    }
    assert_eq!(bench.admission.groups().count(), 0);
    assert!(bench.admission.groups.is_empty());
    bench.pass(22 * 60);
    assert_eq!(bench.send(&gauges("b", 10)), 10);
}

#[test]
fn what_is_not_sent_any_more_is_cooling_until_it_is_forgotten() {
    let figures = |bench: &Bench| Figures::of(&bench.admission, bench.now, Span::MINUTE);
    let mut bench = Bench::new(100, 0);
    let (calm, gone) = (gauges("calm", 30), gauges("gone", 20));
    bench.send(&calm);
    bench.send(&gone);
    assert_eq!((figures(&bench).live, figures(&bench).cooling), (50, 0));
    for _ in 0..10 {
        bench.pass(60);
        bench.send(&calm);
    }
    assert_eq!((figures(&bench).live, figures(&bench).cooling), (50, 20));
    // After a restart nobody knows any more when they were sent.
    bench.admission = open(&bench.disk, limits(100, 0), true, bench.now);
    assert_eq!((figures(&bench).live, figures(&bench).cooling), (50, 0));
    for _ in 0..10 {
        bench.pass(60);
        bench.send(&calm);
    }
    assert_eq!((figures(&bench).live, figures(&bench).cooling), (50, 20));
    for _ in 0..13 {
        bench.pass(60);
        bench.send(&calm);
    }
    assert_eq!((figures(&bench).live, figures(&bench).cooling), (30, 0));
}

#[test]
fn doubt_is_told_as_long_as_it_lasts_and_not_otherwise() {
    let (disk, now) = (SimDisk::new(), Duration::from_secs(1000));
    let ramp = || Limits { missing_ledger: MissingLedger::Ramp, ..limits(100, 0) };
    let hints = |admission: &Admission, now| {
        let about = crate::budget::report::About {
            name: "a".into(),
            url: String::new(),
            interval: Span::MINUTE,
            sends_metadata: true,
            samples: crate::budget::report::Samples::default(),
            identities: None,
        };
        crate::budget::report::Look::at(admission, now, Span::MINUTE)
            .finish(about, &crate::budget::report::Overview::default(), Timestamp(0))
            .hints
            .join("\n")
    };
    let text = "the ledger does not list";
    let first = open(&disk, ramp(), false, now);
    assert!(first.is_in_doubt(now) && hints(&first, now).contains(text));
    drop(first);
    // A restart begins the hold time anew.
    let mut second = open(&disk, ramp(), true, now);
    assert!(second.is_in_doubt(now) && hints(&second, now).contains(text));
    let later = now + HOLD.to_std() + Duration::from_mins(1);
    second.advance(later, WALL);
    assert!(!second.is_in_doubt(later) && !hints(&second, later).contains(text));
    let done = second.close(later).write();
    second.settle(done, later, WALL);
    let third = open(&disk, ramp(), true, now);
    assert!(!third.is_in_doubt(now) && !hints(&third, now).contains(text));
    // A target lowered by refusals is another matter.
    let mut lowered = open(&disk, ramp(), true, now);
    let key = Key::of(&gauge("a", 1));
    let group = lowered.register(&gauge("a", 1), key, Provenance::default()).series.group;
    lowered.server_full(&[(key, group)], "no room", now, WALL);
    let mut at = now;
    for _ in 0..23 {
        at += Duration::from_mins(1);
        lowered.advance(at, WALL);
    }
    assert_eq!(lowered.full.name(), "normal");
    let hints = hints(&lowered, at);
    assert!(hints.contains("refused new series a while ago") && !hints.contains(text), "{hints}");
}

#[test]
fn under_a_lowered_target_what_is_new_does_not_end_what_goes_on() {
    let up = |n: u64| {
        Labels::from_pairs([("__name__", "up"), ("instance", &n.to_string()), ("job", "j")])
    };
    let mut bench = Bench::new(900, 20);
    let mut kept: Vec<Labels> = (0..10).map(up).collect();
    kept.extend(gauges("a", 100));
    let mut all = kept.clone();
    all.extend(gauges("b", 700));
    assert_eq!(bench.send(&all), 810);
    let disk = bench.disk.after_crash(Crash::KILL);
    bench.admission = open(&disk, limits(300, 20), true, bench.now);
    all.extend([up(10), gauge("a", 100)]);
    for minute in 0..20 {
        assert_eq!(bench.send(&all), kept.len(), "minute {minute}");
        assert_eq!(bench.send(&kept), kept.len(), "minute {minute}");
        bench.pass(60);
    }
    bench.pass(180);
    assert_eq!(bench.send(&all), kept.len() + 2, "when the others have ended there is room");
}

mod durable;
mod policy;

#[test]
fn what_the_server_tells_ends_the_doubt_when_nothing_is_on_its_way_any_more() {
    let disk = SimDisk::new();
    let mut admission = open(&disk, limits(100, 0), true, Duration::ZERO);
    let minute = Duration::from_mins(1);
    assert!(admission.is_in_doubt(Duration::ZERO) && admission.slots(Duration::ZERO) == 10);
    let keys: Vec<Key> = (0..60).map(Key).collect();
    admission.recover(&keys, minute, Duration::from_secs(5));
    admission.plan(Duration::from_secs(5), WALL);
    assert_eq!((admission.live(), admission.room(Duration::from_secs(5))), (60, 0));
    assert!(admission.is_in_doubt(Duration::from_secs(5)));
    admission.recover(&keys, minute, minute);
    assert!(admission.is_in_doubt(minute), "until the ledger lists them");
    admission.plan(minute, WALL);
    assert!(!admission.is_in_doubt(minute));
    assert_eq!((admission.live(), admission.room(minute)), (60, 40));
    // It holds over a restart, and no longer than the server counts.
    let mut again = open(&disk, limits(100, 0), true, minute);
    assert!(!again.is_in_doubt(minute) && again.live() == 60);
    again.advance(minute + HOLD.to_std(), WALL);
    assert_eq!(again.live(), 0);
    // Where that cannot be written, the doubt stays.
    let broken = SimDisk::new();
    let mut admission = open(&broken, limits(100, 0), true, Duration::ZERO);
    broken.set_plan(Some(Plan { call: 0, fault: Fault::Full, repeated: true }));
    admission.recover(&keys, minute, minute);
    admission.plan(minute, WALL);
    assert!(admission.is_in_doubt(minute) && admission.ledger_error.is_some());
}
