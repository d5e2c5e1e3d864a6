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
    let flags = ["--web.enable-remote-write-receiver", "--query.max-samples=4"];
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
    let chunks_only = [query(&[(0, "a", "1")]), varint(2, 1)].concat();
    assert_eq!(read(&server, &chunks_only).await.0, 400);
    assert_eq!(read(&server, b"\x0a\x7f").await.0, 400);
    server.stop().await;
}
