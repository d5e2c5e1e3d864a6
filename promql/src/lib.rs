//! A `PromQL` parser and engine.
