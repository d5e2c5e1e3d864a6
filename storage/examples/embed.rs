//! A program with a time-series database inside: `cargo run -p stint-storage --example embed`.

use std::error::Error;
use std::sync::Arc;

use stint_model::{
    Appender, Batch, Columns, Hints, Labels, Queryable, Sample, Selector, TimeRange, Timestamp,
};
use stint_storage::{Db, Options, OsDisk};

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("stint-embed-{}", std::process::id()));
    let (db, _report) = Db::open(Arc::new(OsDisk::new(&dir)?), Options::default())?;

    let labels = Labels::from_pairs([("__name__", "room_temperature"), ("room", "kitchen")]);
    for minute in 0..10 {
        let mut batch = Batch::default();
        let at = Timestamp(1_700_000_000_000 + minute * 60_000);
        batch.push(labels.clone(), Sample::float(at, 20.0 + minute as f64 / 10.0));
        db.append(&batch)?; // survives a kill of the process from here on
    }
    db.sync()?; // survives a power cut from here on

    let querier = db.querier(TimeRange::ALL)?;
    let found = querier.select(&Selector::metric("room_temperature"), &Hints::default())?;
    let mut columns = Columns::default();
    found.read(0, TimeRange::ALL, &mut columns)?;
    assert_eq!((columns.len(), columns.values.last()), (10, Some(&20.9)));

    while let Some(job) = db.next_job(Timestamp(1_700_000_000_000)) {
        job.run()?; // a server does this now and then
    }
    db.close()?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
