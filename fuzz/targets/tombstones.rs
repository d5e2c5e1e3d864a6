//! Tombstones whose checksum holds: what is read can be written and read again.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use stint_storage::codec::crc;
use stint_storage::tombstones::{TOMBSTONES_FILE, Tombstones};
use stint_storage::{Disk, SimDisk};

fuzz_target!(|body: &[u8]| {
    let mut bytes = b"STNTTMB\x01".to_vec();
    bytes.extend_from_slice(body);
    let checksum = crc::checksum(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    let disk = SimDisk::new();
    let file = disk.create(Path::new(TOMBSTONES_FILE)).expect("a new file");
    file.append(&bytes).expect("room");
    if let Ok(mut read) = Tombstones::read(&disk, Path::new("")) {
        read.write(&disk, Path::new("")).expect("room");
        assert_eq!(Tombstones::read(&disk, Path::new("")).expect("readable"), read);
    }
});
