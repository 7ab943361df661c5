//! Values that are made once the state of a hub is known.

/// A value that is made as soon as the state of its hub is known.
pub(crate) struct Bindable<S, T>(Box<dyn FnOnce(&S) -> T + Send + Sync>);

impl<S: 'static, T: Send + Sync + 'static> Bindable<S, T> {
    pub(crate) fn new(make: impl FnOnce(&S) -> T + Send + Sync + 'static) -> Self {
        Self(Box::new(make))
    }

    /// Makes the value with the state of the hub.
    pub(crate) fn bind(self, state: &S) -> T {
        (self.0)(state)
    }

    /// Makes the value for a hub whose state is of another type from now on.
    pub(crate) fn bind_early<S2: 'static>(self, state: &S) -> Bindable<S2, T> {
        let bound = self.bind(state);
        Bindable::new(|_| bound)
    }
}
