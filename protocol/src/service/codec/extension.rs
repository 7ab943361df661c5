//! Keys of the extension map. Tracing ids (1) and filters (4) are passed over when read and never written.
//! To invent a key is no option: older SDKs lose their place in the frame behind one that they don't know.

pub(super) const TTL: i64 = 2;
pub(super) const PROTOCOL: i64 = 3;
pub(super) const DATA_TYPE: i64 = 5;
pub(super) const IS_PARTIAL: i64 = 6;
