//! Example apps with a page.

use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum App {
    /// A chat with rooms
    Chat,
    /// Status of displays that connect and disconnect, seen by all clients
    Status,
    /// A board with notes, polls and moderation
    Board,
    /// People who draw together, and a button that kills the app server
    Canvas,
    /// Streams in both directions
    Streaming,
}

impl App {
    /// Name on the command line, of the example and of its process.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Status => "status",
            Self::Board => "board",
            Self::Canvas => "canvas",
            Self::Streaming => "streaming",
        }
    }

    pub(crate) const fn invitation(self) -> &'static str {
        match self {
            Self::Chat => "Chat: open one tab for each proxy, and they see each other's messages.",
            Self::Status => "Who is online: open tabs at both proxies, close one, and the others see it.",
            Self::Board => "Board: open one tab for each proxy, log in with any name, and pin notes to the same board.",
            Self::Canvas => "Canvas: open one tab for each proxy, draw, and kill the app server while you do.",
            Self::Streaming => "Streams: have the app server count, and cancel it halfway.",
        }
    }

    pub(crate) const fn traffic(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Status => "come and go",
            Self::Board => "pin notes in the room “kitchen”",
            Self::Canvas => "draw in the room “lobby”",
            Self::Streaming => "stream numbers",
        }
    }

    pub(crate) const fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Canvas => &["--supervised"],
            Self::Chat | Self::Status | Self::Board | Self::Streaming => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_called_by_the_name_of_its_example() {
        for app in App::value_variants() {
            assert_eq!(App::from_str(app.name(), false), Ok(*app));
            let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../app-sdk/examples");
            let is_there = |path: String| std::path::Path::new(&format!("{examples}/{path}")).is_file();
            assert!(is_there(format!("{}.rs", app.name())) || is_there(format!("{}/main.rs", app.name())), "{app:?}");
        }
    }
}
