//! Any two texts are a configuration or a list of mistakes, each with its place. What is shown of a
//! configuration is one, too, and holds no secret of it.

#![no_main]

use std::path::Path;

use config::{Files, Texts};
use libfuzzer_sys::fuzz_target;
use server::config;

/// The module itself: the server around it takes long to compile.
#[path = "../../src"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod server {
    pub mod config;
}

fn read(
    prometheus: &str,
    retention: &str,
    expand_env: bool,
) -> Result<config::Config, config::ConfigErrors> {
    let files = Files {
        // Where no patterns of the texts match anything.
        prometheus: Some(Path::new("/nonexistent/prometheus.yml")),
        retention: Some(Path::new("/nonexistent/retention.toml")),
        own_address: "localhost:9090",
        expand_env,
    };
    let texts = Texts { prometheus: Some(prometheus), retention: Some(retention) };
    config::parse(files, texts, &|name| (name == "ENVIRONMENT").then(|| "dev".to_owned()))
}

fuzz_target!(|texts: &str| {
    let (prometheus, retention) = texts.split_once('\0').unwrap_or((texts, ""));
    let expand_env = texts.len() % 2 == 1;
    match read(prometheus, retention, expand_env) {
        Ok(config) => {
            let shown = config.shown();
            assert!(!shown.contains("hunter2") || !is_only_secret(prometheus), "{shown}");
            for job in &config.scrape_configs {
                assert!(config.shown_job(&job.job_name).is_some(), "{}", job.job_name);
            }
            match read(&shown, "", expand_env) {
                Ok(again) => {
                    let names = |config: &config::Config| -> Vec<_> {
                        let jobs = config.scrape_configs.iter();
                        jobs.map(|job| (job.job_name.clone(), job.scrape_interval)).collect()
                    };
                    assert_eq!(names(&config), names(&again), "{shown}");
                    assert_eq!(again.shown(), shown);
                }
                Err(errors) => panic!("{errors}\n{shown}"),
            }
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            for error in &errors.0 {
                assert!(!error.message.is_empty() && !error.file.is_empty(), "{error:?}");
            }
        }
    }
});

/// Whether the word that stands for a secret is the value of a password, and of nothing else.
fn is_only_secret(text: &str) -> bool {
    text.matches("hunter2").count() == text.matches("password: hunter2").count()
}
