//! `process_*` metrics, read from `/proc/self` at each exposition.

use prometheus::{Counter, Gauge, IntGauge, Registry};

use super::{gauge, int_gauge, register};

/// Clock ticks per second in `/proc/self/stat`; fixed at 100 by Linux' ABI to user space.
const TICKS_PER_SECOND: f64 = 100.0;
/// Bytes of a memory page in `/proc/self/statm`; the value on the supported architectures.
const PAGE_BYTES: i64 = 4096;

/// Gauges about this process. Where there is no `/proc` they stay at zero.
pub(super) struct ProcessMetrics {
    cpu_seconds: Counter,
    start_time: Gauge,
    resident_bytes: IntGauge,
    virtual_bytes: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    threads: IntGauge,
}

impl ProcessMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            cpu_seconds: register(
                registry,
                Counter::new(
                    "process_cpu_seconds_total",
                    "Total user and system CPU time spent, in seconds.",
                )
                .expect("metric names are valid"),
            ),
            start_time: gauge(
                registry,
                "process_start_time_seconds",
                "Start time of the process, in seconds since 1970.",
            ),
            resident_bytes: int_gauge(
                registry,
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
            ),
            virtual_bytes: int_gauge(
                registry,
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes.",
            ),
            open_fds: int_gauge(registry, "process_open_fds", "Number of open file descriptors."),
            max_fds: int_gauge(
                registry,
                "process_max_fds",
                "Largest allowed number of open file descriptors.",
            ),
            threads: int_gauge(registry, "process_threads", "Number of threads."),
        }
    }

    /// Reads the current values.
    pub(super) fn refresh(&self) {
        if let Some(stat) = read("/proc/self/stat").as_deref().and_then(Stat::parse) {
            let spent = stat.cpu_ticks as f64 / TICKS_PER_SECOND;
            // Two expositions at once may both have read an older value.
            self.cpu_seconds.inc_by((spent - self.cpu_seconds.get()).max(0.0));
            self.threads.set(stat.threads);
            if let Some(booted) = read("/proc/stat").as_deref().and_then(boot_time) {
                self.start_time.set(booted + stat.start_ticks as f64 / TICKS_PER_SECOND);
            }
        }
        if let Some(statm) = read("/proc/self/statm") {
            let mut pages = statm.split_ascii_whitespace().map_while(|field| field.parse().ok());
            self.virtual_bytes.set(pages.next().unwrap_or(0_i64).saturating_mul(PAGE_BYTES));
            self.resident_bytes.set(pages.next().unwrap_or(0_i64).saturating_mul(PAGE_BYTES));
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            self.open_fds.set(entries.count() as i64);
        }
        if let Some(limit) = read("/proc/self/limits").as_deref().and_then(open_files_limit) {
            self.max_fds.set(limit);
        }
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The fields of `/proc/self/stat` that are shown.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: i64,
    start_ticks: u64,
}

impl Stat {
    /// Fields are counted after the last `)`, since the program's name may contain blanks.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: number(11)?.checked_add(number(12)?)?,
            threads: number(17)? as i64,
            start_ticks: number(19)?,
        })
    }
}

fn boot_time(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn open_files_limit(text: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_even_when_the_name_has_blanks_and_brackets() {
        let text = "7 (a) b) S 1 7 7 0 -1 4 5 0 0 0 120 30 0 0 20 0 9 0 4500 1 2";
        let stat = Stat { cpu_ticks: 150, threads: 9, start_ticks: 4500 };
        assert_eq!(Stat::parse(text), Some(stat));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }

    #[test]
    fn boot_time_and_limits_are_found() {
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\n"), Some(1.7e9));
        assert_eq!(open_files_limit("Max open files  1024  4096 files\n"), Some(1024));
        assert_eq!(open_files_limit("Max open files  unlimited unlimited files\n"), None);
    }
}
