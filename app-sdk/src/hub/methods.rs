//! Modules of methods with their own filters and policies. They are merged into hubs as routers are in axum.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use bytestring::ByteString;

use crate::error::BuildError;
use crate::handler::filter::{BindableFilter, Filters};
use crate::handler::hook::ErasedHook;
use crate::handler::policy::Policies;
use crate::handler::{self, Bindable, Filter, Handler, HubCallKind, Method, Policy};
#[cfg(feature = "typescript")]
use crate::typescript::{SignatureFn, TypedHandler};

/// A module of methods with filters and policies around them, to be [added](crate::Hub::methods) to a hub.
///
/// ```
/// use trunkline::{Context, Hub, HubCall, HubError, Methods, Next, Reply};
///
/// async fn say(ctx: Context, text: String) -> Result<(), HubError> {
///     ctx.clients().all().send("Said", (text,)).await?;
///     Ok(())
/// }
///
/// async fn ban(_user: String) {}
/// async fn clear() {}
///
/// async fn audit(call: HubCall, next: Next) -> Result<Reply, HubError> {
///     println!("{} by {:?}", call.method(), call.context().user_id());
///     next.run(call).await
/// }
///
/// fn moderation() -> Methods {
///     Methods::new().method("Ban", ban).method("Clear", clear).filter(audit).require_claim("role", "moderator")
/// }
///
/// let hub: Hub = Hub::new("/board").method("Say", say).methods(moderation());
/// ```
#[must_use = "methods do nothing until a hub takes them in"]
pub struct Methods<S = ()> {
    entries: Vec<MethodEntry<S>>,
    filters: Vec<BindableFilter<S>>,
    policies: Policies,
}

struct MethodEntry<S> {
    name: ByteString,
    method: Bindable<S, Method>,
    /// Filters of the enclosing modules, outermost first.
    filters: Vec<BindableFilter<S>>,
    policies: Policies,
    #[cfg(feature = "typescript")]
    signature: Option<SignatureFn>,
}

impl<S: Clone + Send + Sync + 'static> Methods<S> {
    /// Creates an empty module.
    pub fn new() -> Self {
        Self { entries: Vec::new(), filters: Vec::new(), policies: Policies::default() }
    }

    /// Adds a method; see [`Hub::method`](crate::Hub::method).
    pub fn method<H: Handler<S, M>, M: 'static>(mut self, name: impl Into<String>, handler: H) -> Self {
        self.add_handler(name.into(), Policies::default(), handler);
        self
    }

    /// Adds a method for clients that meet the policy. Other callers get an error.
    pub fn guarded<H: Handler<S, M>, M: 'static>(
        mut self,
        name: impl Into<String>,
        policy: Policy,
        handler: H,
    ) -> Self {
        let mut policies = Policies::default();
        policies.add_policy(policy);
        self.add_handler(name.into(), policies, handler);
        self
    }

    /// Like [`method`](Self::method), and also includes the method's types in the generated
    /// [TypeScript](crate::typescript).
    #[cfg(feature = "typescript")]
    pub fn typed_method<H: TypedHandler<S, M>, M: 'static>(mut self, name: impl Into<String>, handler: H) -> Self {
        self = self.method(name, handler);
        self.sign_last(H::signature);
        self
    }

    /// Like [`guarded`](Self::guarded), and also includes the method's types in the generated
    /// [TypeScript](crate::typescript).
    #[cfg(feature = "typescript")]
    pub fn typed_guarded<H: TypedHandler<S, M>, M: 'static>(
        mut self,
        name: impl Into<String>,
        policy: Policy,
        handler: H,
    ) -> Self {
        self = self.guarded(name, policy, handler);
        self.sign_last(H::signature);
        self
    }

    /// Adds all methods of another module, with its filters and policies.
    pub fn methods(mut self, other: Self) -> Self {
        self.entries.extend(other.into_entries());
        self
    }

    /// Adds a filter around all methods of the module, including methods added later. The first filter is the
    /// outermost; filters of the hub are further outside. See [`Hub::filter`](crate::Hub::filter).
    pub fn filter<F: Filter<S, M>, M: 'static>(mut self, filter: F) -> Self {
        self.filters.push(BindableFilter::new(filter));
        self
    }

    /// Restricts the methods of the module to clients that meet the policy. Other callers get an error.
    pub fn require(mut self, policy: Policy) -> Self {
        self.policies.add_policy(policy);
        self
    }

    /// Restricts the methods of the module to authenticated clients.
    pub fn require_user(self) -> Self {
        self.require(Policy::user())
    }

    /// Restricts the methods of the module to users with this claim.
    pub fn require_claim(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.require(Policy::claim(name, value))
    }

    /// Provides the state of the module, so that it can be added to a hub with a different state.
    pub fn with_state<S2: Clone + Send + Sync + 'static>(self, state: S) -> Methods<S2> {
        let entries = self.into_entries().map(|entry| entry.bind_early(&state)).collect();
        Methods { entries, filters: Vec::new(), policies: Policies::default() }
    }

    pub(super) fn policies(&self) -> impl Iterator<Item = (&str, Vec<&Policy>)> {
        self.entries.iter().map(|entry| (&*entry.name, self.policies.iter().chain(entry.policies.iter()).collect()))
    }

    #[cfg(feature = "typescript")]
    pub(super) fn signatures(&self) -> impl Iterator<Item = (&str, Option<SignatureFn>)> {
        self.entries.iter().map(|entry| (&*entry.name, entry.signature))
    }

    pub(super) fn bind(self, state: &S, hub_filters: &Filters) -> impl Iterator<Item = Method> {
        self.into_entries().map(|entry| {
            let filters = hub_filters.around(&Filters::bind(&entry.filters, state));
            entry.method.bind(state).within(filters, entry.policies)
        })
    }

    #[cfg(feature = "typescript")]
    fn sign_last(&mut self, signature: SignatureFn) {
        if let Some(entry) = self.entries.last_mut() {
            entry.signature = Some(signature);
        }
    }

    fn add_handler<H: Handler<S, M>, M: 'static>(&mut self, name: String, policies: Policies, handler: H) {
        let name = ByteString::from(name);
        let method = handler::bindable(name.clone(), handler);
        self.entries.push(MethodEntry {
            name,
            method,
            filters: Vec::new(),
            policies,
            #[cfg(feature = "typescript")]
            signature: None,
        });
    }

    /// Returns the methods, each with the filters and policies of the module.
    fn into_entries(self) -> impl Iterator<Item = MethodEntry<S>> {
        let Self { entries, filters, policies } = self;
        entries.into_iter().map(move |mut entry| {
            entry.filters.splice(0..0, filters.iter().cloned());
            let inner = std::mem::replace(&mut entry.policies, policies.clone());
            entry.policies.extend(&inner);
            entry
        })
    }
}

impl<S: Clone + Send + Sync + 'static> MethodEntry<S> {
    fn bind_early<S2: 'static>(self, state: &S) -> MethodEntry<S2> {
        MethodEntry {
            name: self.name,
            method: self.method.bind_early(state),
            filters: self.filters.iter().map(|filter| filter.bind_early(state)).collect(),
            policies: self.policies,
            #[cfg(feature = "typescript")]
            signature: self.signature,
        }
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Methods<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> fmt::Debug for Methods<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| &*entry.name)).finish()
    }
}

#[derive(Default)]
pub(crate) struct MethodTable {
    pub(super) by_name: HashMap<Box<str>, Arc<Method>>,
    /// Filters around hooks, and around calls that match no method.
    pub(crate) filters: Filters,
    /// Policies that clients must meet to connect.
    pub(crate) policies: Policies,
    pub(super) hooks: Vec<(HubCallKind, ErasedHook)>,
    pub(crate) on_leaving: Option<Method>,
}

impl MethodTable {
    /// Finds a method by its case-insensitive name.
    pub(crate) fn find(&self, target: &str) -> Option<&Arc<Method>> {
        // Most calls use the exact name, so lower-casing is rarely needed.
        self.by_name.get(target).or_else(|| self.by_name.get(target.to_lowercase().as_str()))
    }

    /// Hooks of this kind, oldest first.
    pub(crate) fn hooks(&self, kind: HubCallKind) -> impl Iterator<Item = &ErasedHook> {
        self.hooks.iter().filter(move |(of, _)| *of == kind).map(|(_, hook)| hook)
    }

    pub(super) fn add_method(&mut self, hub: &str, method: Method) -> Result<(), BuildError> {
        let method = Arc::new(method);
        let Entry::Vacant(vacant) = self.by_name.entry(method.name.to_lowercase().into()) else {
            return Err(BuildError::DuplicateMethod { hub: hub.to_owned(), method: method.name.to_string() });
        };
        vacant.insert(Arc::clone(&method));
        self.by_name.insert((&*method.name).into(), method);
        Ok(())
    }
}
