//! Properties of connection strings: no text panics, and valid ones survive a round trip.

use proptest::prelude::*;
use trunkline_protocol::dial_in::{ConnectionString, ServiceUrl};

const KEY: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefgh";

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = text.parse::<ConnectionString>();
        let _ = text.parse::<ServiceUrl>();
    }

    #[test]
    fn any_list_of_pairs_is_read_or_refused(parts in prop::collection::vec(
        ("(?i)(endpoint|port|accesskey|version|clientendpoint|authtype|[a-z]{1,9})", "[ -~]{0,40}"), 0..8,
    )) {
        let text: String = parts.iter().map(|(key, value)| format!("{key}={value};")).collect();
        let _ = text.parse::<ConnectionString>();
    }

    #[test]
    fn a_valid_connection_string_keeps_its_values(
        host in "[a-z][a-z0-9.-]{0,30}", port in 1u16.., order in any::<prop::sample::Index>(), spaces in " {0,2}",
    ) {
        let mut parts = [
            format!("Endpoint=http://{host}"), format!("Port={port}"), format!("AccessKey={KEY}"), "Version=1.0".to_owned(),
        ];
        let middle = order.index(parts.len());
        parts.rotate_left(middle);
        let text = parts.join(&format!("{spaces};{spaces}"));
        let read: ConnectionString = text.parse().unwrap();
        prop_assert_eq!(read.endpoint().authority(), format!("{host}:{port}"));
        prop_assert_eq!(read.access_key().expose(), KEY);
        prop_assert_eq!(&read.endpoint().to_string().parse::<ServiceUrl>().unwrap(), read.endpoint());
    }
}
