//! Relabelling rules: labels in, labels or a drop out.
