//! Tests for the core of a shard.

use super::*;
use crate::engine::shard::testbed::Testbed;

#[test]
fn the_read_buffer_is_lent_and_used_again() {
    let mut bed = Testbed::new();
    let buffer = bed.state.core.lend_read_buffer();
    let at = buffer.as_ptr();
    assert_eq!(buffer.len(), READ_BUFFER_BYTES);
    bed.state.core.return_read_buffer(buffer);
    let again = bed.state.core.lend_read_buffer();
    assert_eq!(again.as_ptr(), at);
}
