//! What is remembered of what was sent.

use stint_model::Labels;
use stint_storage::SimDisk;

use super::*;
use crate::budget::admission::GroupIndex;
use crate::budget::symbols::Symbols;
use crate::forward::round::Outgoing;

const PATH: &str = "forward/a/trail";

fn open(disk: &SimDisk) -> Trail {
    named(disk, 1, Position::default())
}

fn named(disk: &SimDisk, names: u64, done: Position) -> Trail {
    let log = format!("{:032x}", 1).parse().unwrap();
    Trail::open(Arc::new(disk.clone()), Path::new(PATH), Origin { log, names }, done)
}

fn series(name: &str, keeps_value: bool) -> Arc<Outgoing> {
    let labels = Labels::from_pairs([("__name__", name)]);
    let key = Key::of(&labels);
    let group = GroupIndex::of(0);
    let labels = Arc::<Symbols>::default().numbers(&labels);
    let (target, is_shared) = (7, false);
    Arc::new(Outgoing { key, group, labels, is_shared, target, keeps_value })
}

fn round(items: &[(&Arc<Outgoing>, Payload)]) -> Round {
    let mut round = Round::new(2, 0);
    for (series, payload) in items {
        round.push(Item::new(series, payload.clone(), false));
    }
    round
}

fn sample(at: i64, value: f64) -> Payload {
    Payload::Sample(Sample::float(Timestamp(at), value))
}

fn upto(offset: u64) -> Position {
    Position { segment: 1, offset }
}

fn anchor(_: u64) -> Timestamp {
    Timestamp(3)
}

const WALL: Timestamp = Timestamp(1_000_000);

#[test]
fn what_is_read_again_is_sent_as_it_was_and_nothing_else_of_its_time() {
    let disk = SimDisk::new();
    let (a, up) = (series("a", false), series("up", true));
    let mut trail = open(&disk);
    let items =
        [(&a, sample(10, 1.0)), (&up, sample(10, 1.0)), (&a, Payload::Marker(Timestamp(40)))];
    trail.note(&round(&items), upto(5), WALL, anchor).unwrap();
    assert_eq!(trail.said(a.key, &Sample::float(Timestamp(10), 1.0), upto(5)), Said::Nothing);
    let trail = open(&disk);
    let said = |series: &Outgoing, sample: Sample, at| trail.said(series.key, &sample, upto(at));
    assert_eq!(said(&a, Sample::float(Timestamp(10), 1.0), 5), Said::Sent(None));
    assert_eq!(said(&up, Sample::float(Timestamp(10), 9.0), 5), Said::Sent(Some(1f64.to_bits())));
    assert_eq!(said(&a, Sample::stale(Timestamp(40)), 5), Said::Sent(None));
    assert_eq!(said(&a, Sample::float(Timestamp(40), 1.0), 5), Said::Ended, "there");
    assert_eq!(said(&a, Sample::stale(Timestamp(10)), 5), Said::Left);
    assert_eq!(said(&a, Sample::float(Timestamp(25), 1.0), 5), Said::Left);
    assert_eq!(said(&a, Sample::float(Timestamp(41), 1.0), 5), Said::Nothing, "later than all");
    assert_eq!(said(&a, Sample::float(Timestamp(25), 1.0), 6), Said::Nothing, "not read before");
}

#[test]
fn what_was_sent_last_is_told_once_and_the_rhythm_is_kept() {
    let disk = SimDisk::new();
    let (a, b) = (series("a", false), series("b", false));
    let mut trail = open(&disk);
    trail
        .note(&round(&[(&a, sample(10, 1.0)), (&b, sample(20, 1.0))]), upto(5), WALL, anchor)
        .unwrap();
    trail.note(&round(&[(&a, sample(70, 1.0))]), upto(6), WALL, anchor).unwrap();
    assert_eq!(trail.claim(a.key), None, "its own");
    let mut trail = open(&disk);
    assert_eq!(trail.anchors(), HashMap::from([(7, Timestamp(3))]));
    let last = Last { target: 7, anchor: Timestamp(3), at: Timestamp(70), bits: 0 };
    assert_eq!((trail.claim(a.key), trail.claim(a.key)), (Some(last), None));
    trail.note(&round(&[(&b, sample(80, 1.0))]), upto(7), WALL, anchor).unwrap();
    assert_eq!(trail.claim(b.key), None, "this run has sent it");
}

#[test]
fn it_is_short_once_everything_was_dealt_with() {
    let disk = SimDisk::new();
    let many: Vec<_> = (0..200).map(|n| series(&format!("s{n}"), true)).collect();
    let mut trail = open(&disk);
    let size = || stint_storage::Disk::size(&disk, Path::new(PATH)).unwrap();
    let mut most = 0;
    for n in 1..400 {
        let items: Vec<_> = many.iter().map(|it| (it, sample(n * 1000, 1.0))).collect();
        trail.note(&round(&items), upto(n as u64), WALL, anchor).unwrap();
        trail.shorten(upto(n as u64), Timestamp(n * 1000)).unwrap();
        most = most.max(size());
    }
    assert!(most < 300_000, "{most}");
    // What was not sent for long is not needed.
    let items: Vec<_> = many.iter().take(1).map(|it| (it, sample(7_000_000, 1.0))).collect();
    for n in 400..10_000 {
        trail.note(&round(&items), upto(n), Timestamp(8_000_000), anchor).unwrap();
        trail.shorten(upto(n), Timestamp(8_000_000)).unwrap();
    }
    assert_eq!(open(&disk).last.len(), 1);
    assert!(most < 300_000 && size() < 300_000);
}

#[test]
fn what_a_crash_left_is_kept_until_it_was_dealt_with_even_over_another_crash() {
    let disk = SimDisk::new();
    let a = series("a", false);
    open(&disk).note(&round(&[(&a, sample(10, 1.0))]), upto(5), WALL, anchor).unwrap();
    let mut trail = open(&disk);
    trail.note(&round(&[(&a, sample(70, 1.0))]), upto(9), WALL, anchor).unwrap();
    trail.shorten(upto(4), WALL).unwrap();
    let again = open(&disk);
    let said = |at| again.said(a.key, &Sample::float(Timestamp(at), 1.0), upto(3));
    assert_eq!((said(10), said(70), said(69)), (Said::Sent(None), Said::Sent(None), Said::Left));
    trail.shorten(upto(9), WALL).unwrap();
    assert_eq!(trail.said(a.key, &Sample::float(Timestamp(10), 1.0), upto(3)), Said::Nothing);
}

#[test]
fn a_clock_that_is_ahead_somewhere_says_nothing_of_what_was_read() {
    let disk = SimDisk::new();
    let a = series("a", false);
    open(&disk).note(&round(&[(&a, sample(9_000_000, 1.0))]), upto(5), WALL, anchor).unwrap();
    let trail = open(&disk);
    let said = |at| trail.said(a.key, &Sample::float(Timestamp(at), 1.0), upto(5));
    assert_eq!((said(999_999), said(1_000_000)), (Said::Left, Said::Nothing));
}

#[test]
fn series_that_come_and_go_are_forgotten_however_short_the_file_is() {
    let mut trail = open(&SimDisk::new());
    let mut most = 0;
    for n in 1..300_i64 {
        let fresh: Vec<_> = (0..20).map(|at| series(&format!("s{n}_{at}"), false)).collect();
        let items: Vec<_> = fresh.iter().map(|it| (it, sample(n * 60_000, 1.0))).collect();
        let now = Timestamp(n * 60_000);
        trail.note(&round(&items), upto(n as u64), now, anchor).unwrap();
        trail.shorten(upto(n as u64), now).unwrap();
        most = most.max(trail.last.len());
    }
    assert!(most <= 20 * 71, "an hour's, and what came until they are looked through: {most}");
}

#[test]
fn under_other_labels_what_was_not_dealt_with_was_neither_sent_nor_left_out() {
    let disk = SimDisk::new();
    let a = series("a", false);
    let mut trail = open(&disk);
    trail.note(&round(&[(&a, sample(10, 1.0))]), upto(5), WALL, anchor).unwrap();
    trail.note(&round(&[(&a, sample(70, 1.0))]), upto(9), WALL, anchor).unwrap();
    let mut trail = named(&disk, 2, upto(5));
    for at in [10, 40, 70] {
        let said = trail.said(a.key, &Sample::float(Timestamp(at), 1.0), upto(7));
        assert_eq!(said, Said::Nothing, "at {at}");
    }
    let last = trail.claim(a.key).unwrap();
    assert_eq!(last.at, Timestamp(10), "that it goes on behind what was dealt with");
    assert_eq!(trail.anchors(), HashMap::from([(7, Timestamp(3))]));
    // Nothing was sent meanwhile, so that what was chosen under the old labels still holds.
    let trail = named(&disk, 1, upto(5));
    let said = trail.said(a.key, &Sample::float(Timestamp(70), 1.0), upto(7));
    assert_eq!(said, Said::Sent(None));
}
