//! Any text is a template or a mistake, and expanding one ends with a text or a mistake.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_model::{Labels, Timestamp};
use stint_promql::{InstantSample, SampleValue};
use server::template::{QueryFunc, Template, TemplateData};

/// The module itself: the server around it takes long to compile.
#[path = "../../src"]
#[allow(dead_code, unreachable_pub)]
mod server {
    pub mod template;
}

struct One;

impl QueryFunc for One {
    fn query(&self, expr: &str) -> Result<Vec<InstantSample>, String> {
        let labels = Labels::from_pairs([("expr", expr)]);
        Ok(vec![InstantSample { labels, at: Timestamp(0), value: SampleValue::Float(1.5) }])
    }
}

fuzz_target!(|text: &str| {
    let Ok(template) = Template::parse("t", text) else { return };
    let labels = Labels::from_pairs([("job", "node")]);
    let data = TemplateData {
        labels: &labels,
        value: &SampleValue::Float(1.5),
        external_labels: &labels,
        external_url: "http://localhost:9090",
        at: Timestamp(0),
    };
    match template.expand(&data, &One) {
        Ok(text) => assert!(text.len() <= 4 << 20),
        Err(error) => assert!(!error.is_empty()),
    }
});
