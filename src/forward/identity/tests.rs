use stint_model::Selector;
use stint_storage::SimDisk;
use stint_storage::disk::read_all;

use super::*;

fn rules() -> Vec<IdentityRule> {
    vec![IdentityRule {
        selectors: vec![Selector::metric("m"), Selector::metric("up")],
        replace: vec!["instance".into(), "task".into()],
        per: vec!["job".into()],
        info: Some("who".into()),
    }]
}

fn series(name: &str, job: &str, task: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("job", job), ("instance", "h:1"), ("task", task)])
}

fn at(secs: i64) -> Timestamp {
    Timestamp(secs * 1000)
}

/// A sample of a task at a second, as the router notes it; the number that it is sent under.
fn sample(all: &mut Identities, job: &str, task: &str, secs: i64) -> (String, Slot) {
    all.tick(at(secs), at(secs));
    let placed = all.place(&series("m", job, task), at(secs)).unwrap();
    assert_eq!(placed.labels.get("task"), None);
    all.touch(placed.slot, at(secs), false, false);
    (placed.labels.get("instance").unwrap().to_owned(), placed.slot)
}

#[test]
fn a_successor_goes_on_with_the_number_of_what_is_gone() {
    let mut all = Identities::in_memory(rules());
    let mut first = None;
    for secs in [0, 15, 30] {
        first = Some(sample(&mut all, "web", "a", secs));
        assert_eq!(sample(&mut all, "web", "b", secs).0, "slot-1");
        assert_eq!(sample(&mut all, "api", "x", secs).0, "slot-0", "another service");
    }
    let (name, a) = first.unwrap();
    assert_eq!(name, "slot-0");
    for secs in (45..=120).step_by(15) {
        sample(&mut all, "web", "b", secs);
    }
    // It may still be there, so that the new one has a number of its own.
    assert_eq!(sample(&mut all, "web", "c", 120).0, "slot-2");
    let (name, d) = sample(&mut all, "web", "d", 121);
    assert_eq!(name, "slot-0");
    assert_eq!(all.follows(d, at(121)), Follows::Yes);
    assert_eq!(all.follows(d, at(136)), Follows::IfSent);
    assert_eq!(all.touch(a, at(122), false, false), Hold::Lost);
    assert_eq!(all.stands(a, at(30)), Hold::Past, "it was its own until then");
    let (name, again) = sample(&mut all, "web", "a", 123);
    assert_eq!((name.as_str(), all.follows(again, at(123))), ("slot-3", Follows::No));
    assert_eq!(all.counts(), IdentityCounts { numbers: 5, held: 4, takeovers: 1, unnumbered: 0 });
}

#[test]
fn the_end_of_up_frees_a_number_at_once_but_not_for_earlier_samples() {
    let mut all = Identities::in_memory(rules());
    sample(&mut all, "web", "a", 0);
    let up = all.place(&series("up", "web", "a"), at(0)).unwrap();
    let info = up.info.unwrap();
    assert_eq!(info.metric_name(), Some("who"));
    assert_eq!((info.get("instance"), info.get("real_task")), (Some("slot-0"), Some("a")));
    assert_eq!(info.get("real_instance"), Some("h:1"));
    // Another series of it ends: that is no end of the target.
    let m = all.place(&series("m", "web", "a"), at(0)).unwrap();
    assert!(m.info.is_none() && !m.slot.is_up);
    all.touch(m.slot, at(15), true, false);
    assert_eq!(sample(&mut all, "web", "b", 16).0, "slot-1");
    all.touch(up.slot, at(20), true, true);
    assert_eq!(sample(&mut all, "web", "c", 20).0, "slot-2", "both samples would be of one time");
    assert_eq!(sample(&mut all, "web", "d", 21).0, "slot-0");
}

#[test]
fn a_slow_rhythm_and_a_time_without_anything_make_nobody_gone() {
    let mut all = Identities::in_memory(rules());
    // One that is scraped every four minutes, beside one of every 15 seconds.
    for secs in (0..1200).step_by(15) {
        sample(&mut all, "web", "often", secs);
        if secs % 240 == 0 {
            assert_eq!(sample(&mut all, "web", "rarely", secs).0, "slot-1");
        }
    }
    assert_eq!(sample(&mut all, "web", "new", 1200).0, "slot-2");
    // Nobody was looked at for a day.
    let day = 1200 + 86_400;
    assert_eq!(sample(&mut all, "web", "other", day).0, "slot-3");
    assert_eq!(sample(&mut all, "web", "often", day + 1).0, "slot-0");
    // A clock that was far ahead is forgotten.
    all.tick(at(day * 2), at(day));
    let before = all.clock;
    all.tick(at(day + 2), at(day + 2));
    assert_eq!(all.clock.as_ms() - before.as_ms(), 1000);
}

#[test]
fn what_no_rule_selects_stays_as_it_is() {
    let mut all = Identities::in_memory(rules());
    let other = Labels::from_pairs([("__name__", "other"), ("instance", "a")]);
    let nobody = Labels::from_pairs([("__name__", "m"), ("job", "web")]);
    assert!(all.place(&other, at(0)).is_none());
    assert!(all.place(&nobody, at(0)).is_none());
}

const PATH: &str = "forward/a/identities";

fn open(disk: &SimDisk) -> Identities {
    Identities::open(rules(), Arc::new(disk.clone()), Path::new(PATH))
}

#[test]
fn a_number_that_was_given_is_durable_before_it_is_used() {
    let disk = SimDisk::new();
    let mut all = open(&disk);
    let mut slots = Vec::new();
    for task in ["a", "b", "c"] {
        let (_, slot) = sample(&mut all, "web", task, 0);
        assert_eq!(all.stands(slot, at(0)), Hold::Unsaved);
        slots.push(slot);
    }
    all.keep(Duration::from_secs(1));
    assert!(slots.iter().all(|slot| all.stands(*slot, at(0)) == Hold::Own));
    let writes = disk.calls();
    sample(&mut all, "web", "a", 1);
    all.keep(Duration::from_secs(2));
    assert_eq!(disk.calls(), writes, "who was seen is written now and then");
    let disk = disk.after_crash(stint_storage::disk::sim::Crash::KILL);
    let mut again = open(&disk);
    // Others come first, hours later.
    assert_eq!(sample(&mut again, "web", "d", 9000).0, "slot-3");
    for (task, name) in [("c", "slot-2"), ("b", "slot-1"), ("a", "slot-0")] {
        let (found, slot) = sample(&mut again, "web", task, 9000);
        assert_eq!((found.as_str(), again.follows(slot, at(9000))), (name, Follows::No));
    }
}

#[test]
fn what_is_read_again_after_a_restart_has_the_number_it_had() {
    let disk = SimDisk::new();
    let mut all = open(&disk);
    let up = all.place(&series("up", "web", "a"), at(0)).unwrap().slot;
    sample(&mut all, "web", "a", 0);
    all.touch(up, at(15), true, true);
    assert_eq!(sample(&mut all, "web", "b", 30).0, "slot-0");
    all.keep(Duration::from_secs(1));
    let mut again = open(&disk);
    let path = Path::new(PATH);
    let before = read_all(&disk, path).unwrap();
    again.has_unsaved = true;
    again.keep(Duration::from_secs(1));
    assert_eq!(read_all(&disk, path).unwrap(), before, "nothing is lost on the way");
    let (name, a) = sample(&mut again, "web", "a", 0);
    assert_eq!((name.as_str(), again.follows(a, at(0))), ("slot-0", Follows::No));
    let (name, b) = sample(&mut again, "web", "b", 30);
    assert_eq!(name, "slot-0");
    assert_eq!(again.follows(b, at(30)), Follows::Yes, "what parts them may not have arrived");
    assert_eq!(again.follows(b, at(45)), Follows::No, "the rest was parted before");
    assert_eq!(sample(&mut again, "web", "a", 60).0, "slot-1", "it came back");
}

#[test]
fn without_the_file_everything_may_follow_something_else() {
    let disk = SimDisk::new();
    let mut all = open(&disk);
    let (_, slot) = sample(&mut all, "web", "a", 0);
    assert_eq!([0, 500].map(|secs| all.follows(slot, at(secs))), [Follows::IfSent; 2]);
    all.keep(Duration::from_secs(1));
    let bytes = read_all(&disk, Path::new(PATH)).unwrap();
    for offset in (0..bytes.len()).step_by(7) {
        let damaged = disk.after_crash(stint_storage::disk::sim::Crash::KILL);
        damaged.damage(Path::new(PATH), offset, 0x04).unwrap();
        let mut torn = open(&damaged);
        // A first sample that is read again is no successor's.
        assert_eq!(open(&disk).follows(slot, at(0)), Follows::No);
        assert!(torn.is_fresh, "{offset}");
        assert_eq!(sample(&mut torn, "web", "z", 0).0, "slot-0");
    }
}

#[test]
fn while_the_disk_fails_nothing_new_is_sent_and_it_is_tried_again() {
    let disk = SimDisk::new();
    let mut all = open(&disk);
    let (_, a) = sample(&mut all, "web", "a", 0);
    disk.set_capacity(0);
    all.keep(Duration::from_secs(1));
    assert_eq!(all.stands(a, at(0)), Hold::Unsaved);
    disk.set_capacity(u64::MAX);
    all.keep(Duration::from_secs(2));
    assert_eq!(all.stands(a, at(0)), Hold::Unsaved, "not at once");
    all.keep(Duration::from_secs(7));
    assert_eq!(all.stands(a, at(0)), Hold::Own);
}

#[test]
fn what_nobody_had_for_a_day_is_forgotten() {
    let mut all = Identities::in_memory(rules());
    sample(&mut all, "web", "a", 0);
    sample(&mut all, "web", "b", 0);
    for secs in (0..90_000).step_by(30) {
        sample(&mut all, "api", "x", secs);
    }
    all.keep(Duration::from_secs(1));
    assert_eq!((all.held, all.services.len()), (1, 1));
}
