#![forbid(unsafe_code)]
//! Tidiness of the whole workspace: order of modules, cycles, names, first lines of docs, plain language, spelling,
//! sleeping tests, unsafe code; documents: their links, sizes and files, the book's summary, reference pages that match
//! the code; and manifests of published crates.
//!
//! The test reads the source files of every crate as tokens; nothing is compiled or run, so it takes a second.
//! *Crate* has the meaning of rustc: a library, a program, an example or an integration test, each with all files that
//! its root reaches. The rules are in [`rule`]; each is a test here, and has planted violations in its own tests.
//!
//! `cargo test --workspace --test tidy -- --nocapture` also prints a row of figures for each crate.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod behaviour;
mod budget;
mod dialect;
mod document;
mod figure;
mod import;
mod limit;
mod name;
mod order;
mod package;
mod planted;
mod prose;
mod reference;
mod resource;
mod rule;
mod source;
mod spelling;
mod test_list;
mod text;
mod token;
mod violation;
mod workspace;

use std::path::Path;

use dialect::Rates;
use document::{BOOK, Document, dead_links, gone_files, resolve};
use rule::Rule;

fn check(rule: Rule) {
    let crates = workspace::crates();
    let problems: Vec<_> =
        crates.iter().flat_map(|krate| rule.violations(krate)).map(|violation| violation.to_string()).collect();
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
fn comments_messages_and_documents_use_few_vague_forms() {
    let crates = workspace::crates();
    let mut problems = dialect::openings(&crates);
    problems.extend(Rates::of(&text::lines(&crates, &Document::below(Path::new("")))).problems());
    let advice = "use standard terms, nouns and active verbs: *send*, *report*, *store*, not *tell*, *know*, *forget*";
    assert!(problems.is_empty(), "{} problems: {advice}\n{}\n", problems.len(), problems.join("\n"));
}

#[test]
fn comments_messages_and_documents_are_spelt_in_british_english() {
    let lines = text::lines(&workspace::crates(), &Document::below(Path::new("")));
    assert!(lines.len() > 10_000, "only {} lines of text were found", lines.len());
    let mistakes = spelling::mistakes(&lines);
    assert!(mistakes.is_empty(), "{} mistakes:\n{}\n", mistakes.len(), mistakes.join("\n"));
}

#[test]
fn no_line_of_a_comment_is_too_wide() {
    check(Rule::WideComment);
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
fn published_crates_have_what_a_registry_asks_for_and_need_nothing_beside_them() {
    let problems = package::problems();
    assert!(problems.is_empty(), "{} problems:\n{}\n", problems.len(), problems.join("\n"));
}

#[test]
fn an_example_of_the_sdk_needs_no_second_build_of_what_cargo_build_has_built() {
    let twice = package::compiled_twice();
    assert!(
        twice.is_empty(),
        "other features, so that these and all above them are built twice:\n{}\n",
        twice.join("\n")
    );
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let documents = Document::below(Path::new(""));
    assert!(documents.len() > 50, "only {} documents were found", documents.len());
    let dead = dead_links(&documents);
    assert!(dead.is_empty(), "{} links lead nowhere:\n{}\n", dead.len(), dead.join("\n"));
}

#[test]
fn the_summary_of_the_book_lists_every_page_once() {
    let (summary, pages): (Vec<_>, Vec<_>) =
        Document::below(Path::new(BOOK)).into_iter().partition(|document| document.path.ends_with("SUMMARY.md"));
    let listed =
        summary.iter().flat_map(|summary| summary.links().into_iter().map(|(_, link)| resolve(&summary.path, &link)));
    let mut listed: Vec<_> = listed.collect();
    let mut pages: Vec<_> = pages.into_iter().map(|page| page.path).collect();
    listed.sort();
    pages.sort();
    assert_eq!(listed, pages);
}

#[test]
fn documents_for_everybody_can_be_read_in_one_sitting() {
    let documents = Document::below(Path::new(""));
    for (name, kib) in [("README.md", 8), ("ARCHITECTURE.md", 20), ("CHANGELOG.md", 8)] {
        let length = documents.iter().find(|document| document.path == Path::new(name)).unwrap().text.len();
        assert!(length <= kib * 1024, "{name} has {length} bytes, {kib} KiB are allowed: move something into the book");
    }
}

#[test]
fn every_source_file_that_a_document_about_the_inside_names_is_there() {
    let mut documents = Document::below(&Path::new(BOOK).join("inside"));
    documents.extend(
        Document::below(Path::new("")).into_iter().filter(|document| document.path.ends_with("ARCHITECTURE.md")),
    );
    let files: Vec<_> =
        workspace::members().iter().flat_map(|member| workspace::rust_files(Path::new(member))).collect();
    let gone = gone_files(&documents, &files);
    assert!(gone.is_empty(), "{} files are named and not there:\n{}\n", gone.len(), gone.join("\n"));
}

#[test]
fn every_document_with_rust_is_a_doc_test() {
    let doc_tests = include_str!("../../book.rs");
    let documents = Document::below(Path::new(""));
    let missing = documents.iter().filter(|document| {
        let is_ours = document.path.starts_with(BOOK) || document.path == Path::new("README.md");
        let line = format!("include_str!(\"../{}\")", document.path.display());
        is_ours && document.text.contains("\n```rust") && !doc_tests.contains(&line)
    });
    assert_eq!(missing.map(|document| &document.path).collect::<Vec<_>>(), [""; 0].map(Path::new));
}

#[test]
fn the_page_of_flags_is_what_clap_knows() {
    reference::check_generated("flags.md", &reference::flags());
}

#[test]
fn each_layer_stays_within_its_budget_of_lines() {
    let problems = budget::problems(&reference::read(Path::new("CONTRIBUTING.md")));
    assert!(problems.is_empty(), "{problems}");
}

#[test]
fn the_page_of_limits_is_what_flags_and_constants_say() {
    reference::check_generated("limits.md", &limit::limits());
}

#[test]
fn every_limit_has_a_row_in_the_table_of_resources() {
    let problems = resource::problems();
    assert!(problems.is_empty(), "{} problems in SECURITY.md:\n{}\n", problems.len(), problems.join("\n"));
}

#[test]
fn the_test_command_runs_every_test_program() {
    assert_eq!(test_list::listed(), test_list::existing());
}

#[test]
fn every_test_in_the_table_of_behaviours_exists() {
    let problems = behaviour::problems();
    assert!(problems.is_empty(), "{} problems in tests/README.md:\n{}\n", problems.len(), problems.join("\n"));
}

#[test]
fn the_page_of_causes_is_what_the_enum_has() {
    reference::check_generated("causes.md", &reference::causes());
}

#[test]
fn the_reference_of_conditions_is_that_of_the_code() {
    reference::check_generated("conditions.md", &reference::conditions());
}

#[test]
fn the_page_of_metrics_is_what_nodes_and_app_servers_declare() {
    reference::check_generated("metrics.md", &reference::metrics());
}

#[test]
fn the_page_of_the_admin_port_names_every_call() {
    assert_eq!(reference::named("admin.md", "/api/"), reference::admin_paths());
}

#[test]
fn the_page_of_the_manifest_names_every_field() {
    assert_eq!(reference::first_column("manifest.md"), reference::manifest_fields());
}

#[test]
fn the_table_of_hubs_names_every_setting_of_rust_and_of_webhooks() {
    let shown = reference::named("hub-settings.md", "");
    let missing: Vec<_> = reference::hub_functions()
        .into_iter()
        .chain(reference::webhook_keys())
        .filter(|name| !shown.contains(name))
        .collect();
    assert_eq!(missing, [""; 0], "not in hub-settings.md");
}

#[test]
fn figures_of_every_crate() {
    println!("{}", figure::table(&workspace::crates()));
}
