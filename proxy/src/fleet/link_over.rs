//! End of a node link, as text for people.

use trunkline_link::LinkEnd;
use trunkline_protocol::service::Role;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkOver {
    pub(super) reason: String,
    /// The peer node is certainly gone: it said goodbye, or another start answers.
    pub(super) is_gone: bool,
}

impl LinkOver {
    /// End for this reason; the node may still be alive.
    pub(super) fn because(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), is_gone: false }
    }

    pub(super) fn gone(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), is_gone: true }
    }
}

impl From<&LinkEnd> for LinkOver {
    fn from(end: &LinkEnd) -> Self {
        match end {
            LinkEnd::Goodbye(_) => Self::gone("the node has closed the link"),
            LinkEnd::Shutdown => Self::because("this node stops, or the other node has restarted"),
            LinkEnd::Closed => Self::because("the node has closed the socket"),
            LinkEnd::Silent => Self::because("the node is silent"),
            LinkEnd::Stuck => Self::because("the node does not read"),
            LinkEnd::Replaced => Self::because("a newer socket has replaced this one"),
            LinkEnd::Text => Self::because("the node has sent a text message"),
            // The remaining reasons name neither end.
            other => Self::because(other.reason(Role::Proxy)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_that_said_goodbye_is_gone_and_the_reason_names_no_app_server() {
        assert!(LinkOver::from(&LinkEnd::Goodbye(String::new())).is_gone);
        for end in
            [LinkEnd::Closed, LinkEnd::Silent, LinkEnd::Stuck, LinkEnd::Replaced, LinkEnd::Shutdown, LinkEnd::Text]
        {
            let over = LinkOver::from(&end);
            assert!(!over.is_gone && !over.reason.contains("app server"), "{over:?}");
        }
    }
}
