//! Answering: the head and the blocks as one store.

pub(crate) mod block;
pub(crate) mod columns;
pub(crate) mod querier;
pub(crate) mod selected;
pub(crate) mod selections;
