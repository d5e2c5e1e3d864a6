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
const NO_UPLOADER: &str = "blocks have a format of their own, which nothing else uploads";
const ON_TIME: &str = "scraped samples always carry the time that their scrape was due";
const NO_CONSOLES: &str = "console templates are not served";
const GO_ONLY: &str = "it tunes the Go runtime, which is not used here";

/// Foreign flags with the number of values they take on the command line (0 for switches).
const FOREIGN: [(&str, usize, Fate); 37] = [
    ("web.page-title", 1, Idle("the pages have titles of their own")),
    ("web.user-assets", 1, Refused("files are not served")),
    ("web.search.max-limit", 1, Idle("the search API is not served")),
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
    ("storage.tsdb.retention", 1, Renamed("storage.tsdb.retention.time")),
    ("storage.tsdb.allow-overlapping-blocks", 0, Idle("overlapping blocks are always allowed")),
    ("storage.tsdb.allow-overlapping-compaction", 0, Idle("overlapping blocks are always merged")),
    ("storage.tsdb.wal-compression", 0, Idle(OWN_FORMAT)),
    ("storage.tsdb.wal-compression-type", 1, Idle(OWN_FORMAT)),
    ("storage.tsdb.wal-segment-size", 1, Idle(OWN_FORMAT)),
    ("storage.tsdb.head-chunks-write-queue-size", 1, Idle(OWN_FORMAT)),
    ("storage.tsdb.delay-compact-file.path", 1, Refused(NO_UPLOADER)),
    ("storage.tsdb.min-block-duration", 1, Idle(OWN_FORMAT)),
    ("storage.tsdb.max-block-duration", 1, Idle(OWN_FORMAT)),
    ("storage.tsdb.max-block-chunk-segment-size", 1, Idle(OWN_FORMAT)),
    ("storage.tsdb.samples-per-chunk", 1, Idle(OWN_FORMAT)),
    ("storage.tsdb.delayed-compaction.max-percent", 1, Idle(OWN_FORMAT)),
    ("storage.tsdb.block-reload-interval", 1, Idle(OWN_FORMAT)),
    (
        "storage.tsdb.no-lockfile",
        0,
        Idle("the lock is always taken; it ends with the process, however that ends"),
    ),
    ("scrape.adjust-timestamps", 0, Idle(ON_TIME)),
    ("scrape.timestamp-tolerance", 1, Idle(ON_TIME)),
    ("scrape.discovery-reload-interval", 1, Idle("changes of targets are taken up at once")),
    ("alertmanager.timeout", 1, Idle("it was removed from Prometheus, too")),
];

/// Arguments without foreign flags, and a warning for each that was taken out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sifted {
    pub(super) arguments: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// Takes foreign flags out of the command line, and `--no-…` of `switches` together with what it
/// takes back.
///
/// # Errors
/// Why a flag is refused.
pub(super) fn sift(
    arguments: impl IntoIterator<Item = String>,
    switches: &[&str],
) -> Result<Sifted, String> {
    let mut sifted = Sifted::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let flag = argument.strip_prefix("--").unwrap_or_default();
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        let positive = name.strip_prefix("no-");
        if let Some(switch) = positive.filter(|name| switches.contains(name)) {
            sifted.arguments.retain(|earlier| earlier.strip_prefix("--") != Some(switch));
            continue;
        }
        let foreign = FOREIGN.iter().find(|(candidate, values, _)| {
            *candidate == name || (*values == 0 && positive == Some(candidate))
        });
        match foreign {
            None => sifted.arguments.push(argument),
            // Not to have what there is not is no wish that would be missed.
            Some((_, _, Refused(_))) if positive.is_some() => {}
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
        let sifted =
            sift(given.iter().map(ToString::to_string), &["web.enable-lifecycle"]).unwrap();
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
    fn the_last_word_on_a_switch_counts() {
        check(&["--web.enable-lifecycle", "--no-web.enable-lifecycle"], &[], 0);
        check(
            &["--no-web.enable-lifecycle", "--web.enable-lifecycle"],
            &["--web.enable-lifecycle"],
            0,
        );
        check(&["--no-storage.tsdb.wal-compression", "--no-agent"], &[], 1);
        check(&["--no-log.level=info"], &["--no-log.level=info"], 0);
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
        let refused = |flag: &str| sift([flag.to_owned()], &[]).unwrap_err();
        assert!(refused("--agent").contains("no agent mode"));
        assert!(
            refused("--storage.agent.path=x")
                .starts_with("flag --storage.agent.path is not supported: ")
        );
    }
}
