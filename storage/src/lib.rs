//! The embeddable storage engine.
