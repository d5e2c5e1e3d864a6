//! What one job or one set of Alertmanagers discovers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::watch;
use tokio::time::Instant;

use super::TargetGroup;
use super::hub::{Hub, Known, Provider};
use crate::config::{SdConfig, StaticGroup};
use crate::http::ClientError;

/// How long the first look at files may take before it is not waited for.
const LOCAL_LOOK_MAX: Duration = Duration::from_secs(5);

/// The groups of static lists and of running mechanisms. A clone sees the same ones.
#[derive(Clone)]
pub struct Sources {
    fixed: Vec<TargetGroup>,
    running: Vec<Running>,
}

#[derive(Clone)]
struct Running {
    /// Keeps the mechanism running.
    provider: Arc<Provider>,
    known: watch::Receiver<Known>,
}

impl Sources {
    /// Those of a configuration; what does not run in `hub` yet is started. `name` stands in logs
    /// and metrics.
    ///
    /// # Errors
    /// A client cannot be made.
    pub fn new(
        hub: &Hub,
        name: &str,
        fixed: &[StaticGroup],
        configs: &[SdConfig],
    ) -> Result<Self, ClientError> {
        let group = |(at, group)| TargetGroup::fixed(format!("static_configs[{at}]"), group);
        let fixed = fixed.iter().enumerate().map(group).collect();
        let start = |config| {
            let provider = hub.provider(config, name)?;
            Ok(Running { known: provider.watch(), provider })
        };
        let running = configs.iter().map(start).collect::<Result<_, ClientError>>()?;
        Ok(Self { fixed, running })
    }

    /// Waits until files have been read, and at most `patience` until every other mechanism has
    /// looked once.
    pub async fn settle(&mut self, patience: Duration) {
        let now = Instant::now();
        for running in &mut self.running {
            let patience = if running.provider.is_local() { LOCAL_LOOK_MAX } else { patience };
            let looked = running.known.wait_for(|known| known.has_looked);
            // Who is late, or has ended, is asked no longer; what is known of it is used.
            let _ = tokio::time::timeout_at(now + patience, looked).await;
        }
    }

    /// All groups as they are known now; [`Sources::changed`] tells of later ones.
    pub fn groups(&mut self) -> Vec<TargetGroup> {
        let mut groups = self.fixed.clone();
        for running in &mut self.running {
            groups.extend(running.known.borrow_and_update().groups.iter().cloned());
        }
        groups
    }

    /// Waits until there are other groups.
    pub async fn changed(&mut self) {
        loop {
            let waits: Vec<_> =
                self.running.iter_mut().map(|running| Box::pin(running.known.changed())).collect();
            if waits.is_empty() {
                return std::future::pending().await;
            }
            let (outcome, at, _) = select_all(waits).await;
            if outcome.is_ok() {
                return;
            }
            // It has ended, which only a bug makes it do: its last targets stay.
            let ended = self.running.remove(at);
            self.fixed.extend(ended.known.borrow().groups.iter().cloned());
            tracing::error!("a discovery task ended unexpectedly; its targets stay");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Reply, Server, hub, shown};
    use super::*;
    use crate::config::tests_support::sd_config;

    fn list(server: &Server, interval: &str) -> SdConfig {
        let url = server.url();
        sd_config(&format!("http_sd_configs: [{{url: '{url}/', refresh_interval: {interval}}}]"))
    }

    async fn server() -> Server {
        Server::of(&[("/", Reply::json(r#"[{"targets": ["a:1"]}]"#))]).await
    }

    #[tokio::test]
    async fn an_entry_runs_once_and_goes_on_across_a_reload() {
        let (server, (hub, _)) = (server().await, hub());
        let config = [list(&server, "1d")];
        let mut first = Sources::new(&hub, "a", &[], &config).unwrap();
        first.changed().await;
        assert!(shown(&first.groups()).starts_with("__address__=\"a:1\""));
        // Another job, and the same one after a reload, see at once what is known.
        let mut second = Sources::new(&hub, "b", &[], &config).unwrap();
        drop(first);
        assert_eq!(second.groups().len(), 1);
        assert_eq!(server.targets().len(), 1);
        // The last one takes it along; whoever comes later starts anew.
        drop(second);
        let mut third = Sources::new(&hub, "c", &[], &config).unwrap();
        assert!(third.groups().is_empty());
        third.changed().await;
        assert_eq!(server.targets().len(), 2);
        // Another interval is another entry.
        let mut other = Sources::new(&hub, "c", &[], &[list(&server, "2d")]).unwrap();
        assert!(other.groups().is_empty());
        other.changed().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_waited_for_with_patience_and_static_targets_do_not_wait() {
        let ((hub, _), silent) = (hub(), Server::of(&[("/", Reply::Silence)]).await);
        let fixed = StaticGroup { targets: vec!["s:1".to_owned()], ..StaticGroup::default() };
        let mut sources = Sources::new(&hub, "a", &[fixed], &[list(&silent, "1d")]).unwrap();
        let began = Instant::now();
        sources.settle(Duration::from_secs(2)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        assert_eq!(shown(&sources.groups()), "__address__=\"s:1\"");
        let never = tokio::time::timeout(Duration::from_hours(1), sources.changed());
        assert!(never.await.is_err());
    }
}
