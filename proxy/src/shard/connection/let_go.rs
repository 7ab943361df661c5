//! Ends of the stay of a client connection at an app server which has let it go.

/// How an app server has let a client connection go that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LetGo {
    /// It has handed it over: nobody there was told of an end.
    HandedOver,
    /// It has ended all its connections when it stopped.
    Ended,
}
