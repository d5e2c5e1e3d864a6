//! Remote read over HTTP.

use stint_model::Value;
use stint_wire::remote_write::v1::{self, Item};
use stint_wire::snappy::{DECOMPRESSED_BYTES_MAX, compress_into, decompress_limited};

use crate::support::{NOW, TestDir, TestServer};

/// A length-prefixed Protobuf field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    assert!(length < 0x80, "one byte of length");
    [&[number << 3 | 2, length], content].concat()
}

fn varint(number: u8, mut value: u64) -> Vec<u8> {
    let mut out = vec![number << 3];
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A query for samples of the last minute.
fn query(matchers: &[(u64, &str, &str)]) -> Vec<u8> {
    let mut query = [varint(1, NOW.0 as u64 - 60_000), varint(2, NOW.0 as u64)].concat();
    for (op, name, value) in matchers {
        let parts = [varint(1, *op), field(2, name.as_bytes()), field(3, value.as_bytes())];
        query.extend(field(3, &parts.concat()));
    }
    field(1, &query)
}

async fn read(server: &TestServer, message: &[u8]) -> (u16, Vec<u8>) {
    let mut body = Vec::new();
    compress_into(message, &mut body).unwrap();
    let request = server.request(reqwest::Method::POST, "/api/v1/read").body(body);
    let response = request.header("Content-Encoding", "snappy").send().await.unwrap();
    let status = response.status().as_u16();
    if status == 200 {
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/x-protobuf");
        assert_eq!(header("content-encoding"), "snappy");
    }
    (status, response.bytes().await.unwrap().to_vec())
}

/// The series of each result, as `labels value@seconds…`.
fn results(body: &[u8]) -> Vec<Vec<String>> {
    let mut message = Vec::new();
    decompress_limited(body, DECOMPRESSED_BYTES_MAX, &mut message).unwrap();
    let mut rest = message.as_slice();
    let mut results = Vec::new();
    while let [10, length, tail @ ..] = rest {
        let (length, tail) = match tail {
            [high, tail @ ..] if *length >= 0x80 => {
                (usize::from(*length & 0x7f) | usize::from(*high) << 7, tail)
            }
            tail => (usize::from(*length), tail),
        };
        let (result, tail) = tail.split_at(length);
        results.push(v1::decode(result).map(|item| show(&item.unwrap())).collect());
        rest = tail;
    }
    assert!(rest.is_empty(), "{rest:?}");
    results
}

fn show(item: &Item<'_>) -> String {
    let Item::Series(series) = item else { panic!("{item:?}") };
    let mut labels = Vec::new();
    series.labels_into(&mut labels).unwrap();
    let labels: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let samples = series.samples().map(|sample| {
        let sample = sample.unwrap();
        let Value::Float(value) = sample.value else { panic!("{sample:?}") };
        format!(" {value}@{}", (sample.at.0 - NOW.0) / 1000)
    });
    labels.join(",") + &samples.collect::<String>()
}

#[tokio::test]
async fn samples_are_read_with_external_labels() {
    let dir = TestDir::new();
    let config = "global: {external_labels: {zone: z}}\n";
    let flags = ["--web.enable-remote-write-receiver", "--storage.remote.read-sample-limit=4"];
    let server = TestServer::start(&dir, config, &flags).await;
    let written = server
        .write(&[
            (&[("__name__", "x"), ("a", "1")], &[(-90, 0.0), (-60, 1.0), (0, 2.0)]),
            (&[("__name__", "x"), ("a", "2")], &[(-5, 3.0)]),
            (&[("__name__", "x"), ("a", "3")], &[(-61, 3.0)]),
            (&[("__name__", "y"), ("zone", "own")], &[(-2, 4.0), (-1, 5.0)]),
        ])
        .await;
    assert_eq!(written.status, 204, "{written:?}");
    let both = [
        query(&[(0, "__name__", "x"), (0, "zone", "z")]),
        query(&[(2, "__name__", "y|z"), (1, "a", "1")]),
    ];
    let (status, body) = read(&server, &both.concat()).await;
    assert_eq!(status, 200);
    assert_eq!(
        results(&body),
        [
            vec!["__name__=x,a=1,zone=z 1@-60 2@0", "__name__=x,a=2,zone=z 3@-5"],
            vec!["__name__=y,zone=own 4@-2 5@-1"],
        ]
    );
    let (status, body) = read(&server, &query(&[(1, "__name__", "")])).await;
    assert_eq!(
        (status, String::from_utf8(body).unwrap()),
        (400, "exceeded sample limit (4)\n".into())
    );
    let unknown = [query(&[(0, "a", "1")]), varint(2, 7)].concat();
    assert_eq!(read(&server, &unknown).await.0, 400);
    assert_eq!(read(&server, b"\x0a\x7f").await.0, 400);
    server.stop().await;
}

/// The messages of frames whose checksums are right.
fn frames(mut body: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while !body.is_empty() {
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = body[0];
            body = &body[1..];
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        let (checksum, rest) = body.split_at(4);
        let (message, rest) = rest.split_at(length);
        assert_eq!(checksum, crc32c::crc32c(message).to_be_bytes());
        messages.push(message.to_vec());
        body = rest;
    }
    messages
}

#[tokio::test]
async fn chunks_are_streamed_in_frames() {
    let dir = TestDir::new();
    let config = "global: {external_labels: {zone: z}}\n";
    let flags = [
        "--web.enable-remote-write-receiver",
        "--storage.remote.read-sample-limit=1",
        "--storage.remote.read-max-bytes-in-frame=100",
    ];
    let server = TestServer::start(&dir, config, &flags).await;
    let noisy: Vec<(i64, f64)> = (-59..=0).map(|at| (at, (at as f64 * 0.7).sin())).collect();
    let written = server
        .write(&[
            (&[("__name__", "x"), ("a", "1")], &noisy),
            (&[("__name__", "x"), ("a", "2")], &[(-5, 3.0), (-4, 3.0)]),
            (&[("__name__", "x"), ("a", "3")], &[(-61, 3.0)]),
        ])
        .await;
    assert_eq!(written.status, 204, "{written:?}");
    let ask = async |accepted: &[u64]| {
        let mut message =
            [query(&[(0, "a", "9")]), query(&[(0, "__name__", "x"), (0, "zone", "z")])].concat();
        for kind in accepted {
            message.extend(varint(2, *kind));
        }
        let mut body = Vec::new();
        compress_into(&message, &mut body).unwrap();
        let request = server.request(reqwest::Method::POST, "/api/v1/read").body(body);
        let response = request.header("Accept-Encoding", "gzip").send().await.unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        (kind, response.bytes().await.unwrap())
    };
    let (kind, body) = ask(&[7, 1, 0]).await;
    assert_eq!(kind, "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse");
    let messages = frames(&body);
    let [large, small] = &messages[..] else { panic!("{messages:?}") };
    for (message, label) in [(large, "1"), (small, "2")] {
        // The second query's number stands behind the only series.
        assert!(message.ends_with(&[2 << 3, 1]), "{message:?}");
        let label = field(1, &[field(1, b"a"), field(2, label.as_bytes())].concat());
        let zone = field(1, &[field(1, b"zone"), field(2, b"z")].concat());
        for labels in [label, zone] {
            assert!(message.windows(labels.len()).any(|part| part == labels));
        }
    }
    // Two samples: the first whole, the second with an equal value.
    let first = NOW.0 as u64 - 5000;
    let start = varint(0, first << 1)[1..].to_vec();
    let data = [&[0, 2][..], &start, &3_f64.to_be_bytes(), &[0xe8, 0x07, 0]].concat();
    let chunk = [varint(1, first), varint(2, first + 1000), varint(3, 1), field(4, &data)].concat();
    assert!(small.windows(chunk.len()).any(|part| part == chunk), "{small:?} {chunk:?}");
    let (kind, body) = ask(&[0, 1]).await;
    assert_eq!(kind, "text/plain; charset=utf-8", "the limit of samples is for samples");
    assert_eq!(body, "exceeded sample limit (1)\n");
    server.stop().await;
}
