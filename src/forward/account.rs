//! Whose slots an endpoint's ledger counts: the account behind its address.
//!
//! The state of an endpoint lies in a directory named as it is, and an endpoint without a name has
//! one made from its settings. The account does not care: to it, series of an endpoint that was
//! renamed count as before. So the directory says whose it is, and an endpoint without state takes
//! over that of its account, if no other endpoint uses it. An endpoint that turns to another account
//! leaves its ledger aside, for the case that it comes back. Endpoints that send to one account are
//! in one [`Pool`], so that together they never hold more slots than it has.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stint_model::Labels;
use stint_storage::disk::{read_all, write_atomically};
use stint_storage::{Disk, DiskError};

use super::cursor::directory;
use crate::budget::pool::{Pool, Seat};
use crate::config::{Auth, Credential, RemoteWrite};

/// Name of the file that says whose a directory is.
const FILE: &str = "account";
/// What lies in a directory that is taken over, in the order in which it is. Numbers of targets belong
/// to the series that hold the leases.
const CURSOR: &str = "cursor";
const LEDGER: [&str; 8] = [
    "ledger.unlisted",
    "ledger",
    "ledger.doubt",
    "ledger.evicted",
    "ledger.month",
    "identities",
    "trail",
    "labels",
];

/// An account, as it can be told without revealing anything: a hash of address and user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account(u128);

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Account {
    /// The account behind an endpoint: host and path, the user, and the tenant. Not the password,
    /// which is changed now and then.
    pub fn of(config: &RemoteWrite) -> Self {
        let rest = config.url.split_once("://").map_or(&*config.url, |(_, rest)| rest);
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let user = user.split(':').next().unwrap_or_default();
        let user = match &config.http.auth {
            Auth::None => user.to_owned(),
            Auth::Basic { username, .. } => text(username),
            Auth::OAuth2(oauth) => oauth.client_id.clone(),
            // Grafana Cloud takes `<user>:<token>`.
            Auth::Scheme { credentials, .. } => {
                let text = text(credentials);
                text.split_once(':').map(|(user, _)| user.to_owned()).unwrap_or_default()
            }
        };
        let tenant = |name: &str| name.eq_ignore_ascii_case("x-scope-orgid");
        let plain = config.headers.iter().filter(|(name, _)| tenant(name));
        let mut tenants: Vec<String> = plain.map(|(_, value)| value.clone()).collect();
        let more = config.http.headers.iter().filter(|header| tenant(&header.name));
        tenants.extend(more.flat_map(|header| header.values.iter().map(text)));
        let host = host.to_ascii_lowercase();
        let path = path.trim_end_matches('/');
        let identity = Labels::from_pairs([
            ("host", host.as_str()),
            ("path", path),
            ("tenant", &tenants.join(",")),
            ("user", &user),
        ]);
        Self(identity.stable_hash_128())
    }

    fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, DiskError> {
        match read_all(disk, &dir.join(FILE)) {
            Ok(bytes) => {
                let text = String::from_utf8(bytes).unwrap_or_default();
                Ok(u128::from_str_radix(text.trim_end(), 16).ok().map(Self))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(self, disk: &dyn Disk, dir: &Path) -> Result<(), DiskError> {
        write_atomically(disk, &dir.join(FILE), format!("{self}\n").as_bytes())
    }
}

/// The endpoints, where those that share an account have what no other one has for its own: together
/// they have one budget. What is written for one of them alone is its own.
pub fn shared_out(endpoints: &[RemoteWrite]) -> Vec<RemoteWrite> {
    let mut owned: BTreeMap<Account, Vec<&RemoteWrite>> = BTreeMap::new();
    let is_own = |it: &&RemoteWrite| it.budget.is_limited() && it.budget.is_own;
    for endpoint in endpoints.iter().filter(is_own) {
        owned.entry(Account::of(endpoint)).or_default().push(endpoint);
    }
    let mut all = endpoints.to_vec();
    for endpoint in all.iter_mut().filter(|it| it.budget.is_limited() && !it.budget.is_own) {
        let Some(own) = owned.get(&Account::of(endpoint)) else { continue };
        let rest = |whole: Option<u64>, of: fn(&RemoteWrite) -> Option<u64>| {
            let taken = own.iter().filter_map(|peer| of(peer)).fold(0, u64::saturating_add);
            whole.map(|whole| whole.saturating_sub(taken).max(1))
        };
        let budget = &endpoint.budget;
        let series = rest(budget.series, |peer| peer.budget.series);
        let points = rest(budget.points_per_minute, |peer| peer.budget.points_per_minute);
        (endpoint.budget.series, endpoint.budget.points_per_minute) = (series, points);
    }
    all
}

/// The names of endpoints that have budgets and share an account, by account.
pub fn shared(endpoints: &[RemoteWrite]) -> Vec<Vec<&str>> {
    let mut names: BTreeMap<Account, Vec<&str>> = BTreeMap::new();
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.budget.is_limited()) {
        names.entry(Account::of(endpoint)).or_default().push(&endpoint.name);
    }
    names.into_values().filter(|names| names.len() > 1).collect()
}

/// What names a user without being read anew: the text, or the file that holds it.
fn text(credential: &Credential) -> String {
    match credential {
        Credential::Inline(secret) => secret.reveal().to_owned(),
        Credential::File(path) => path.display().to_string(),
    }
}

/// Where the state lies with which an endpoint would go on, if there is any. Nothing is moved.
///
/// # Errors
/// The disk failed.
pub(super) fn folder_of(
    disk: &dyn Disk,
    config: &RemoteWrite,
    names: &[String],
) -> Result<Option<PathBuf>, DiskError> {
    let account = Account::of(config);
    let dir = directory(&config.name);
    let own = Account::read(disk, &dir)?;
    let above = dir.parent().unwrap_or(Path::new("forward"));
    if own == Some(account) {
        return Ok(Some(dir));
    }
    let used: Vec<PathBuf> = names.iter().map(|name| directory(name)).collect();
    match find(disk, above, account, &used) {
        Err(error) if error.is_not_found() => Ok(None),
        found => found,
    }
}

/// What an endpoint has of its account's past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// What lies in its directory, if there is anything.
    Own,
    /// Nothing: its directory belonged to another account.
    New,
    /// Nothing, but others that send to its account have, so that it is known what was sent.
    Known,
}

/// Sees to it that the directory of `config` holds the state of its account, as far as there is
/// one that none of the endpoints `names` uses. What `pools` count of what is moved, they count where it
/// lies afterwards.
///
/// # Errors
/// The disk failed. What is there is then used as it is.
pub fn claim(
    disk: &Arc<dyn Disk>,
    config: &RemoteWrite,
    names: &[String],
    pools: &Pools,
    now: Duration,
) -> Result<Past, DiskError> {
    let moved = |account, from: &Path, to: &Path| pools.moved(account, disk, [from, to], now);
    let disk = &**disk;
    let account = Account::of(config);
    let dir = directory(&config.name);
    let own = Account::read(disk, &dir)?;
    if own == Some(account) {
        return Ok(Past::Own);
    }
    let above = dir.parent().unwrap_or(Path::new("forward"));
    disk.create_dir(&dir)?;
    let mut past = Past::Own;
    if let Some(other) = own {
        past = Past::New;
        let aside = dir.with_extension(format!("{:08x}", other.0 as u32));
        disk.create_dir(&aside)?;
        pools.close(other, &dir);
        for name in LEDGER {
            move_file(disk, &dir, &aside, name)?;
        }
        other.write(disk, &aside)?;
        moved(other, &dir, &aside);
        tracing::info!(endpoint = %config.name, "the endpoint sends to another account than before");
    }
    if own.is_some() || !has_state(disk, &dir)? {
        let used: Vec<PathBuf> = names.iter().map(|name| directory(name)).collect();
        if let Some(from) = find(disk, above, account, &used)? {
            // Whoever writes it otherwise would make it anew where it was.
            pools.close(account, &from);
            if own.is_none() {
                move_file(disk, &from, &dir, CURSOR)?;
            }
            for name in LEDGER {
                move_file(disk, &from, &dir, name)?;
            }
            past = Past::Own;
            tracing::info!(
                endpoint = %config.name, from = %from.display(),
                "the endpoint goes on where another one for the same account stopped"
            );
            account.write(disk, &dir)?;
            disk.remove_dir(&from)?;
            disk.sync_dir(above)?;
            moved(account, &from, &dir);
            return Ok(past);
        }
    }
    account.write(disk, &dir)?;
    disk.sync_dir(above)?;
    Ok(past)
}

/// The pools of all accounts that were sent to since the start.
#[derive(Debug, Default)]
pub struct Pools(Mutex<BTreeMap<Account, Arc<Pool>>>);

impl Pools {
    /// The place of an endpoint in the pool of its account, of which everything on disk is counted.
    ///
    /// # Errors
    /// The disk failed.
    pub fn seat(
        &self,
        disk: &Arc<dyn Disk>,
        config: &RemoteWrite,
        now: Duration,
    ) -> Result<Seat, DiskError> {
        let account = Account::of(config);
        let mut pools = self.0.lock();
        let pool = pools.entry(account).or_default();
        let dir = directory(&config.name);
        let above = dir.parent().unwrap_or(Path::new("forward"));
        for entry in disk.list(above)? {
            let dir = above.join(&entry.name);
            if !pool.knows(&entry.name) && Account::read(&**disk, &dir)? == Some(account) {
                pool.leave(&entry.name, Arc::clone(disk), &ledger_in(&dir), now);
            }
        }
        Ok(Seat::new(Arc::clone(pool), &folder_name(&config.name), config.budget.is_own))
    }

    /// Nobody writes the ledger in the folder of an endpoint any more; it still counts. It may wait for the
    /// disk.
    fn close(&self, account: Account, folder: &Path) {
        if let Some(pool) = self.0.lock().get(&account) {
            pool.close(&name_of(folder));
        }
    }

    /// A closed ledger counts where it lies now.
    fn moved(&self, account: Account, disk: &Arc<dyn Disk>, folders: [&Path; 2], now: Duration) {
        if let Some(pool) = self.0.lock().get(&account) {
            let [from, to] = folders;
            let (disk, ledger) = (Arc::clone(disk), ledger_in(to));
            pool.moved(&name_of(from), &name_of(to), disk, &ledger, now);
        }
    }

    /// Nobody works for the endpoint any more; what it sent still counts.
    pub fn leave(&self, disk: &Arc<dyn Disk>, config: &RemoteWrite, now: Duration) {
        if let Some(pool) = self.0.lock().get(&Account::of(config)) {
            let ledger = ledger_in(&directory(&config.name));
            pool.leave(&folder_name(&config.name), Arc::clone(disk), &ledger, now);
        }
    }
}

/// Where the ledger lies in the folder of an endpoint.
pub(super) fn ledger_in(folder: &Path) -> PathBuf {
    folder.join("ledger")
}

fn folder_name(endpoint: &str) -> String {
    name_of(&directory(endpoint))
}

fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether one of `peers` has a ledger.
///
/// # Errors
/// The disk failed.
pub fn has_ledger(disk: &dyn Disk, peers: &[String]) -> Result<bool, DiskError> {
    for peer in peers {
        let entries = match disk.list(&directory(peer)) {
            Ok(entries) => entries,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        if entries.iter().any(|entry| entry.name == "ledger") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_state(disk: &dyn Disk, dir: &Path) -> Result<bool, DiskError> {
    let entries = disk.list(dir)?;
    Ok(entries.iter().any(|entry| entry.name == CURSOR || LEDGER.contains(&entry.name.as_str())))
}

/// A directory of `account` that is none of `used`.
fn find(
    disk: &dyn Disk,
    above: &Path,
    account: Account,
    used: &[PathBuf],
) -> Result<Option<PathBuf>, DiskError> {
    for entry in disk.list(above)? {
        let dir = above.join(&entry.name);
        if !used.contains(&dir) && Account::read(disk, &dir)? == Some(account) {
            return Ok(Some(dir));
        }
    }
    Ok(None)
}

fn move_file(disk: &dyn Disk, from: &Path, to: &Path, name: &str) -> Result<(), DiskError> {
    match disk.rename(&from.join(name), &to.join(name)) {
        Ok(()) => disk.sync_dir(to),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use stint_storage::SimDisk;

    use super::*;
    use crate::budget::group::Key;
    use crate::budget::ledger::Ledger;
    use crate::budget::limits::HOLD;
    use crate::config::{Budget, Secret};
    use crate::forward::sim::endpoint;

    /// Where nobody works for any endpoint.
    fn claim(
        disk: &Arc<dyn Disk>,
        config: &RemoteWrite,
        names: &[String],
    ) -> Result<Past, DiskError> {
        super::claim(disk, config, names, &Pools::default(), Duration::ZERO)
    }

    fn config(name: &str, url: &str, user: &str) -> RemoteWrite {
        let secret = |text: &str| Credential::Inline(Secret::new(text));
        let auth = Auth::Basic { username: secret(user), password: secret("glc_x") };
        let mut config = endpoint(name, url);
        config.http.auth = auth;
        config
    }

    const URL: &str = "https://prom.grafana.net/api/prom/push";

    #[test]
    fn an_account_is_host_path_user_and_tenant() {
        let of = |url: &str, user: &str| Account::of(&config("a", url, user));
        let one = of(URL, "1");
        assert_eq!(one, of("https://PROM.grafana.net/api/prom/push/", "1"));
        assert_ne!(one, of(URL, "2"));
        assert_ne!(one, of("https://prom2.grafana.net/api/prom/push", "1"));
        let mut bearer = config("a", URL, "");
        bearer.http.auth = Auth::Scheme {
            scheme: "Bearer".into(),
            credentials: Credential::Inline(Secret::new("1:token")),
        };
        assert_eq!(one, Account::of(&bearer));
        let mut in_url = config("a", "https://1:pass@prom.grafana.net/api/prom/push", "");
        in_url.http.auth = Auth::None;
        assert_eq!(one, Account::of(&in_url));
        let mut tenant = config("a", URL, "1");
        tenant.headers = vec![("X-Scope-OrgID".into(), "7".into())];
        assert_ne!(one, Account::of(&tenant));
    }

    #[test]
    fn endpoints_that_share_an_account_are_told() {
        let budgeted =
            |name, user| RemoteWrite { budget: Budget::free_tier(), ..config(name, URL, user) };
        let all =
            [budgeted("a", "1"), budgeted("b", "2"), budgeted("c", "1"), config("d", URL, "1")];
        assert_eq!(shared(&all), [["a", "c"]]);
    }

    #[test]
    fn endpoints_for_one_account_share_what_none_has_for_its_own() {
        let of = |name: &str, user: &str, budget: &Budget| RemoteWrite {
            budget: budget.clone(),
            ..config(name, URL, user)
        };
        let free = Budget::free_tier();
        let series = |all: &[RemoteWrite]| -> Vec<(Option<u64>, Option<u64>)> {
            let out = shared_out(all);
            out.iter().map(|it| (it.budget.series, it.budget.points_per_minute)).collect()
        };
        let all = (Some(10_000), Some(10_000));
        let pair = [of("a", "1", &free), of("b", "1", &free), of("c", "2", &free)];
        assert_eq!(series(&pair), [all, all, all]);
        let own = Budget { series: Some(4_000), is_own: true, ..free.clone() };
        let own = Budget { points_per_minute: Some(7_000), ..own };
        let three = [of("a", "1", &free), of("b", "1", &own), of("c", "1", &free)];
        let rest = (Some(6_000), Some(3_000));
        assert_eq!(series(&three), [rest, (Some(4_000), Some(7_000)), rest]);
        let greedy = Budget { series: Some(20_000), ..own };
        let none = (Some(1), Some(3_000));
        assert_eq!(series(&[of("a", "1", &free), of("b", "1", &greedy)])[0], none);
        let open = of("d", "1", &Budget::default());
        assert_eq!(series(&[of("a", "1", &free), open])[0], all, "what has no budget takes none");
    }

    #[test]
    fn the_pools_of_accounts_know_what_nobody_works_with() {
        let disk = disk();
        claim(&disk, &config("a", URL, "1"), &names(&["a"])).unwrap();
        claim(&disk, &config("b", URL, "1"), &names(&["a", "b"])).unwrap();
        for (name, keys) in [("a", 3), ("b", 2)] {
            let path = directory(name).join("ledger");
            let (mut ledger, _) = Ledger::open(Arc::clone(&disk), &path, HOLD, Duration::ZERO);
            let wanted: Vec<(Key, u16)> = (0..keys).map(|key| (Key(key), 0)).collect();
            ledger.grant(&wanted, 10, Duration::ZERO).unwrap();
        }
        let pools = Pools::default();
        let a = RemoteWrite { budget: Budget::free_tier(), ..config("a", URL, "1") };
        let seat = pools.seat(&disk, &a, Duration::ZERO).unwrap();
        seat.join(3, None);
        assert_eq!(seat.others(), 2, "what b sent counts, whether it is configured or not");
        let other = RemoteWrite { budget: Budget::free_tier(), ..config("c", URL, "2") };
        let other = pools.seat(&disk, &other, Duration::ZERO).unwrap();
        other.join(0, None);
        assert_eq!(other.others(), 0);
        pools.leave(&disk, &a, Duration::ZERO);
        let b = RemoteWrite { budget: Budget::free_tier(), ..config("b", URL, "1") };
        let seat = pools.seat(&disk, &b, Duration::ZERO).unwrap();
        seat.join(2, None);
        assert_eq!(seat.others(), 3);
    }

    fn put(disk: &Arc<dyn Disk>, name: &str, file: &str, text: &str) {
        let dir = directory(name);
        disk.create_dir(&dir).unwrap();
        write_atomically(&**disk, &dir.join(file), text.as_bytes()).unwrap();
    }

    fn get(disk: &Arc<dyn Disk>, name: &str, file: &str) -> Option<String> {
        let bytes = read_all(&**disk, &directory(name).join(file)).ok()?;
        Some(String::from_utf8(bytes).unwrap())
    }

    fn disk() -> Arc<dyn Disk> {
        Arc::new(SimDisk::new())
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_renamed_endpoint_takes_its_state_along_and_back() {
        let disk = disk();
        assert_eq!(claim(&disk, &config("a", URL, "1"), &names(&["a"])).unwrap(), Past::Own);
        put(&disk, "a", "cursor", "c");
        put(&disk, "a", "ledger", "l");
        put(&disk, "a", "ledger.doubt", "d");
        put(&disk, "a", "identities", "i");
        for (from, to) in [("a", "b"), ("b", "a")] {
            assert_eq!(claim(&disk, &config(to, URL, "1"), &names(&[to])).unwrap(), Past::Own);
            let files =
                [("cursor", "c"), ("ledger", "l"), ("ledger.doubt", "d"), ("identities", "i")];
            for (file, text) in files {
                assert_eq!(get(&disk, to, file).as_deref(), Some(text));
                assert_eq!(get(&disk, from, file), None);
            }
        }
    }

    #[test]
    fn the_state_of_an_endpoint_in_use_is_left_alone() {
        let disk = disk();
        claim(&disk, &config("a", URL, "1"), &names(&["a"])).unwrap();
        put(&disk, "a", "ledger", "l");
        claim(&disk, &config("b", URL, "1"), &names(&["a", "b"])).unwrap();
        claim(&disk, &config("c", URL, "2"), &names(&["c"])).unwrap();
        assert_eq!(get(&disk, "a", "ledger").as_deref(), Some("l"));
        assert!(get(&disk, "b", "ledger").is_none() && get(&disk, "c", "ledger").is_none());
    }

    #[test]
    fn an_endpoint_that_turns_to_another_account_leaves_its_ledger_until_it_comes_back() {
        let disk = disk();
        claim(&disk, &config("a", URL, "1"), &names(&["a"])).unwrap();
        put(&disk, "a", "cursor", "c");
        put(&disk, "a", "ledger", "of 1");
        assert_eq!(claim(&disk, &config("a", URL, "2"), &names(&["a"])).unwrap(), Past::New);
        assert_eq!(get(&disk, "a", "ledger"), None);
        assert_eq!(get(&disk, "a", "cursor").as_deref(), Some("c"));
        put(&disk, "a", "ledger", "of 2");
        assert_eq!(claim(&disk, &config("a", URL, "1"), &names(&["a"])).unwrap(), Past::Own);
        assert_eq!(get(&disk, "a", "ledger").as_deref(), Some("of 1"));
        assert_eq!(claim(&disk, &config("a", URL, "2"), &names(&["a"])).unwrap(), Past::Own);
        assert_eq!(get(&disk, "a", "ledger").as_deref(), Some("of 2"));
    }

    #[test]
    fn what_lies_aside_counts_for_its_account_and_is_written_there() {
        let disk = disk();
        let pools = Pools::default();
        let budgeted = |name: &str, user: &str| RemoteWrite {
            budget: Budget::free_tier(),
            ..config(name, URL, user)
        };
        let (now, later) = (Duration::ZERO, Duration::from_mins(5));
        let claim = |config: &RemoteWrite| {
            super::claim(&disk, config, &names(&["a", "b"]), &pools, now).unwrap()
        };
        claim(&budgeted("a", "1"));
        let path = directory("a").join("ledger");
        let (mut ledger, _) = Ledger::open(Arc::clone(&disk), &path, HOLD, now);
        ledger.grant(&[(Key(1), 0), (Key(2), 0)], 10, now).unwrap();
        claim(&budgeted("b", "1"));
        let b = pools.seat(&disk, &budgeted("b", "1"), now).unwrap();
        b.join(0, None);
        let before = b.left_writes(later);
        claim(&budgeted("a", "2"));
        assert_eq!(b.others(), 2, "once");
        b.advance(later);
        let after = b.left_writes(later);
        assert!(!after.is_empty());
        before.into_iter().chain(after).for_each(|write| drop(write.run()));
        assert_eq!(get(&disk, "a", "ledger"), None, "that is the place of another account's");
    }

    #[test]
    fn state_from_before_accounts_were_noted_is_its_own() {
        let disk = disk();
        put(&disk, "a", "ledger", "l");
        assert_eq!(claim(&disk, &config("a", URL, "1"), &names(&["a"])).unwrap(), Past::Own);
        assert_eq!(get(&disk, "a", "ledger").as_deref(), Some("l"));
    }
}
