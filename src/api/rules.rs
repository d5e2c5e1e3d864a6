//! `/api/v1/rules`, `/api/v1/alerts` and `/api/v1/alertmanagers`: as a Prometheus answers that has
//! no rules and no Alertmanager.

use super::extract::Gate;
use super::json::Reply;

pub(super) async fn rules(_gate: Gate) -> Reply {
    Reply::raw(b"{\"groups\":[]}".to_vec())
}

pub(super) async fn alerts(_gate: Gate) -> Reply {
    Reply::raw(b"{\"alerts\":[]}".to_vec())
}

pub(super) async fn alertmanagers(_gate: Gate) -> Reply {
    Reply::raw(b"{\"activeAlertmanagers\":[],\"droppedAlertmanagers\":[]}".to_vec())
}
