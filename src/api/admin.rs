//! `/api/v1/admin/tsdb/*`: snapshots and deletions, where the operator allows them.

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use stint_model::{TimeRange, Timestamp};
use stint_storage::JobError;

use super::Api;
use super::error::{ApiError, ErrorKind};
use super::extract::Ready;
use super::json::Reply;
use super::params::Params;
use super::series::read_selectors;

/// Where snapshots go, below the data directory.
const SNAPSHOTS: &str = "snapshots";

#[derive(Serialize)]
struct SnapshotJson {
    name: String,
}

/// Copies the store as it is now into a directory of its own.
pub(super) async fn snapshot(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
    params: Params,
) -> Result<Reply, ApiError> {
    allowed(&api)?;
    let skip_head = match params.get("skip_head") {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
        None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
        Some(other) => {
            let cause = format!("unable to parse boolean \"{other}\"");
            return Err(ApiError::invalid_parameter("skip_head", cause));
        }
    };
    let name = snapshot_name(api.clock.now(), RandomState::new().hash_one(0_u8));
    let (db, dir) = (parts.db.clone(), Path::new(SNAPSHOTS).join(&name));
    blocking(move || db.snapshot(&dir, !skip_head)).await?;
    Ok(Reply::json(&SnapshotJson { name }))
}

/// Deletes the samples of a time range from the series that match.
pub(super) async fn delete_series(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
    params: Params,
) -> Result<Reply, ApiError> {
    allowed(&api)?;
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let selectors = read_selectors(&params, "match[]")?;
    let start = params.time("start", Timestamp::MIN)?;
    let end = params.time("end", Timestamp::MAX)?;
    let db = parts.db.clone();
    blocking(move || db.delete_series(&selectors, TimeRange::closed(start, end))).await?;
    Ok(Reply::empty())
}

/// Frees the space of what was deleted.
pub(super) async fn clean_tombstones(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
) -> Result<Reply, ApiError> {
    allowed(&api)?;
    let db = parts.db.clone();
    blocking(move || db.clean_tombstones()).await?;
    Ok(Reply::empty())
}

fn allowed(api: &Api) -> Result<(), ApiError> {
    if api.options.admin {
        return Ok(());
    }
    Err(ApiError::new(ErrorKind::Unavailable, "admin APIs disabled"))
}

/// Runs work on the store to its end, whether or not the client waits.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JobError> + Send + 'static,
) -> Result<T, ApiError> {
    let internal =
        |cause: &dyn std::fmt::Display| ApiError::new(ErrorKind::Internal, cause.to_string());
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|error| internal(&error)),
        Err(error) => Err(internal(&error)),
    }
}

/// `20171210T211224Z-2be650b6d019eb54`: when, and a number that tells apart what is made within
/// the same second.
fn snapshot_name(now: Timestamp, number: u64) -> String {
    let at = jiff::Timestamp::from_millisecond(now.as_ms()).unwrap_or_default();
    format!("{}-{number:016x}", at.strftime("%Y%m%dT%H%M%SZ"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_named_by_time() {
        let name = snapshot_name(Timestamp(1_512_940_344_000), 0x2be6_50b6_d019_eb54);
        assert_eq!(name, "20171210T211224Z-2be650b6d019eb54");
    }
}
