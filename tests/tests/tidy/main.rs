#![forbid(unsafe_code)]
//! Tidiness of the whole workspace: order of modules, cycles, names, first lines of docs, sleeping tests, unsafe code.
//!
//! The test reads the source files of every crate as tokens; nothing is compiled or run, so it takes a second.
//! *Crate* means what rustc means by it: a library, a program, an example or an integration test, each with all files
//! that its root reaches. The rules are in [`rule`]; each is a test here, and has planted violations in its own tests.
//!
//! `cargo test -p trunkline-tests --test tidy -- --nocapture` also prints a row of figures for each crate, and what is
//! still wrong in the crates of [`PENDING`].
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails, and prints its figures")]

mod figure;
mod import;
mod name;
mod order;
mod planted;
mod prose;
mod rule;
mod source;
mod token;
mod violation;
mod workspace;

use std::collections::BTreeSet;

use rule::Rule;

/// Crates that still break a rule. An entry that is no longer needed fails the test, too.
const PENDING: &[(&str, Rule)] = &[
    ("proxy", Rule::Order),
    ("proxy", Rule::Cycle),
    ("proxy", Rule::Family),
    ("proxy", Rule::TypeName),
    ("proxy", Rule::FileName),
    ("proxy", Rule::ShortDoc),
    ("proxy", Rule::Riddle),
    ("proxy", Rule::Sleep),
    ("proxy/src/main.rs", Rule::ShortDoc),
    ("app-sdk/examples/background.rs", Rule::Riddle),
    ("app-sdk/examples/bench.rs", Rule::Riddle),
    ("app-sdk/examples/chat.rs", Rule::Riddle),
    ("app-sdk/examples/client_results.rs", Rule::Riddle),
    ("app-sdk/examples/functional.rs", Rule::ShortDoc),
    ("app-sdk/examples/functional.rs", Rule::Riddle),
    ("app-sdk/examples/status.rs", Rule::Riddle),
    ("app-sdk/examples/streaming.rs", Rule::Riddle),
    ("app-sdk", Rule::Order),
    ("app-sdk", Rule::Cycle),
    ("app-sdk", Rule::Family),
    ("app-sdk", Rule::TypeName),
    ("app-sdk", Rule::FileName),
    ("app-sdk", Rule::ShortDoc),
    ("app-sdk", Rule::Riddle),
    ("app-sdk", Rule::Sleep),
    ("app-sdk/tests/embedded/main.rs", Rule::Riddle),
    ("app-sdk/tests/links/main.rs", Rule::ShortDoc),
    ("app-sdk/tests/links/main.rs", Rule::Riddle),
    ("app-sdk/tests/links/main.rs", Rule::Sleep),
    ("deploy/demo/src/main.rs", Rule::Order),
    ("deploy/demo/src/main.rs", Rule::TypeName),
    ("deploy/demo/src/main.rs", Rule::ShortDoc),
    ("deploy/demo/src/main.rs", Rule::Riddle),
    ("tests/src/bin/app_cost/main.rs", Rule::Order),
    ("tests/src/bin/app_cost/main.rs", Rule::TypeName),
    ("tests/src/bin/app_cost/main.rs", Rule::ShortDoc),
    ("tests/src/bin/app_cost/main.rs", Rule::Riddle),
    ("tests/src/bin/bench_page/main.rs", Rule::ShortDoc),
    ("tests/src/bin/bench_page/main.rs", Rule::Riddle),
    ("tests/src/bin/calls/main.rs", Rule::Family),
    ("tests/src/bin/calls/main.rs", Rule::ShortDoc),
    ("tests/src/bin/calls/main.rs", Rule::Riddle),
    ("tests/src/bin/capacity/main.rs", Rule::Order),
    ("tests/src/bin/capacity/main.rs", Rule::ShortDoc),
    ("tests/src/bin/capacity/main.rs", Rule::Riddle),
    ("tests/src/bin/chaos/main.rs", Rule::Order),
    ("tests/src/bin/chaos/main.rs", Rule::ShortDoc),
    ("tests/src/bin/chaos/main.rs", Rule::Riddle),
    ("tests/src/bin/compare/main.rs", Rule::Order),
    ("tests/src/bin/compare/main.rs", Rule::ShortDoc),
    ("tests/src/bin/compare/main.rs", Rule::Riddle),
    ("tests/src/bin/ends.rs", Rule::ShortDoc),
    ("tests/src/bin/floor/main.rs", Rule::Order),
    ("tests/src/bin/floor/main.rs", Rule::Cycle),
    ("tests/src/bin/floor/main.rs", Rule::Family),
    ("tests/src/bin/floor/main.rs", Rule::TypeName),
    ("tests/src/bin/floor/main.rs", Rule::ShortDoc),
    ("tests/src/bin/floor/main.rs", Rule::Riddle),
    ("tests/src/bin/members.rs", Rule::ShortDoc),
    ("tests/src/bin/members.rs", Rule::Riddle),
    ("tests/src/bin/memberships.rs", Rule::ShortDoc),
    ("tests/src/bin/memberships.rs", Rule::Riddle),
    ("tests/src/bin/moves.rs", Rule::ShortDoc),
    ("tests/src/bin/moves.rs", Rule::Riddle),
    ("tests/src/bin/observer_cost/main.rs", Rule::Order),
    ("tests/src/bin/observer_cost/main.rs", Rule::Family),
    ("tests/src/bin/observer_cost/main.rs", Rule::ShortDoc),
    ("tests/src/bin/observer_cost/main.rs", Rule::Riddle),
    ("tests/src/bin/published/main.rs", Rule::Order),
    ("tests/src/bin/published/main.rs", Rule::Cycle),
    ("tests/src/bin/published/main.rs", Rule::Family),
    ("tests/src/bin/published/main.rs", Rule::ShortDoc),
    ("tests/src/bin/published/main.rs", Rule::Riddle),
    ("tests/src/bin/sends.rs", Rule::ShortDoc),
    ("tests/src/bin/sends.rs", Rule::Riddle),
    ("tests/src/bin/web/main.rs", Rule::Family),
    ("tests/src/bin/web/main.rs", Rule::ShortDoc),
    ("tests/src/bin/web/main.rs", Rule::Riddle),
    ("tests", Rule::Order),
    ("tests", Rule::Family),
    ("tests", Rule::TypeName),
    ("tests", Rule::FileName),
    ("tests", Rule::ShortDoc),
    ("tests", Rule::Riddle),
    ("tests/tests/e2e/main.rs", Rule::Cycle),
    ("tests/tests/e2e/main.rs", Rule::Family),
    ("tests/tests/e2e/main.rs", Rule::ShortDoc),
    ("tests/tests/e2e/main.rs", Rule::Riddle),
    ("tests/load/src/main.rs", Rule::Order),
    ("tests/load/src/main.rs", Rule::Family),
    ("tests/load/src/main.rs", Rule::TypeName),
    ("tests/load/src/main.rs", Rule::FileName),
    ("tests/load/src/main.rs", Rule::ShortDoc),
    ("tests/load/src/main.rs", Rule::Riddle),
    ("tests/load/tests/profiles_and_faults/main.rs", Rule::ShortDoc),
    ("tests/load/tests/profiles_and_faults/main.rs", Rule::Riddle),
    ("tests/simulation", Rule::Order),
    ("tests/simulation", Rule::Cycle),
    ("tests/simulation", Rule::Family),
    ("tests/simulation", Rule::ShortDoc),
    ("tests/simulation", Rule::Riddle),
    ("tests/simulation/src/main.rs", Rule::Riddle),
];

fn check(rule: Rule) {
    let crates = workspace::crates();
    let mut problems = Vec::new();
    for krate in &crates {
        let violations = rule.violations(krate);
        let is_pending = PENDING.contains(&(&krate.name, rule));
        match (violations.is_empty(), is_pending) {
            (false, false) => problems.extend(violations.iter().map(ToString::to_string)),
            (true, true) => {
                problems.push(format!("{}: remove ({:?}, Rule::{rule:?}) from PENDING", krate.name, krate.name))
            }
            (false, true) => violations.iter().for_each(|violation| println!("pending: {violation}")),
            (true, false) => {}
        }
    }
    let known: BTreeSet<_> = crates.iter().map(|krate| krate.name.as_str()).collect();
    let unknown = PENDING.iter().filter(|(name, pending)| *pending == rule && !known.contains(name));
    problems.extend(unknown.map(|(name, _)| format!("{name} is in PENDING, but there is no such crate")));
    assert!(problems.is_empty(), "{} problems: {}\n{}\n", problems.len(), rule.advice(), problems.join("\n"));
}

#[test]
fn modules_import_only_lower_ones() {
    check(Rule::Order);
}

#[test]
fn files_import_each_other_in_no_circle() {
    check(Rule::Cycle);
}

#[test]
fn a_parent_and_its_children_import_each_other_in_no_circle() {
    check(Rule::Family);
}

#[test]
fn a_type_name_is_declared_once_in_a_crate() {
    check(Rule::TypeName);
}

#[test]
fn a_file_name_occurs_once_in_a_crate() {
    check(Rule::FileName);
}

#[test]
fn no_doc_comment_is_too_short_to_say_anything() {
    check(Rule::ShortDoc);
}

#[test]
fn no_doc_comment_begins_with_a_riddle() {
    check(Rule::Riddle);
}

#[test]
fn tests_sleep_only_for_a_reason() {
    check(Rule::Sleep);
}

#[test]
fn every_crate_forbids_unsafe_code() {
    check(Rule::Unsafe);
}

#[test]
fn every_source_file_belongs_to_a_crate() {
    let crates = workspace::crates();
    let orphans = workspace::orphans(&crates);
    assert!(
        orphans.is_empty(),
        "no crate root reaches these files: remove them, or teach `workspace` their root\n{orphans:#?}"
    );
    let files: usize = crates.iter().map(|krate| krate.files.len()).sum();
    assert!(files > 400, "only {files} files were found: does this test still read the code?");
}

#[test]
fn figures_of_every_crate() {
    println!("{}", figure::table(&workspace::crates()));
}
