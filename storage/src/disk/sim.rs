//! A disk in memory that can fail, fill up, and crash at any call.
//!
//! What may happen to data: bytes appended since the last sync of their file may be kept, lost,
//! torn in the middle, replaced by zeros, or written back out of order; names changed since the last sync of their directory
//! may be kept or lost. What never happens: synced bytes and names change. A crashed disk answers
//! every further call with an error until [`SimDisk::after_crash`] makes a new one from what is left.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sync::Mutex;

use super::{DirEntry, Disk, DiskError, DiskFile, DiskLock, DiskResult, Mapped};

/// What becomes of bytes that were appended but not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// All there, as after the end of the process alone.
    Kept,
    /// All gone.
    Dropped,
    /// The first half is there.
    Torn,
    /// The length is there, the content is zeros.
    Zeroed,
    /// The length is there, every other page is zeros: later pages were written back before
    /// earlier ones.
    Reordered,
}

/// Bytes that are written back together; small, so that small files have several.
const PAGE: usize = 64;

/// What a crash leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// Bytes that were not synced.
    pub data: Unsynced,
    /// Whether names that were not synced are kept.
    pub names_kept: bool,
}

impl Crash {
    /// The process ended, the machine did not.
    pub const KILL: Self = Self { data: Unsynced::Kept, names_kept: true };

    /// The kinds of crash that tests go through.
    pub const ALL: [Self; 8] = [
        Self::KILL,
        Self { data: Unsynced::Dropped, names_kept: false },
        Self { data: Unsynced::Dropped, names_kept: true },
        Self { data: Unsynced::Torn, names_kept: true },
        Self { data: Unsynced::Torn, names_kept: false },
        Self { data: Unsynced::Zeroed, names_kept: true },
        Self { data: Unsynced::Reordered, names_kept: true },
        Self { data: Unsynced::Reordered, names_kept: false },
    ];
}

/// What goes wrong at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Input/output error, nothing done.
    Io,
    /// No space; an append leaves half of its bytes behind.
    Full,
    /// The machine stops: an append leaves half of its bytes behind, every later call fails.
    Crash,
}

/// When something goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Number of the call, from 0, counted since the plan was set.
    pub call: u64,
    /// What happens.
    pub fault: Fault,
    /// Whether all later calls fail the same way.
    pub repeated: bool,
}

#[derive(Clone, Debug)]
enum Node {
    File { data: Vec<u8>, durable: Vec<u8> },
    Dir { live: BTreeMap<String, usize>, durable: BTreeMap<String, usize> },
}

#[derive(Clone, Debug)]
struct State {
    nodes: Vec<Node>,
    calls: u64,
    plan: Option<Plan>,
    crashed: bool,
    capacity: u64,
}

/// Told of every call before it is made, with its number.
type Watcher = Arc<dyn Fn(u64) + Send + Sync>;

/// A simulated disk. Cloning shares it.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    locked: Arc<AtomicBool>,
    watcher: Arc<Mutex<Option<Watcher>>>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk of practically unlimited size.
    pub fn new() -> Self {
        let root = Node::Dir { live: BTreeMap::new(), durable: BTreeMap::new() };
        Self::from_state(State {
            nodes: vec![root],
            calls: 0,
            plan: None,
            crashed: false,
            capacity: u64::MAX,
        })
    }

    fn from_state(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)), locked: Arc::default(), watcher: Arc::default() }
    }

    /// Sets (or clears) what will go wrong, and counts calls from 0 again.
    pub fn set_plan(&self, plan: Option<Plan>) {
        let mut state = self.state.lock();
        state.plan = plan;
        state.calls = 0;
    }

    /// Calls `watcher` before each call, with its number, in the thread that makes it: what shall
    /// happen right there can be made to happen.
    pub fn watch(&self, watcher: impl Fn(u64) + Send + Sync + 'static) {
        *self.watcher.lock() = Some(Arc::new(watcher));
    }

    /// Lets nobody watch any more.
    pub fn unwatch(&self) {
        *self.watcher.lock() = None;
    }

    /// To be called while the state is not held.
    fn tell_watcher(&self) {
        let watcher = self.watcher.lock().clone();
        if let Some(watcher) = watcher {
            let call = self.calls();
            watcher(call);
        }
    }

    /// How many calls there were since the plan was set.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Whether the disk has crashed.
    pub fn has_crashed(&self) -> bool {
        self.state.lock().crashed
    }

    /// Lets at most `bytes` be stored in all files together.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.lock().capacity = bytes;
    }

    /// Flips the bits of `mask` in the byte of `path` at `offset`, in what is durable too. An
    /// error when there is no such byte.
    pub fn damage(&self, path: &Path, offset: usize, mask: u8) -> DiskResult<()> {
        let mut state = self.state.lock();
        let id = state.find(path).map_err(|e| DiskError::new("damage", path, e))?;
        if let Some(Node::File { data, durable }) = state.nodes.get_mut(id)
            && let Some(byte) = data.get_mut(offset)
        {
            *byte ^= mask;
            if let Some(byte) = durable.get_mut(offset) {
                *byte ^= mask;
            }
            return Ok(());
        }
        Err(DiskError::new("damage", path, io::ErrorKind::UnexpectedEof.into()))
    }

    /// A new disk holding what `crash` leaves of this one.
    #[must_use]
    pub fn after_crash(&self, crash: Crash) -> Self {
        let mut state = self.state.lock().clone();
        state.crashed = false;
        state.plan = None;
        state.calls = 0;
        if crash == Crash::KILL {
            // The machine goes on: what was not synced is still there, and still not synced.
            return Self::from_state(state);
        }
        for node in &mut state.nodes {
            match node {
                Node::File { data, durable } => {
                    *data = left_of(data, durable, crash.data);
                    durable.clone_from(data);
                }
                Node::Dir { live, durable } if crash.names_kept => durable.clone_from(live),
                Node::Dir { live, durable } => live.clone_from(durable),
            }
        }
        Self::from_state(state)
    }

    /// A new disk that holds what `dir` does.
    pub fn at_dir(&self, dir: &Path) -> DiskResult<Self> {
        let mut state = self.state.lock().clone();
        let id = state.find(dir).map_err(|e| DiskError::new("look at", dir, e))?;
        state.nodes.swap(0, id);
        state.plan = None;
        Ok(Self::from_state(state))
    }

    fn call<T>(
        &self,
        operation: &'static str,
        path: &Path,
        run: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> DiskResult<T> {
        self.tell_watcher();
        let mut state = self.state.lock();
        let result = match state.next_fault() {
            None => run(&mut state),
            Some(fault) => Err(fault_error(fault)),
        };
        result.map_err(|source| DiskError::new(operation, path, source))
    }

    fn file(&self, path: &Path, id: usize) -> Box<dyn DiskFile> {
        Box::new(SimFile { disk: self.clone(), path: path.to_path_buf(), id })
    }
}

fn fault_error(fault: Fault) -> io::Error {
    match fault {
        Fault::Io => io::Error::other("injected input/output error"),
        Fault::Full => io::ErrorKind::StorageFull.into(),
        Fault::Crash => io::Error::other("the machine has stopped"),
    }
}

fn left_of(data: &[u8], durable: &[u8], unsynced: Unsynced) -> Vec<u8> {
    if unsynced == Unsynced::Kept {
        return data.to_vec();
    }
    let Some(tail) = data.strip_prefix(durable) else {
        // Cut and not synced: the old content comes back.
        return durable.to_vec();
    };
    let mut left = durable.to_vec();
    match unsynced {
        Unsynced::Kept | Unsynced::Dropped => {}
        Unsynced::Torn => left.extend_from_slice(tail.get(..tail.len() / 2).unwrap_or_default()),
        Unsynced::Zeroed => left.resize(data.len(), 0),
        Unsynced::Reordered => {
            let start = durable.len();
            let kept = |place: usize| (place / PAGE - start / PAGE) % 2 == 1;
            let page = |(place, byte): (usize, &u8)| if kept(place) { *byte } else { 0 };
            left.extend((start..).zip(tail).map(page));
        }
    }
    left
}

impl State {
    fn next_fault(&mut self) -> Option<Fault> {
        let call = self.calls;
        self.calls += 1;
        if self.crashed {
            return Some(Fault::Crash);
        }
        let plan = self.plan?;
        let hit = call == plan.call || (plan.repeated && call > plan.call);
        self.crashed |= hit && plan.fault == Fault::Crash;
        hit.then_some(plan.fault)
    }

    fn dir(&mut self, id: usize) -> io::Result<&mut BTreeMap<String, usize>> {
        match self.nodes.get_mut(id) {
            Some(Node::Dir { live, .. }) => Ok(live),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn bytes(&mut self, id: usize) -> io::Result<&mut Vec<u8>> {
        match self.nodes.get_mut(id) {
            Some(Node::File { data, .. }) => Ok(data),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn find(&mut self, path: &Path) -> io::Result<usize> {
        let mut id = 0;
        for name in names(path)? {
            id = *self.dir(id)?.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(id)
    }

    /// The directory that holds (or will hold) the last name of `path`, and that name.
    fn parent(&mut self, path: &Path) -> io::Result<(usize, String)> {
        let mut above = names(path)?;
        let name = above.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let mut id = 0;
        for part in above {
            id = *self.dir(id)?.get(&part).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok((id, name))
    }

    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Bytes in all files that have a name.
    fn used(&self) -> u64 {
        let mut total = 0;
        let mut open = vec![0];
        while let Some(id) = open.pop() {
            match self.nodes.get(id) {
                Some(Node::File { data, .. }) => total += data.len() as u64,
                Some(Node::Dir { live, .. }) => open.extend(live.values()),
                None => {}
            }
        }
        total
    }

    fn append(&mut self, id: usize, bytes: &[u8]) -> io::Result<()> {
        let room = self.capacity.saturating_sub(self.used());
        let data = self.bytes(id)?;
        if bytes.len() as u64 <= room {
            data.extend_from_slice(bytes);
            return Ok(());
        }
        data.extend_from_slice(bytes.get(..room as usize).unwrap_or_default());
        Err(io::ErrorKind::StorageFull.into())
    }
}

fn names(path: &Path) -> io::Result<Vec<String>> {
    path.components()
        .filter(|part| !matches!(part, Component::CurDir))
        .map(|part| match part {
            Component::Normal(name) => Ok(name.to_string_lossy().into_owned()),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        })
        .collect()
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>> {
        let id = self.call("create", path, |state| {
            let (dir, name) = state.parent(path)?;
            if state.dir(dir)?.contains_key(&name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let id = state.add(Node::File { data: Vec::new(), durable: Vec::new() });
            state.dir(dir)?.insert(name, id);
            Ok(id)
        })?;
        Ok(self.file(path, id))
    }

    fn open(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>> {
        let id = self.call("open", path, |state| {
            let id = state.find(path)?;
            state.bytes(id).map(|_| id)
        })?;
        Ok(self.file(path, id))
    }

    fn read(&self, path: &Path, offset: u64, length: usize) -> DiskResult<Vec<u8>> {
        self.call("read", path, |state| {
            let id = state.find(path)?;
            let data = state.bytes(id)?;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
            let end = start.saturating_add(length).min(data.len());
            Ok(data.get(start..end).unwrap_or_default().to_vec())
        })
    }

    fn map(&self, path: &Path) -> DiskResult<Mapped> {
        self.call("map", path, |state| {
            let id = state.find(path)?;
            Ok(Mapped::new(state.bytes(id)?.clone()))
        })
    }

    fn size(&self, path: &Path) -> DiskResult<u64> {
        self.call("look at", path, |state| {
            let id = state.find(path)?;
            Ok(state.bytes(id)?.len() as u64)
        })
    }

    fn list(&self, dir: &Path) -> DiskResult<Vec<DirEntry>> {
        self.call("list", dir, |state| {
            let id = state.find(dir)?;
            let names = state.dir(id)?.clone();
            let entry = |(name, id): (String, usize)| match state.nodes.get(id) {
                Some(Node::File { data, .. }) => {
                    DirEntry { name, is_dir: false, size: data.len() as u64 }
                }
                _ => DirEntry { name, is_dir: true, size: 0 },
            };
            Ok(names.into_iter().map(entry).collect())
        })
    }

    fn create_dir(&self, dir: &Path) -> DiskResult<()> {
        self.call("create directory", dir, |state| {
            let mut id = 0;
            for name in names(dir)? {
                let next = state.dir(id)?.get(&name).copied();
                id = if let Some(next) = next {
                    next
                } else {
                    let node = Node::Dir { live: BTreeMap::new(), durable: BTreeMap::new() };
                    let next = state.add(node);
                    state.dir(id)?.insert(name, next);
                    next
                };
            }
            state.dir(id).map(|_| ())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.call("rename", from, |state| {
            let (old_dir, old) = state.parent(from)?;
            let (new_dir, new) = state.parent(to)?;
            let id = *state.dir(old_dir)?.get(&old).ok_or(io::ErrorKind::NotFound)?;
            state.dir(old_dir)?.remove(&old);
            state.dir(new_dir)?.insert(new, id);
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.call("link", from, |state| {
            let id = state.find(from)?;
            state.bytes(id)?;
            let (dir, name) = state.parent(to)?;
            if state.dir(dir)?.contains_key(&name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.dir(dir)?.insert(name, id);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> DiskResult<()> {
        self.call("remove", path, |state| {
            let id = state.find(path)?;
            state.bytes(id)?;
            let (dir, name) = state.parent(path)?;
            state.dir(dir)?.remove(&name);
            Ok(())
        })
    }

    fn remove_dir(&self, path: &Path) -> DiskResult<()> {
        self.call("remove directory", path, |state| {
            let id = state.find(path)?;
            state.dir(id)?;
            let (dir, name) = state.parent(path)?;
            state.dir(dir)?.remove(&name);
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> DiskResult<()> {
        self.call("sync directory", dir, |state| {
            let id = state.find(dir)?;
            match state.nodes.get_mut(id) {
                Some(Node::Dir { live, durable }) => durable.clone_from(live),
                _ => return Err(io::ErrorKind::NotADirectory.into()),
            }
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> DiskResult<Box<dyn DiskLock>> {
        self.call("lock", path, |_| {
            if self.locked.swap(true, Ordering::SeqCst) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        })?;
        Ok(Box::new(SimLock(Arc::clone(&self.locked))))
    }

    fn free_space(&self) -> DiskResult<u64> {
        self.call("look at", Path::new(""), |state| Ok(state.capacity.saturating_sub(state.used())))
    }
}

struct SimFile {
    disk: SimDisk,
    path: std::path::PathBuf,
    id: usize,
}

impl DiskFile for SimFile {
    fn append(&self, bytes: &[u8]) -> DiskResult<()> {
        self.disk.tell_watcher();
        let mut state = self.disk.state.lock();
        let was_crashed = state.crashed;
        let result = match state.next_fault() {
            None => state.append(self.id, bytes),
            Some(fault) => {
                if fault != Fault::Io && !was_crashed {
                    let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
                    state.append(self.id, half).and(Err(fault_error(fault)))
                } else {
                    Err(fault_error(fault))
                }
            }
        };
        result.map_err(|source| DiskError::new("append to", &self.path, source))
    }

    fn sync(&self) -> DiskResult<()> {
        self.disk.call("sync", &self.path, |state| match state.nodes.get_mut(self.id) {
            Some(Node::File { data, durable }) => {
                durable.clone_from(data);
                Ok(())
            }
            _ => Err(io::ErrorKind::IsADirectory.into()),
        })
    }

    fn truncate(&self, length: u64) -> DiskResult<()> {
        self.disk.call("truncate", &self.path, |state| {
            state.bytes(self.id)?.truncate(length as usize);
            Ok(())
        })
    }
}

#[derive(Debug)]
struct SimLock(Arc<AtomicBool>);

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
