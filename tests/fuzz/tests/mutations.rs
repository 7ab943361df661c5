//! Short deterministic fuzz run: every target gets its seeds and mutations, identical in every run.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails, and shows the input")]

use trunkline_fuzz::mutation::mutate;
use trunkline_fuzz::random::Random;
use trunkline_fuzz::{TARGETS, corpus};

/// Mutations per target: about a second for the slowest.
const MUTATIONS: usize = 20_000;

/// Mutations per target with `TRUNKLINE_FULL=1`.
const MUTATIONS_FULL: usize = 1_000_000;

/// Shows the input with which a target panics.
struct Shown<'a> {
    target: &'a str,
    input: &'a [u8],
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{} panics with {} bytes: b\"{}\"", self.target, self.input.len(), self.input.escape_ascii());
        }
    }
}

fn run(target: &str, mutations: usize) {
    let target = TARGETS.iter().find(|known| known.name == target).unwrap();
    let feed = |input: &[u8]| {
        let _shown = Shown { target: target.name, input };
        (target.run)(input);
    };
    let mut inputs = corpus::seeds(target.name).unwrap();
    assert!(!inputs.is_empty(), "{} has no seeds", target.name);
    feed(b"");
    inputs.iter().for_each(|seed| feed(seed));
    let mut random = Random::from_bytes(target.name.as_bytes());
    for _ in 0..mutations {
        let seed = random.pick(&inputs).unwrap();
        let input = mutate(seed, &inputs, &mut random);
        feed(&input);
        // Some mutations become seeds, so that changes accumulate.
        if random.below(64) == 0 && inputs.len() < 512 {
            inputs.push(input);
        }
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        mod mutations_break_no_promise_of {
            $(
                #[test]
                fn $name() {
                    let full = std::env::var("TRUNKLINE_FULL").is_ok_and(|value| value == "1");
                    super::run(stringify!($name), if full { super::MUTATIONS_FULL } else { super::MUTATIONS });
                }
            )*
        }

        #[test]
        fn every_target_is_run_and_has_a_folder_of_seeds() {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
            let mut folders: Vec<_> = corpus::folder("")
                .read_dir()
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            folders.sort();
            let mut expected = names.clone();
            expected.sort_unstable();
            assert_eq!(folders, expected);
        }
    };
}

targets! {
    hub_json
    hub_message_pack
    hub_handshake
    service_frames
    link_upgrade
    sealed_tokens
    negotiate_bodies
    websocket
    deflated_messages
    proxy_header
    forwarded_headers
    query_string
    origin
    access_tokens
    config_file
    node_messages
    greetings
    trace_contexts
    client_filters
}
