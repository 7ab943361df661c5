//! Policies: conditions on the user, for a hub, a module of methods or a single method.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::context::Context;
use crate::error::{HubError, text};

/// A condition on the client that restricts access to a [hub](crate::Hub::require), a
/// [module](crate::Methods::require) or a [method](crate::Hub::guarded).
///
/// A hub's policy is checked when a client negotiates and again when it connects. During negotiation
/// [`Context::connection_id`] is empty, and query and headers are those of the negotiate request.
///
/// ```
/// use trunkline::{Hub, Policy};
///
/// # async fn read() {}
/// # async fn write() {}
/// # async fn clear() {}
/// let staff = Policy::any([Policy::claim("role", "editor"), Policy::claim("role", "admin")]);
/// let office = Policy::new("from the office", |ctx| ctx.remote_addr().is_some_and(|address| address.ip().is_loopback()));
///
/// let hub: Hub = Hub::new("/pages")
///     .require(Policy::user())
///     .method("Read", read)
///     .guarded("Write", staff, write)
///     .guarded("Clear", Policy::claim("role", "admin").and(office), clear);
/// ```
#[derive(Clone)]
pub struct Policy {
    name: Arc<str>,
    is_met: Arc<dyn Fn(&Context) -> bool + Send + Sync>,
}

impl Policy {
    /// A custom policy. Its name appears in logs, and at clients of hubs with [detailed
    /// errors](crate::Hub::detailed_errors). For asynchronous checks, use an extractor or a filter.
    pub fn new(name: impl Into<String>, is_met: impl Fn(&Context) -> bool + Send + Sync + 'static) -> Self {
        Self { name: name.into().into(), is_met: Arc::new(is_met) }
    }

    /// The client is authenticated.
    #[must_use]
    pub fn user() -> Self {
        Self::new("a user", |ctx| ctx.user_id().is_some())
    }

    /// The user has this claim with this value, case-sensitive.
    pub fn claim(name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        Self::new(format!("claim {name} = {value}"), move |ctx| ctx.claims().get_all(&name).any(|one| one == value))
    }

    /// At least one of the policies is met.
    #[must_use]
    pub fn any(policies: impl IntoIterator<Item = Policy>) -> Self {
        let policies: Vec<_> = policies.into_iter().collect();
        let name = policies.iter().map(|policy| &*policy.name).collect::<Vec<_>>().join(", or ");
        Self::new(name, move |ctx| policies.iter().any(|policy| policy.is_met_by(ctx)))
    }

    /// Both policies are met.
    #[must_use]
    pub fn and(self, other: Policy) -> Self {
        Self::new(format!("{self} and {other}"), move |ctx| self.is_met_by(ctx) && other.is_met_by(ctx))
    }

    /// Whether a client meets the policy.
    #[must_use]
    pub fn is_met_by(&self, ctx: &Context) -> bool {
        (self.is_met)(ctx)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Policy").field(&self.name).finish()
    }
}

/// Policies that must all be met.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies(Vec<Policy>);

impl Policies {
    pub(crate) fn add_policy(&mut self, policy: Policy) {
        self.0.push(policy);
    }

    pub(crate) fn extend(&mut self, others: &Policies) {
        self.0.extend_from_slice(&others.0);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.0.iter()
    }

    /// Checks the client. The error names the first policy that is not met. A policy that panics is not met.
    pub(crate) fn check(&self, context: &Context) -> Result<(), HubError> {
        let unmet = || self.0.iter().find(|policy| !policy.is_met_by(context));
        match catch_unwind(AssertUnwindSafe(unmet)) {
            Ok(None) => Ok(()),
            Ok(Some(policy)) => Err(text::unauthorized(&policy.name)),
            Err(panic) => Err(HubError::from_panic(&*panic)),
        }
    }
}
