//! Live trace of a method.

use anyhow::Result;
use trunkline_bench::product::Product;

use crate::admin_stream::AdminStream;
use crate::companion::Companion;

/// Length of a trace: the maximum of a node, longer than any window. Ends with its reader.
const TRACE_SECONDS: u32 = 600;

#[derive(Debug)]
pub(crate) struct Tracer {
    path: String,
    messages: Option<AdminStream>,
}

impl Tracer {
    pub(crate) fn of(method: &str) -> Self {
        Self { path: format!("/api/trace?method={method}&hub=/bench&seconds={TRACE_SECONDS}"), messages: None }
    }
}

impl Companion for Tracer {
    fn come(&mut self, product: &mut Product) -> Result<()> {
        self.messages = Some(AdminStream::open(product.admin(), &self.path, "\"event\":\"message\"")?);
        Ok(())
    }

    fn events(&self, _product: &Product) -> Result<u64> {
        Ok(self.messages.as_ref().map_or(0, AdminStream::counted))
    }

    fn go(&mut self, _product: &mut Product) -> Result<()> {
        self.messages = None;
        Ok(())
    }
}
