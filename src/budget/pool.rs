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

use super::doubt::{self, Opening};
use super::ledger::Found;
use super::points::Bucket;

mod left;
mod pen;

use left::Left;

pub use left::{LeftWrite, LeftWritten};
pub use pen::Pen;

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
    pen: Pen,
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

impl Inner {
    /// Slots that others hold and that are not for a member to take.
    fn others(&self, names: &[&str], is_own: bool) -> u64 {
        let left = self.left.iter().filter(|(other, _)| !names.contains(&other.as_str()));
        let left: u64 = left.map(|(_, left)| left.ledger.live()).sum();
        let peers = self
            .members
            .iter()
            .filter(|(other, it)| !names.contains(&other.as_str()) && !it.is_own);
        let peers: u64 = peers.map(|(_, peer)| peer.live).sum();
        if is_own { left } else { left.saturating_add(peers) }
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
    /// Counts the ledger of an endpoint with which nobody works at present. It waits for the disk.
    pub fn leave(&self, name: &str, disk: Arc<dyn Disk>, path: &Path, now: Duration) {
        self.count(&[name], disk, path, now);
    }

    /// The ledger of an endpoint with which nobody works lies elsewhere by now, at `path`, under the name
    /// `to`; who moved it has [closed](Pool::close) it. It waits for the disk.
    pub fn moved(&self, from: &str, to: &str, disk: Arc<dyn Disk>, path: &Path, now: Duration) {
        self.count(&[to, from], disk, path, now);
    }

    /// Sees to it that nobody writes the ledger of an endpoint any more. It may wait for the disk. Its slots
    /// still count.
    pub fn close(&self, name: &str) {
        let inner = self.inner.lock();
        let left = inner.left.get(name).map(|left| left.pen.clone());
        let member = inner.members.get(name).map(|member| member.pen.clone());
        drop(inner);
        left.iter().chain(&member).for_each(Pen::withdraw);
    }

    /// Counts the ledger at `path` under the first of `names`, and what was counted under them no more.
    fn count(&self, names: &[&str], disk: Arc<dyn Disk>, path: &Path, now: Duration) {
        for name in names {
            self.close(name);
        }
        let opened = doubt::open(Opening {
            disk,
            path,
            // What is new has none either.
            missing: None,
            others: self.inner.lock().others(names, false),
            lists: true,
            now,
        });
        if let (Found::Damaged(why), Some(_)) = (&opened.found, &opened.doubt) {
            let path = path.display();
            tracing::warn!(
                "{path}: {why}; nothing new is sent to its account for 22 minutes, unless it is sent to again"
            );
        }
        if let Some(problem) = &opened.problem {
            tracing::warn!("{problem}");
        }
        let mut inner = self.inner.lock();
        for name in names {
            inner.members.remove(*name);
            inner.left.remove(*name);
        }
        if let Some(name) = names.first() {
            inner.left.insert((*name).to_owned(), Left::new(opened));
        }
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
    pen: Pen,
}

impl Seat {
    /// A place for `name`; with `is_own` its limits are not shared.
    pub fn new(pool: Arc<Pool>, name: &str, is_own: bool) -> Self {
        Self { pool, name: name.to_owned(), is_own, pen: Pen::default() }
    }

    /// The place of the only endpoint of an account.
    pub fn alone() -> Self {
        Self::new(Arc::default(), "", false)
    }

    /// Sees to it that nobody else writes the ledger of this place any more. It may wait for the disk. Its
    /// slots count until the place is [taken](Seat::join). Returns what was wrong with the ledger when it
    /// was counted.
    pub fn take_over(&self) -> Option<Found> {
        self.pool.close(&self.name);
        let inner = self.pool.inner.lock();
        let found = inner.left.get(&self.name).map(|left| left.found.clone());
        found.filter(|found| matches!(found, Found::Damaged(_)))
    }

    /// With it the ledger of this place is written.
    pub fn pen(&self) -> Pen {
        self.pen.clone()
    }

    /// Takes the place with so many slots, of which nobody else counts any from now on. While its ledger may
    /// be incomplete, all together hold no more than `ceiling`.
    pub fn join(&self, live: u64, ceiling: Option<u64>) {
        let mut inner = self.pool.inner.lock();
        inner.left.remove(&self.name);
        let (pen, is_own) = (self.pen.clone(), self.is_own);
        let member = Member { pen, is_own, live, ceiling, ..Member::default() };
        inner.members.insert(self.name.clone(), member);
    }

    /// What the pool has of this place, unless it was taken over.
    fn member<'a>(&self, inner: &'a mut Inner) -> Option<&'a mut Member> {
        inner.members.get_mut(&self.name).filter(|member| member.pen.is(&self.pen))
    }

    fn change(&self, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.member(&mut self.pool.inner.lock()) {
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
        let left = &mut self.pool.inner.lock().left;
        left.iter_mut().filter_map(|(name, left)| left.write(name, now)).collect()
    }

    /// Brings back what was written of them.
    pub fn settle_left(&self, written: Vec<LeftWritten>, now: Duration) {
        for written in written {
            let mut inner = self.pool.inner.lock();
            if let Some(left) = inner.left.get_mut(written.name()) {
                left.settle(written, now);
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
        self.pool.inner.lock().others(&[&self.name], self.is_own)
    }

    /// The most slots that all together may hold because of what is in doubt elsewhere.
    pub fn ceiling(&self, now: Duration) -> Option<u64> {
        let inner = self.pool.inner.lock();
        let others = inner.members.iter().filter(|(name, _)| **name != self.name);
        let ceilings = others.filter_map(|(_, member)| member.ceiling);
        let closed = inner.left.values().any(|left| left.is_in_doubt(now));
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
        let (live, outcome) = grant(inner.others(&[&self.name], self.is_own));
        if let Some(member) = self.member(&mut inner) {
            member.live = live;
        }
        outcome
    }

    /// The part of `per_minute` points for an endpoint that asks for `wanted`.
    pub fn points(&self, per_minute: u64, wanted: u64) -> u64 {
        let mut inner = self.pool.inner.lock();
        if let Some(member) = self.member(&mut inner) {
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
mod tests;
