//! Answers compressed as clients ask for it, whole: a body of known length needs no framing, and
//! memory to compress in is used again.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use flate2::{Compress, Compression, FlushCompress, Status};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;

use super::Api;
use super::error::{ApiError, ErrorKind};

/// Answers smaller than this are sent as they are. They fit into the packets that a connection may
/// send before the first is acknowledged, so that no client sees them sooner when they are packed,
/// and packing them costs as much as many a query.
const PACKED_BYTES_MIN: usize = 8 << 10;
/// Bytes that are packed at once between other requests.
const AT_ONCE_MAX: usize = 64 << 10;
/// Idle compressors that are kept, of about 300 KiB each.
const SPARE_MAX: usize = 4;
/// The fastest level leaves more bytes than the best one, at a fraction of its cost, which is that of
/// a whole query otherwise.
const LEVEL: Compression = Compression::fast();
/// The largest window.
const WINDOW_BITS: u8 = 15;

/// How an answer is coded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Coding {
    #[default]
    Identity,
    Gzip,
    Deflate,
}

impl Coding {
    /// What a client likes best of what there is.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let mut best = (Self::Identity, 0.0);
        let accepted = headers.get_all(header::ACCEPT_ENCODING).iter();
        let lists = accepted.filter_map(|value| value.to_str().ok());
        for offer in lists.flat_map(|list| list.split(',')) {
            let mut parts = offer.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let coding = match name.to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => Self::Gzip,
                "deflate" => Self::Deflate,
                "identity" => Self::Identity,
                _ => continue,
            };
            let weight = parts.find_map(|part| {
                let (key, value) = part.split_once('=')?;
                key.trim_end().eq_ignore_ascii_case("q").then_some(value.trim_start())
            });
            let weight: f32 = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            // Of two that are liked equally well the one that everybody means the same by.
            let is_as_good = weight == best.1 && weight > 0.0;
            if weight > best.1 || (is_as_good && coding.rank() > best.0.rank()) {
                best = (coding, weight);
            }
        }
        best.0
    }

    /// Which of several comes first that are liked equally well.
    const fn rank(self) -> u8 {
        match self {
            Self::Identity => 0,
            Self::Deflate => 1,
            Self::Gzip => 2,
        }
    }

    const fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Deflate => Some("deflate"),
        }
    }

    fn compressor(self) -> Option<Compress> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some(Compress::new_gzip(LEVEL, WINDOW_BITS)),
            Self::Deflate => Some(Compress::new(LEVEL, true)),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Coding {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::wanted(&parts.headers))
    }
}

/// A body, and how it is coded.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) body: Vec<u8>,
    pub(super) coding: Coding,
}

/// Packs bodies.
#[derive(Debug, Default)]
pub(super) struct Packer {
    /// Compressors for gzip that nobody uses; few ask for anything else.
    spare: Mutex<Vec<Compress>>,
}

impl Packer {
    /// The body in the coding that is wanted, or as it is where packing is of no use.
    pub(super) fn pack(&self, body: Vec<u8>, wanted: Coding) -> Packed {
        if body.len() >= PACKED_BYTES_MIN
            && let Some(packed) = self.compress(&body, wanted)
        {
            return Packed { body: packed, coding: wanted };
        }
        Packed { body, coding: Coding::Identity }
    }

    /// Nothing where it would be longer.
    fn compress(&self, body: &[u8], wanted: Coding) -> Option<Vec<u8>> {
        let spare = if wanted == Coding::Gzip { self.spare.lock().pop() } else { None };
        let mut compress = match spare {
            Some(compress) => compress,
            None => wanted.compressor()?,
        };
        let mut packed = Vec::with_capacity(body.len());
        let outcome = compress.compress_vec(body, &mut packed, FlushCompress::Finish);
        if wanted == Coding::Gzip {
            compress.reset();
            let mut spare = self.spare.lock();
            if spare.len() < SPARE_MAX {
                spare.push(compress);
            }
        }
        matches!(outcome, Ok(Status::StreamEnd)).then_some(packed)
    }
}

/// Says in the headers how a body is coded.
pub(super) fn tell(coding: Coding, headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Some(name) = coding.name() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    }
}

/// Packs an answer that is not packed yet, where that is of use.
pub(super) async fn pack_response(api: &Arc<Api>, wanted: Coding, response: Response) -> Response {
    // What is made while it is sent has no length, and stays as it is.
    let length = response.body().size_hint().exact().unwrap_or(0);
    let is_coded = response.headers().contains_key(header::CONTENT_ENCODING);
    if is_coded || length < PACKED_BYTES_MIN as u64 {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let packed = match body.collect().await {
        Ok(body) if wanted == Coding::Identity => {
            Ok(Packed { body: body.to_bytes().into(), coding: wanted })
        }
        Ok(body) => api.pack(body.to_bytes().into(), wanted).await,
        Err(error) => Err(format!("an answer could not be read: {error}")),
    };
    match packed {
        Ok(Packed { body, coding }) => {
            tell(coding, &mut parts.headers);
            parts.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(parts, Body::from(body))
        }
        Err(message) => ApiError::new(ErrorKind::Internal, message).into_response(),
    }
}

impl Api {
    /// Packs a body, off the async threads if it is large.
    async fn pack(self: &Arc<Self>, body: Vec<u8>, wanted: Coding) -> Result<Packed, String> {
        if body.len() <= AT_ONCE_MAX {
            return Ok(self.packer.pack(body, wanted));
        }
        let api = Arc::clone(self);
        let packed = tokio::task::spawn_blocking(move || api.packer.pack(body, wanted)).await;
        packed.map_err(|error| format!("packing an answer ended unexpectedly: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::{MultiGzDecoder, ZlibDecoder};

    use super::*;

    fn wanted(accept: &str) -> Coding {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, accept.parse().unwrap());
        Coding::wanted(&headers)
    }

    #[test]
    fn what_a_client_likes_best_is_chosen() {
        for (accept, coding) in [
            ("gzip", Coding::Gzip),
            ("deflate, gzip, br, zstd", Coding::Gzip),
            ("GZIP;q=0.5, deflate;q=0.8", Coding::Deflate),
            ("gzip; q=0", Coding::Identity),
            ("gzip;q=none", Coding::Identity),
            ("gzip;Q=0", Coding::Identity),
            ("gzip;level=1; q=0", Coding::Identity),
            ("identity;q=1, gzip;q=0.1", Coding::Identity),
            ("identity, gzip", Coding::Gzip),
            ("br", Coding::Identity),
            ("", Coding::Identity),
        ] {
            assert_eq!(wanted(accept), coding, "{accept}");
        }
        assert_eq!(Coding::wanted(&HeaderMap::new()), Coding::Identity);
    }

    #[test]
    fn what_was_packed_can_be_read_however_often() {
        let packer = Packer::default();
        let body: Vec<u8> = (0..20_000_u32).flat_map(|n| n.to_string().into_bytes()).collect();
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Gzip, Coding::Identity] {
            let packed = packer.pack(body.clone(), coding);
            assert_eq!(packed.coding, coding);
            let mut out = Vec::new();
            match coding {
                Coding::Gzip => MultiGzDecoder::new(&*packed.body).read_to_end(&mut out),
                Coding::Deflate => ZlibDecoder::new(&*packed.body).read_to_end(&mut out),
                Coding::Identity => (&*packed.body).read_to_end(&mut out),
            }
            .unwrap();
            assert_eq!(out, body);
            assert_eq!(coding == Coding::Identity, packed.body.len() == body.len());
        }
        assert_eq!(packer.spare.lock().len(), 1, "one is used again");
    }

    #[test]
    fn what_does_not_shrink_or_is_short_stays_as_it_is() {
        let packer = Packer::default();
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        });
        let noise: Vec<u8> = noise.take(PACKED_BYTES_MIN).collect();
        for body in [noise, vec![b'a'; PACKED_BYTES_MIN - 1], Vec::new()] {
            let packed = packer.pack(body.clone(), Coding::Gzip);
            assert_eq!((packed.body, packed.coding), (body, Coding::Identity));
        }
        let packed = packer.pack(vec![b'a'; PACKED_BYTES_MIN], Coding::Gzip);
        assert_eq!(packed.coding, Coding::Gzip, "and the next one is packed again");
    }
}
