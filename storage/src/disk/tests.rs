//! One list of laws that both disks keep, and what a simulated crash leaves.

use super::os::OsDisk;
use super::sim::{Crash, Fault, Plan, SimDisk, Unsynced};
use super::*;

fn with_os_disk(test: impl Fn(&dyn Disk)) {
    let root = std::env::temp_dir().join(format!(
        "stint-disk-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let disk = OsDisk::new(&root).unwrap();
    test(&disk);
    std::fs::remove_dir_all(&root).unwrap();
}

fn laws(disk: &dyn Disk) {
    let file = Path::new("a/b/file");
    assert!(disk.create(file).err().unwrap().is_not_found());
    disk.create_dir(Path::new("a/b")).unwrap();
    disk.create_dir(Path::new("a/b")).unwrap();
    let writer = disk.create(file).unwrap();
    assert_eq!(disk.create(file).err().unwrap().source.kind(), io::ErrorKind::AlreadyExists);
    writer.append(b"hello ").unwrap();
    writer.append(b"world").unwrap();
    writer.sync().unwrap();
    assert_eq!(disk.size(file).unwrap(), 11);
    assert_eq!(disk.read(file, 6, 100).unwrap(), b"world");
    assert_eq!(disk.read(file, 60, 100).unwrap(), b"");
    writer.truncate(5).unwrap();
    disk.open(file).unwrap().append(b"!").unwrap();
    let mapped = disk.map(file).unwrap();
    assert_eq!(&*mapped, b"hello!");

    let other = Path::new("a/other");
    disk.link(file, other).unwrap();
    disk.remove(file).unwrap();
    assert_eq!(&*mapped, b"hello!");
    assert_eq!(read_all(disk, other).unwrap(), b"hello!");
    disk.rename(Path::new("a/b"), Path::new("a/c")).unwrap();
    disk.sync_dir(Path::new("a")).unwrap();
    let names: Vec<_> = disk.list(Path::new("a")).unwrap();
    assert_eq!(
        names,
        [
            DirEntry { name: "c".into(), is_dir: true, size: 0 },
            DirEntry { name: "other".into(), is_dir: false, size: 6 },
        ]
    );
    write_atomically(disk, other, b"new").unwrap();
    write_atomically(disk, other, b"newer").unwrap();
    assert_eq!(read_all(disk, other).unwrap(), b"newer");
    disk.remove_dir(Path::new("a")).unwrap();
    assert!(disk.list(Path::new("a")).err().unwrap().is_not_found());

    let lock = disk.lock(Path::new("lock")).unwrap();
    let refused = disk.lock(Path::new("lock")).err().unwrap();
    assert_eq!(refused.source.kind(), io::ErrorKind::WouldBlock);
    drop(lock);
    disk.lock(Path::new("lock")).unwrap();
    assert!(disk.free_space().unwrap() > 0);
}

#[test]
fn the_real_disk_keeps_the_laws() {
    with_os_disk(laws);
}

#[test]
fn the_simulated_disk_keeps_the_laws() {
    laws(&SimDisk::new());
}

fn content_after(data: Unsynced, names_kept: bool) -> Option<Vec<u8>> {
    let disk = SimDisk::new();
    let path = Path::new("f");
    let file = disk.create(path).unwrap();
    file.append(b"sync").unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    file.append(b"lost").unwrap();
    let crashed = disk.after_crash(Crash { data, names_kept });
    read_all(&crashed, path).ok()
}

#[test]
fn a_crash_spares_what_was_synced() {
    assert_eq!(content_after(Unsynced::Kept, true).unwrap(), b"synclost");
    assert_eq!(content_after(Unsynced::Dropped, false).unwrap(), b"sync");
    assert_eq!(content_after(Unsynced::Torn, false).unwrap(), b"synclo");
    assert_eq!(content_after(Unsynced::Zeroed, false).unwrap(), b"sync\0\0\0\0");
}

#[test]
fn names_need_a_directory_sync() {
    let disk = SimDisk::new();
    let file = disk.create(Path::new("f")).unwrap();
    file.append(b"x").unwrap();
    file.sync().unwrap();
    let lost = disk.after_crash(Crash { data: Unsynced::Kept, names_kept: false });
    assert!(lost.size(Path::new("f")).err().unwrap().is_not_found());
    disk.sync_dir(Path::new("")).unwrap();
    disk.rename(Path::new("f"), Path::new("g")).unwrap();
    let back = disk.after_crash(Crash { data: Unsynced::Kept, names_kept: false });
    assert_eq!(back.size(Path::new("f")).unwrap(), 1);
}

#[test]
fn faults_strike_at_their_call() {
    let disk = SimDisk::new();
    disk.set_plan(Some(Plan { call: 2, fault: Fault::Full, repeated: false }));
    let file = disk.create(Path::new("f")).unwrap();
    file.append(b"ab").unwrap();
    assert!(file.append(b"cd").err().unwrap().is_full());
    file.append(b"e").unwrap();
    assert_eq!(read_all(&disk, Path::new("f")).unwrap(), b"abce");
    disk.set_plan(Some(Plan { call: 0, fault: Fault::Crash, repeated: false }));
    assert!(file.sync().is_err() && file.append(b"x").is_err() && disk.has_crashed());
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let disk = SimDisk::new();
    disk.set_capacity(3);
    let file = disk.create(Path::new("f")).unwrap();
    assert!(file.append(b"abcd").err().unwrap().is_full());
    file.truncate(0).unwrap();
    file.append(b"abc").unwrap();
    assert_eq!(disk.free_space().unwrap(), 0);
}
