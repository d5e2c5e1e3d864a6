//! An account that several endpoints send to: together they hold no more slots than it has, and each
//! gets what it needs as far as the others leave it.
//!
//! Each endpoint has a ledger of its own. Slots are granted under the lock of the pool, which knows
//! what all of them hold: so their sum never passes the target, whoever asks first. What an endpoint
//! lacks it gets up to its fair part: the parts are equal, but for what others do not need. Endpoints
//! that left the configuration are members until the server has forgotten what they sent.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stint_storage::Disk;

use super::ledger::{Found, Ledger, Write, Written, unlisted};
use super::limits::HOLD;
use super::points::Bucket;

/// The endpoints of one account.
#[derive(Debug, Default)]
pub struct Pool {
    inner: Mutex<Inner>,
    bucket: Arc<Mutex<Bucket>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Those at work.
    members: BTreeMap<String, Member>,
    /// Ledgers that nobody works with at present.
    left: BTreeMap<String, Left>,
}

#[derive(Clone, Debug, Default)]
struct Member {
    /// Its limits are its own; the others share.
    is_own: bool,
    live: u64,
    /// Slots that it asks for beside those it holds, as far as they would be of use to it.
    wants: u64,
    /// Points per minute that it asks for.
    points: u64,
    /// While its ledger may not list everything: the most slots of all together.
    ceiling: Option<u64>,
}

#[derive(Debug)]
struct Left {
    ledger: Ledger,
    /// Held while its file is written; true when it must not be any more.
    is_taken: Arc<Mutex<bool>>,
    /// Its ledger was damaged: until then nothing is granted to anybody.
    closed_until: Duration,
}

/// What is to be written of a ledger that nobody works with.
#[derive(Debug)]
pub struct LeftWrite {
    name: String,
    write: Write,
    is_taken: Arc<Mutex<bool>>,
}

/// What came of it.
#[derive(Debug)]
pub struct LeftWritten {
    name: String,
    written: Written,
    is_taken: Arc<Mutex<bool>>,
}

impl LeftWrite {
    /// Writes, unless somebody works with the ledger by now. It waits for the disk.
    pub fn run(self) -> Option<LeftWritten> {
        let Self { name, write, is_taken } = self;
        let taken = is_taken.lock();
        if *taken {
            return None;
        }
        let written = write.run();
        drop(taken);
        Some(LeftWritten { name, written, is_taken })
    }
}

impl Inner {
    /// Slots that others hold and that are not for a member to take.
    fn others(&self, name: &str) -> u64 {
        let left: u64 = self.left.values().map(|left| left.ledger.live()).sum();
        let shares = self.members.get(name).is_some_and(|member| !member.is_own);
        let peers = self.members.iter().filter(|(other, it)| *other != name && !it.is_own);
        let peers: u64 = peers.map(|(_, peer)| peer.live).sum();
        if shares { left.saturating_add(peers) } else { left }
    }

    /// What is to be parted among those that share, with `own` for what a member asks for.
    fn part(&self, name: &str, total: u64, own: u64, asked: impl Fn(&Member) -> u64) -> u64 {
        let sharing = self.members.iter().filter(|(_, member)| !member.is_own);
        let mut asks = Vec::new();
        let mut place = None;
        for (other, member) in sharing {
            if other == name {
                place = Some(asks.len());
                asks.push(own);
            } else {
                asks.push(asked(member));
            }
        }
        let parts = fair_parts(&asks, total);
        place.and_then(|place| parts.get(place).copied()).unwrap_or(total)
    }
}

/// Parts of `total`, none larger than what is asked for: equal ones, but what some do not need of
/// theirs goes to the others in equal parts.
pub fn fair_parts(asks: &[u64], total: u64) -> Vec<u64> {
    let mut order: Vec<usize> = (0..asks.len()).collect();
    order.sort_unstable_by_key(|at| (asks.get(*at).copied(), *at));
    let mut parts = vec![0; asks.len()];
    let mut left = total;
    for (done, at) in order.iter().enumerate() {
        let equal = left / (asks.len() - done) as u64;
        let part = asks.get(*at).copied().unwrap_or(0).min(equal);
        left -= part;
        if let Some(slot) = parts.get_mut(*at) {
            *slot = part;
        }
    }
    parts
}

impl Pool {
    /// Counts the ledger of an endpoint with which nobody works at present.
    pub fn leave(&self, name: &str, disk: Arc<dyn Disk>, path: &Path, now: Duration) {
        let is_unlisted = unlisted::is_marked(&*disk, path);
        let (ledger, found) = Ledger::open(disk, path, HOLD, now);
        let closed_until = match found {
            Found::Damaged(_) => now + HOLD.to_std(),
            _ if is_unlisted => now + HOLD.to_std(),
            Found::Leases(_) | Found::Missing => Duration::ZERO,
        };
        let mut inner = self.inner.lock();
        inner.members.remove(name);
        let is_taken = Arc::default();
        inner.left.insert(name.to_owned(), Left { ledger, is_taken, closed_until });
    }

    /// Whether an endpoint is known here.
    pub fn knows(&self, name: &str) -> bool {
        let inner = self.inner.lock();
        inner.members.contains_key(name) || inner.left.contains_key(name)
    }
}

/// The place of an endpoint in the pool of its account.
#[derive(Clone, Debug)]
pub struct Seat {
    pool: Arc<Pool>,
    name: String,
    is_own: bool,
}

impl Seat {
    /// A place for `name`; with `is_own` its limits are not shared.
    pub fn new(pool: Arc<Pool>, name: &str, is_own: bool) -> Self {
        Self { pool, name: name.to_owned(), is_own }
    }

    /// The place of the only endpoint of an account.
    pub fn alone() -> Self {
        Self::new(Arc::default(), "", false)
    }

    /// Sees to it that nobody writes the ledger of this place any more. It may wait for the disk. Its
    /// slots count until the place is [taken](Seat::join).
    pub fn close_left(&self) {
        let left = self.pool.inner.lock().left.get(&self.name).map(|left| left.is_taken.clone());
        if let Some(is_taken) = left {
            *is_taken.lock() = true;
        }
    }

    /// Takes the place with so many slots; nobody else counts them from now on.
    pub fn join(&self, live: u64) {
        let mut inner = self.pool.inner.lock();
        inner.left.remove(&self.name);
        let member = Member { is_own: self.is_own, live, ..Member::default() };
        inner.members.insert(self.name.clone(), member);
    }

    fn change(&self, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.pool.inner.lock().members.get_mut(&self.name) {
            change(member);
        }
    }

    /// Notes what is held now. More than before only from within [`Seat::grant`].
    pub fn note(&self, live: u64) {
        self.change(|member| member.live = live);
    }

    /// Notes what is lacking.
    pub fn note_wants(&self, wants: u64) {
        self.change(|member| member.wants = wants);
    }

    /// Notes how many slots all together may hold while the ledger may be incomplete.
    pub fn note_ceiling(&self, ceiling: Option<u64>) {
        self.change(|member| member.ceiling = ceiling);
    }

    /// Lets time pass for ledgers that nobody works with.
    pub fn advance(&self, now: Duration) {
        for left in self.pool.inner.lock().left.values_mut() {
            left.ledger.advance(now);
        }
    }

    /// What is to be written of ledgers that nobody works with.
    pub fn left_writes(&self, now: Duration) -> Vec<LeftWrite> {
        let mut writes = Vec::new();
        for (name, left) in &mut self.pool.inner.lock().left {
            // Another endpoint may be at it.
            if let (Some(write), _) = left.ledger.promise(&[], [], u64::MAX, now) {
                let (name, is_taken) = (name.clone(), Arc::clone(&left.is_taken));
                writes.push(LeftWrite { name, write, is_taken });
            }
        }
        writes
    }

    /// Brings back what was written of them.
    pub fn settle_left(&self, written: Vec<LeftWritten>, now: Duration) {
        for LeftWritten { name, written, is_taken } in written {
            let mut inner = self.pool.inner.lock();
            let left = inner.left.get_mut(&name);
            // Somebody may have come and gone meanwhile.
            let Some(left) = left.filter(|left| Arc::ptr_eq(&left.is_taken, &is_taken)) else {
                continue;
            };
            if let Err(error) = left.ledger.settle(written, now) {
                tracing::warn!("{error}");
            }
        }
    }

    /// Whether nobody holds the account at this moment.
    #[cfg(test)]
    pub(crate) fn is_free(&self) -> bool {
        self.pool.inner.try_lock().is_some()
    }

    /// Slots of the account that others hold.
    pub fn others(&self) -> u64 {
        self.pool.inner.lock().others(&self.name)
    }

    /// The most slots that all together may hold because of what is in doubt elsewhere.
    pub fn ceiling(&self, now: Duration) -> Option<u64> {
        let inner = self.pool.inner.lock();
        let others = inner.members.iter().filter(|(name, _)| **name != self.name);
        let ceilings = others.filter_map(|(_, member)| member.ceiling);
        let closed = inner.left.values().any(|left| now < left.closed_until);
        ceilings.chain(closed.then_some(0)).min()
    }

    /// The most slots of `total` that this endpoint may hold: what others leave, at least its equal
    /// part.
    pub fn fair(&self, total: u64) -> u64 {
        self.fair_of(total, u64::MAX)
    }

    /// The part of `total` that is fair if this endpoint asks for `own` slots.
    pub fn fair_of(&self, total: u64, own: u64) -> u64 {
        let inner = self.pool.inner.lock();
        let left: u64 = inner.left.values().map(|left| left.ledger.live()).sum();
        let asked = |member: &Member| member.live.saturating_add(member.wants);
        inner.part(&self.name, total.saturating_sub(left), own, asked)
    }

    /// Whether another endpoint lacks slots.
    pub fn is_somebody_short(&self) -> bool {
        let inner = self.pool.inner.lock();
        inner.members.iter().any(|(name, it)| *name != self.name && !it.is_own && it.wants > 0)
    }

    /// Lets `grant` hand out slots, given how many others hold, while nobody else does; it returns
    /// how many are held afterwards.
    pub fn grant<T>(&self, grant: impl FnOnce(u64) -> (u64, T)) -> T {
        let mut inner = self.pool.inner.lock();
        let (live, outcome) = grant(inner.others(&self.name));
        if let Some(member) = inner.members.get_mut(&self.name) {
            member.live = live;
        }
        outcome
    }

    /// The part of `per_minute` points for an endpoint that asks for `wanted`.
    pub fn points(&self, per_minute: u64, wanted: u64) -> u64 {
        let mut inner = self.pool.inner.lock();
        if let Some(member) = inner.members.get_mut(&self.name) {
            member.points = wanted;
        }
        if self.is_own {
            return per_minute;
        }
        inner.part(&self.name, per_minute, u64::MAX, |member| member.points)
    }

    /// The points that may be sent at once: of all that share, or of this endpoint alone.
    pub fn bucket(&self) -> Arc<Mutex<Bucket>> {
        if self.is_own { Arc::default() } else { Arc::clone(&self.pool.bucket) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stint_storage::SimDisk;

    use super::*;
    use crate::budget::group::Key;

    #[test]
    fn parts_are_equal_but_for_what_is_not_needed() {
        assert_eq!(fair_parts(&[100, 100], 100), [50, 50]);
        assert_eq!(fair_parts(&[10, 100, u64::MAX], 100), [10, 45, 45]);
        assert_eq!(fair_parts(&[10, 20], 100), [10, 20]);
        assert!(fair_parts(&[], 5).is_empty());
    }

    proptest! {
        #[test]
        fn parts_are_the_fairest_there_are(asks in proptest::collection::vec(0u64..200, 1..8), total in 0u64..600) {
            let parts = fair_parts(&asks, total);
            let sum: u64 = parts.iter().sum();
            prop_assert!(sum <= total);
            let most = parts.iter().copied().max().unwrap();
            for (part, ask) in parts.iter().zip(&asks) {
                prop_assert!(part <= ask);
                // Nobody lacks something that somebody else has more of.
                prop_assert!(part == ask || part + 1 >= most, "{parts:?} of {asks:?}");
            }
            prop_assert!(sum == total.min(asks.iter().sum()));
        }
    }

    fn seats() -> (Arc<Pool>, Seat, Seat) {
        let pool = Arc::<Pool>::default();
        let seat = |name| Seat::new(Arc::clone(&pool), name, false);
        let (a, b) = (seat("a"), seat("b"));
        a.join(0);
        b.join(0);
        (pool, a, b)
    }

    #[test]
    fn what_one_holds_the_other_cannot_have() {
        let (_, a, b) = seats();
        a.grant(|others| (70 - others, ()));
        assert_eq!((a.others(), b.others()), (0, 70));
        b.note_wants(60);
        assert_eq!((a.fair(100), b.fair(100)), (50, 50));
        b.note_wants(10);
        assert_eq!((a.fair(100), b.fair(100)), (90, 50));
        assert!(a.is_somebody_short() && !b.is_somebody_short());
    }

    #[test]
    fn what_has_a_part_of_its_own_neither_takes_nor_gives() {
        let pool = Arc::<Pool>::default();
        let (a, own) = (Seat::new(Arc::clone(&pool), "a", false), Seat::new(pool, "own", true));
        a.join(5);
        own.join(7);
        assert_eq!((a.others(), own.others()), (0, 0));
        assert_eq!((a.fair(100), own.fair(100)), (100, 100));
    }

    #[test]
    fn what_left_counts_until_the_server_has_forgotten_it() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        let path = Path::new("forward/b/ledger");
        let (mut ledger, _) = Ledger::open(Arc::clone(&disk), path, HOLD, Duration::ZERO);
        ledger.grant(&[(Key(1), 0), (Key(2), 0)], 10, Duration::ZERO).unwrap();
        let (pool, a, b) = seats();
        b.note(2);
        pool.leave("b", Arc::clone(&disk), path, Duration::ZERO);
        assert_eq!((a.others(), a.fair(10)), (2, 8));
        let later = HOLD.to_std() + Duration::from_secs(1);
        a.advance(later);
        assert_eq!(a.others(), 0);
        // It comes back, and counts its own again.
        pool.leave("b", disk, path, later);
        b.join(1);
        assert_eq!(a.others(), 1);
    }

    #[test]
    fn a_damaged_ledger_of_one_that_left_stops_all_until_it_does_not_matter_any_more() {
        let disk = SimDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let path = Path::new("ledger");
        stint_storage::disk::write_atomically(&*disk, path, b"nonsense").unwrap();
        let (pool, a, _) = seats();
        pool.leave("gone", disk, path, Duration::ZERO);
        assert_eq!(a.ceiling(Duration::ZERO), Some(0));
        assert_eq!(a.ceiling(HOLD.to_std()), None);
    }
}
