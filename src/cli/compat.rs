//! Flags that Prometheus has and this server has not: refused with the reason, or accepted with
//! a word where there is nothing that they could change.

/// What becomes of a foreign flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Starting would not give what was asked for.
    Refused(&'static str),
    /// There is nothing here for it to act on; a warning says so.
    Idle(&'static str),
    /// An older name of a flag that exists.
    Renamed(&'static str),
}

use Fate::{Idle, Refused, Renamed};

const NO_AGENT: &str = "there is no agent mode: the server always keeps what it forwards";
const OWN_FORMAT: &str = "storage has its own format, which does not have this setting";
const NO_CONSOLES: &str = "console templates are not served";
const GO_ONLY: &str = "it tunes the Go runtime, which is not used here";

/// Foreign flags with the number of values they take on the command line (0 for switches).
const FOREIGN: [(&str, usize, Fate); 40] = [
    (
        "web.remote-write-receiver.accepted-protobuf-messages",
        1,
        Refused("the receiver accepts every message type it knows"),
    ),
    ("web.page-title", 1, Refused("there is no page to give a title to")),
    ("web.user-assets", 1, Refused("files are not served")),
    ("web.max-notifications-subscribers", 1, Refused("notifications are not served")),
    ("web.search.max-limit", 1, Refused("the search API is not served")),
    ("web.console.templates", 1, Idle(NO_CONSOLES)),
    ("web.console.libraries", 1, Idle(NO_CONSOLES)),
    ("auto-gomaxprocs", 0, Idle(GO_ONLY)),
    ("auto-gomemlimit", 0, Idle(GO_ONLY)),
    ("auto-gomemlimit.ratio", 1, Idle(GO_ONLY)),
    ("auto-gomemlimit.refresh-interval", 1, Idle(GO_ONLY)),
    ("agent", 0, Refused(NO_AGENT)),
    ("storage.agent.path", 1, Refused(NO_AGENT)),
    ("storage.agent.wal-segment-size", 1, Refused(NO_AGENT)),
    ("storage.agent.wal-compression", 0, Refused(NO_AGENT)),
    ("storage.agent.wal-compression-type", 1, Refused(NO_AGENT)),
    ("storage.agent.wal-truncate-frequency", 1, Refused(NO_AGENT)),
    ("storage.agent.retention.min-time", 1, Refused(NO_AGENT)),
    ("storage.agent.retention.max-time", 1, Refused(NO_AGENT)),
    ("storage.agent.no-lockfile", 0, Refused(NO_AGENT)),
    (
        "storage.tsdb.no-lockfile",
        0,
        Refused("two servers on one directory would destroy it; the lock is always taken"),
    ),
    ("storage.tsdb.retention", 1, Renamed("storage.tsdb.retention.time")),
    ("storage.tsdb.allow-overlapping-blocks", 0, Idle("overlapping blocks are always allowed")),
    ("storage.tsdb.allow-overlapping-compaction", 0, Idle("overlapping blocks are always merged")),
    ("storage.tsdb.wal-compression", 0, Idle(OWN_FORMAT)),
    ("storage.tsdb.wal-compression-type", 1, Idle(OWN_FORMAT)),
    ("storage.tsdb.wal-segment-size", 1, Refused(OWN_FORMAT)),
    ("storage.tsdb.head-chunks-write-queue-size", 1, Idle(OWN_FORMAT)),
    ("storage.tsdb.delay-compact-file.path", 1, Refused(OWN_FORMAT)),
    ("storage.tsdb.min-block-duration", 1, Refused(OWN_FORMAT)),
    ("storage.tsdb.max-block-duration", 1, Refused(OWN_FORMAT)),
    ("storage.tsdb.max-block-chunk-segment-size", 1, Refused(OWN_FORMAT)),
    ("storage.tsdb.samples-per-chunk", 1, Refused(OWN_FORMAT)),
    ("storage.tsdb.delayed-compaction.max-percent", 1, Refused(OWN_FORMAT)),
    ("storage.tsdb.block-reload-interval", 1, Refused(OWN_FORMAT)),
    ("storage.remote.read-sample-limit", 1, Refused("--query.max-samples limits remote read too")),
    (
        "storage.remote.read-concurrent-limit",
        1,
        Refused("--query.max-concurrency limits remote read too"),
    ),
    (
        "storage.remote.read-max-bytes-in-frame",
        1,
        Idle("remote read answers with samples, which have no frames"),
    ),
    ("alertmanager.timeout", 1, Idle("it was removed from Prometheus, too")),
    (
        "scrape.timestamp-tolerance",
        1,
        Refused("scraped samples always carry the scheduled time of their scrape"),
    ),
];

/// Arguments without foreign flags, and a warning for each that was taken out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sifted {
    pub(super) arguments: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// Takes foreign flags out of the command line.
///
/// # Errors
/// Why a flag is refused.
pub(super) fn sift(arguments: impl IntoIterator<Item = String>) -> Result<Sifted, String> {
    let mut sifted = Sifted::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let flag = argument.strip_prefix("--").unwrap_or_default();
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        let foreign = FOREIGN.iter().find(|(candidate, _, _)| *candidate == name);
        match foreign {
            None => sifted.arguments.push(argument),
            Some((_, _, Refused(reason))) => {
                return Err(format!("flag --{name} is not supported: {reason}"));
            }
            Some((_, values, Idle(reason))) => {
                sifted.warnings.push(format!("flag --{name} has no effect: {reason}"));
                if *values > 0 && value.is_none() {
                    arguments.next();
                }
            }
            Some((_, _, Renamed(current))) => {
                sifted.warnings.push(format!("flag --{name} is now called --{current}"));
                let value = value.map(|value| format!("={value}")).unwrap_or_default();
                sifted.arguments.push(format!("--{current}{value}"));
            }
        }
    }
    Ok(sifted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &[&str], kept: &[&str], warnings: usize) {
        let sifted = sift(given.iter().map(ToString::to_string)).unwrap();
        assert_eq!(
            (&*sifted.arguments, sifted.warnings.len()),
            (&*kept.iter().map(ToString::to_string).collect::<Vec<_>>(), warnings)
        );
    }

    #[test]
    fn idle_flags_go_with_their_values() {
        check(
            &[
                "stint",
                "--web.console.libraries=/a",
                "--web.console.templates",
                "/b",
                "--log.level=warn",
            ],
            &["stint", "--log.level=warn"],
            2,
        );
        check(&["--storage.tsdb.wal-compression", "check"], &["check"], 1);
    }

    #[test]
    fn old_names_become_new_ones() {
        check(
            &["--storage.tsdb.retention=5d", "--storage.tsdb.retention", "6d"],
            &["--storage.tsdb.retention.time=5d", "--storage.tsdb.retention.time", "6d"],
            2,
        );
    }

    #[test]
    fn what_would_be_missed_is_refused() {
        let refused = |flag: &str| sift([flag.to_owned()]).unwrap_err();
        assert!(refused("--agent").contains("no agent mode"));
        assert!(
            refused("--storage.agent.path=x")
                .starts_with("flag --storage.agent.path is not supported: ")
        );
    }
}
