//! Any text is a rule file or a list of mistakes in it, and the same of files of unit tests. What a rule
//! prints as its expression means the same when it is read again.

#![no_main]

use std::path::Path;

use config::unit_test::UnitTestFile;
use libfuzzer_sys::fuzz_target;
use server::rules::spec::{self, Reading};
use server::{config, template};
use stint_model::Span;
use stint_model::labels::NameScheme;
use stint_promql::parse::{Options, parse, parse_metric};

/// The modules themselves: the server around them takes long to compile.
#[path = "../../src"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod server {
    pub mod config {
        mod decode;
        pub mod error;
        pub mod node;
        pub mod rules;
        pub mod secret;
        pub mod unit_test;

        /// No patterns are followed: the disk is no part of the text.
        mod files {
            pub fn files_matching(_: &std::path::Path) -> std::io::Result<Vec<std::path::PathBuf>> {
                Ok(Vec::new())
            }
        }
    }
    pub mod rules {
        pub mod expand;
        pub mod spec;
    }
    pub mod template;
}

fuzz_target!(|text: &str| {
    let reading = Reading {
        features: Options::default(),
        name_scheme: NameScheme::Utf8,
        interval: Span::MINUTE,
        query_offset: Span::ZERO,
        ignore_unknown: text.len().is_multiple_of(2),
    };
    match spec::read(Path::new("r.yml"), text, &reading) {
        Ok(read) => {
            for rule in read.groups.iter().flat_map(|group| &group.rules) {
                assert!(!rule.name.is_empty());
                let again = parse(&rule.query, &reading.features);
                let again = again.unwrap_or_else(|errors| panic!("{}: {errors}", rule.query));
                assert_eq!(again.to_string(), rule.query);
            }
        }
        Err(errors) => {
            assert!(!errors.is_empty() && errors.iter().all(|error| error.starts_with("r.yml:")));
        }
    }
    match UnitTestFile::parse(Path::new("t.yml"), text) {
        Ok(file) => {
            let tests = file.tests.iter().flat_map(|test| &test.expressions);
            for expected in tests.flat_map(|test| &test.expected) {
                drop(parse_metric(&expected.labels));
            }
        }
        Err(errors) => assert!(!errors.0.is_empty()),
    }
});
