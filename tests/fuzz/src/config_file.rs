//! Configuration file of a node.

use trunkline_command::fuzzing;
use trunkline_proxy::fuzzing as of_node;

/// Reads a configuration file: its values as flags, and its rules.
pub fn config_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match fuzzing::config_file(text) {
        Ok(keys) => {
            assert!(keys.len() <= text.lines().count() * text.len(), "more flags are set than the file can hold");
            let commented = format!("# A comment.\n{text}");
            assert_eq!(fuzzing::config_file(&commented), Ok(keys), "a comment changes the flags");
        }
        Err(problem) => assert!(!problem.is_empty(), "a file is refused without a reason"),
    }
    match of_node::rules(text) {
        Ok(counts) => {
            let commented = format!("# A comment.\n{text}");
            assert_eq!(of_node::rules(&commented), Ok(counts), "a comment changes the rules");
        }
        Err(problem) => assert!(problem.starts_with("line "), "rules are refused without a place: {problem}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_as_flags() {
        for (text, keys) in [
            (include_str!("../corpus/config_file/small.toml"), 2),
            (include_str!("../corpus/config_file/limits.toml"), 6),
            (include_str!("../corpus/config_file/rules.toml"), 1),
        ] {
            assert_eq!(fuzzing::config_file(text).map(|keys| keys.len()), Ok(keys));
        }
    }

    #[test]
    fn the_seed_with_rules_has_some_of_each_kind() {
        assert_eq!(of_node::rules(include_str!("../corpus/config_file/rules.toml")), Ok([3, 5, 1, 1, 2]));
    }
}
