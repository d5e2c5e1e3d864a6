//! Remote read as a stream: frames leave as they are made, so that the answer to a large request
//! needs no more memory than the series being read.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use stint_model::{Columns, Hints, Queryable, Span, TimeRange};
use stint_promql::Cancel;
use stint_wire::remote_read::{FrameEncoder, Query, chunks};
use tokio::sync::{mpsc, oneshot};

use super::super::error::{ApiError, ErrorKind};
use super::super::series::{PHASE, SERIES_BETWEEN_CHECKS};
use super::super::{Api, Parts};
use super::{Reading, Turn, failed};

/// Frames that are made ahead of a slow reader.
const FRAMES_AHEAD: usize = 4;
const CONTENT_TYPE: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

/// What becomes of a frame.
type Frames = mpsc::Sender<io::Result<Bytes>>;

/// Answers with frames. An error before the first of them is told; a later one breaks the
/// connection off, because an answer that just ends would pass for a whole one.
pub(super) async fn streamed(
    api: &Arc<Api>,
    parts: &Arc<Parts>,
    reading: Reading,
    turn: Turn,
) -> Response {
    let (frames, mut receiver) = mpsc::channel(FRAMES_AHEAD);
    let (refused, refusal) = oneshot::channel();
    let patience = api.options.read_timeout;
    let owned = Arc::clone(parts);
    tokio::spawn(async move {
        let store = Arc::clone(&owned.store);
        let frame_bytes_max = owned.remote_read.frame_bytes_max;
        let sender = Sender { frames: frames.clone(), patience, frame_bytes_max };
        let outcome =
            owned.run(None, move |cancel| reading.stream(store.as_ref(), cancel, &sender)).await;
        if let Err(error) = outcome {
            // Whoever went away meanwhile needs neither.
            let broken = io::Error::other(error.message.clone());
            drop(refused.send(error));
            drop(frames.send(Err(broken)).await);
        }
        drop(turn);
    });
    let first = receiver.recv().await;
    if let Some(Err(_)) = first {
        let error = refusal.await.unwrap_or_else(|_| {
            ApiError::new(ErrorKind::Internal, "the request ended unexpectedly".to_owned())
        });
        return failed(&error);
    }
    // Fused, because not everything a body passes through stops asking at its end.
    let body = stream::unfold((first, receiver), async |(next, mut receiver)| {
        let frame = next?;
        let following = receiver.recv().await;
        Some((frame, (following, receiver)))
    });
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::from_stream(Box::pin(body.fuse())))
        .into_response()
}

/// Where frames go.
struct Sender {
    frames: Frames,
    /// How long a reader may take to take one.
    patience: Span,
    frame_bytes_max: usize,
}

impl Sender {
    /// Hands a frame over, once there is room for it. Must be called off the async threads.
    fn send(&self, frame: Vec<u8>) -> Result<(), ApiError> {
        let send = self.frames.send_timeout(Ok(frame.into()), self.patience.to_std());
        tokio::runtime::Handle::current().block_on(send).map_err(|_| {
            ApiError::new(ErrorKind::Canceled, "the reader went away or takes too long".to_owned())
        })
    }
}

impl Reading {
    fn stream(
        &self,
        store: &dyn Queryable,
        cancel: &Cancel,
        sender: &Sender,
    ) -> Result<(), ApiError> {
        for (number, query) in self.request.queries.iter().enumerate() {
            self.stream_query(number, query, store, cancel, sender)?;
        }
        Ok(())
    }

    fn stream_query(
        &self,
        number: usize,
        query: &Query,
        store: &dyn Queryable,
        cancel: &Cancel,
        sender: &Sender,
    ) -> Result<(), ApiError> {
        let range = TimeRange::closed(query.start, query.end);
        let set = store.querier(range)?.select(&self.selector(query), &Hints::default())?;
        let mut columns = Columns::default();
        for index in 0..set.len() {
            if index % SERIES_BETWEEN_CHECKS == 0 {
                cancel.check(PHASE)?;
            }
            columns.clear();
            set.read(index, range, &mut columns)?;
            if columns.is_empty() {
                continue;
            }
            let labels = self.with_external(&set.labels(index));
            let mut frames = FrameEncoder::new(number, &labels, sender.frame_bytes_max);
            let mut outcome = Ok(());
            chunks::encode(&columns, |chunk| {
                if outcome.is_ok()
                    && let Some(frame) = frames.push(&chunk)
                {
                    outcome = sender.send(frame);
                }
            });
            outcome?;
            if let Some(frame) = frames.finish() {
                sender.send(frame)?;
            }
        }
        Ok(())
    }
}
