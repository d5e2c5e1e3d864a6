//! Bytes whose checksums hold and which make no sense are refused, without panic: the short form of
//! the fuzz targets.

use std::path::Path;

use proptest::prelude::*;
use stint_model::{Columns, Selector};
use stint_storage::codec::{chunk, crc};
use stint_storage::index::{Index, select};
use stint_storage::tombstones::{TOMBSTONES_FILE, Tombstones};
use stint_storage::{Disk as _, Mapped, SimDisk};

use crate::support::long;

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = crc::checksum(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![0..8_u8, any::<u8>()], 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if long() { 100_000 } else { 500 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn chunks_are_decoded_or_refused(body in bytes()) {
        let mut columns = Columns::default();
        match chunk::decode(&sealed(body), &mut columns) {
            Ok(()) => prop_assert_eq!(columns.times.len(), columns.values.len()),
            Err(_) => prop_assert!(columns.is_empty() && columns.values.is_empty()),
        }
    }

    #[test]
    fn tombstones_that_are_read_can_be_written(body in bytes()) {
        let disk = SimDisk::new();
        let file = disk.create(Path::new(TOMBSTONES_FILE)).unwrap();
        file.append(&sealed([b"STNTTMB\x01", &*body].concat())).unwrap();
        if let Ok(mut read) = Tombstones::read(&disk, Path::new("")) {
            read.write(&disk, Path::new("")).unwrap();
            prop_assert_eq!(Tombstones::read(&disk, Path::new("")).unwrap(), read);
        }
    }

    #[test]
    fn indexes_are_searched_or_refused(body in bytes(), footer in bytes()) {
        let magic = b"STNTIDX\x02";
        let mut bytes = [magic, &*body].concat();
        let checksum = crc::checksum_at(bytes.len() as u64, &footer);
        bytes.extend_from_slice(&footer);
        bytes.extend_from_slice(&(footer.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(magic);
        if let Ok(index) = Index::open(Mapped::new(bytes), "index") {
            let _ = select::select(&index, &Selector::default());
            let _ = select::label_names(&index, &[]);
            let _ = index.labels(0);
            let _ = index.verify();
        }
    }
}
