//! Notification of the supervisor, by systemd's protocol. Without one, or on other systems, nothing happens.

/// State of the app that its supervisor is notified of.
#[derive(Debug, Clone, Copy)]
pub(super) enum AppState {
    /// The app accepts connections.
    Ready,
    /// The app was asked to stop.
    Stopping,
}

/// Notifies the supervisor. One that can't be reached stops nothing.
#[cfg(target_os = "linux")]
pub(super) fn notify(state: AppState) {
    let message = match state {
        AppState::Ready => sd_notify::NotifyState::Ready,
        AppState::Stopping => sd_notify::NotifyState::Stopping,
    };
    if let Err(error) = sd_notify::notify(&[message]) {
        tracing::warn!(%error, "the supervisor (NOTIFY_SOCKET) can't be told: {state:?}");
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn notify(_state: AppState) {}
