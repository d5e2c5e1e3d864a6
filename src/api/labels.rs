//! `/api/v1/status/labels`: which labels every series must carry, and which series do not.

use super::extract::Ready;
use super::json::Reply;

/// The report; see `docs/labels.md`.
pub(super) async fn report(Ready(parts): Ready) -> Reply {
    Reply::json(&parts.labels.report())
}
