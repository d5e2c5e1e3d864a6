//! Reads the recorded scrapes of four real servers and renders them as text bodies.

use std::io::{self, Read};
use std::path::PathBuf;

/// A target's name and one of its scrapes in the Prometheus text format.
pub(crate) struct Body {
    pub(crate) target: String,
    pub(crate) text: String,
    pub(crate) series: usize,
}

/// Where the recording is: under `STINT_SHARED`, else beside the repository. `None`, and a
/// word about it, when it is not there.
pub(crate) fn path() -> Option<PathBuf> {
    let root = std::env::var_os("STINT_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")),
        PathBuf::from,
    );
    let path = root.join("corpus/corpus.bin.zst");
    if path.is_file() {
        return Some(path);
    }
    eprintln!("skipped: no recorded scrapes at {} (set STINT_SHARED)", path.display());
    None
}

/// Scrape number `scrape` of every target.
pub(crate) fn bodies(path: &PathBuf, scrape: usize) -> io::Result<Vec<Body>> {
    let file = std::fs::File::open(path)?;
    let mut decoder = zstd::Decoder::new(file)?;
    decoder.window_log_max(27)?;
    let mut input = io::BufReader::with_capacity(1 << 20, decoder);
    let magic: [u8; 8] = array(&mut input)?;
    assert_eq!(&magic, b"TSCORP01", "not a corpus");
    let targets = u32::from_le_bytes(array(&mut input)?);
    (0..targets).map(|_| body(&mut input, scrape)).collect()
}

fn array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn bytes(input: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn string(input: &mut impl Read, length: u16) -> io::Result<String> {
    String::from_utf8(bytes(input, length.into())?).map_err(io::Error::other)
}

fn body(input: &mut impl Read, scrape: usize) -> io::Result<Body> {
    let length = u16::from_le_bytes(array(input)?);
    let target = string(input, length)?;
    let scrapes = u32::from_le_bytes(array(input)?) as usize;
    let series = u32::from_le_bytes(array(input)?);
    bytes(input, scrapes * 8)?;
    let mut body = Body { target, text: String::new(), series: 0 };
    for _ in 0..series {
        let length = u16::from_le_bytes(array(input)?);
        let [_class, _decimals, full] = array(input)?;
        let samples = u32::from_le_bytes(array(input)?) as usize;
        let labels = string(input, length)?;
        let present = if full == 1 {
            vec![0xff; scrapes / 8 + 1]
        } else {
            bytes(input, scrapes.div_ceil(8))?
        };
        let values = bytes(input, samples * 8)?;
        let is_present = |at: usize| present[at / 8] >> (at % 8) & 1 == 1;
        if scrape >= scrapes || !is_present(scrape) {
            continue;
        }
        let at = (0..scrape).filter(|at| is_present(*at)).count();
        let value = values.as_chunks::<8>().0[at];
        push_line(&mut body.text, &labels, f64::from_le_bytes(value));
        body.series += 1;
    }
    Ok(body)
}

/// A sample line with the value as Go programs write it.
fn push_line(text: &mut String, labels: &str, value: f64) {
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let written = if value.is_infinite() {
        format!("{}Inf", if value > 0.0 { '+' } else { '-' })
    } else if (-4..21).contains(&exponent) && exponent < 6 {
        value.to_string()
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.abs())
    };
    text.extend([labels, " ", &written, "\n"]);
}
