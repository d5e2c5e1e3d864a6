//! The command without a name: the server itself.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stint_model::clock::SystemClock;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::flags::Flags;
use super::{EXIT_USAGE, fail};
use crate::server::{Server, StartError, features};
use crate::telemetry;

/// Runs the server until it is told to stop.
pub(super) fn run(flags: &Flags, warnings: &[String]) -> ExitCode {
    telemetry::start(flags.log_level, flags.log_format);
    for warning in warnings.iter().chain(&features::warnings(flags)) {
        tracing::warn!("{warning}");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting stint");
    allow_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("cannot start the runtime: {error}")),
    };
    let outcome = runtime.block_on(serve(flags));
    // Whatever still hangs must not keep the process: all that matters was closed or has failed.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Config(errors)) => fail(EXIT_USAGE, &errors),
        Err(StartError::Other(error)) => fail(1, &format!("{error:#}")),
    }
}

/// Allows as many open files as the system does, as programs in Go do of themselves: what shells and
/// containers allow at first is less than there may be connections.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

async fn serve(flags: &Flags) -> Result<(), StartError> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let (hangups, on_hangup) = mpsc::channel(1);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // One reload that has not begun yet stands for all signals until then.
            let _ = hangups.try_send(());
        }
    });
    let mut stop = std::pin::pin!(stop);
    let server = tokio::select! {
        server = Server::start(flags, Arc::new(SystemClock::new())) => server?,
        // Nothing was accepted yet, so there is nothing to finish.
        () = &mut stop => return Ok(()),
    };
    Ok(server.run(stop, on_hangup).await?)
}
