//! Planted violations: every rule finds its violations, and accepts allowed code.

use crate::rule::Rule;
use crate::source::Crate;

const TABLE: &str = "#![forbid(unsafe_code)]\n//! A crate.\n//!\n//! | module | contents |\n//! |---|---|\n\
                     //! | `low` | the lowest |\n//! | [`middle`] | between |\n//! | [`mod@high`] | the highest |\n\
                     mod low;\nmod middle;\nmod high;\npub use high::Named;\nstruct AtRoot;\n";

/// Violations of a rule in a crate, as text.
fn found(rule: Rule, files: &[(&str, &str)]) -> Vec<String> {
    rule.violations(&Crate::planted(files)).iter().map(ToString::to_string).collect()
}

/// Violations of the order in a crate of three modules, the middle one with this text.
fn order(middle: &str) -> Vec<String> {
    let high = "pub struct Named; pub(crate) mod inner { pub struct Deep; }";
    found(Rule::Order, &[("lib.rs", TABLE), ("low.rs", "pub struct Low;"), ("middle.rs", middle), ("high.rs", high)])
}

#[test]
fn an_import_of_a_lower_module_is_allowed() {
    assert_eq!(order("use crate::low::Low; use super::low; fn f() { low::f(); crate::low::g(); }"), [""; 0]);
}

#[test]
fn an_import_of_a_higher_module_is_found_however_it_is_written() {
    for import in [
        "use crate::high::Named;",
        "use crate::{low::Low, high::{self as up}};",
        "use super::high::Named;",
        "use crate::Named;",
        "use super::Named as Other;",
        "use crate::high::*;",
        "fn f() { crate::high::f(); }",
        "fn f() -> super::high::inner::Deep { g() }",
        "macro_rules! m { () => { $crate::high::f() } }",
        "fn f() { println!(\"{}\", crate::high::f()); }",
        "#[cfg(test)] mod tests { use super::super::high::Named; }",
        "mod inside { fn f() { super::super::high::f() } }",
    ] {
        let found = order(&format!("{import} // end"));
        assert_eq!(found.len(), 1, "{import}: {found:?}");
        assert!(
            found.iter().all(|text| text.starts_with("middle.rs:1: imports") && text.contains("higher")),
            "{found:?}"
        );
    }
}

#[test]
fn an_import_of_what_the_root_declares_is_found() {
    let found = order("use crate::AtRoot;");
    assert_eq!(found, ["middle.rs:1: imports `crate::AtRoot` of the crate root"]);
}

#[test]
fn names_in_comments_and_strings_and_of_other_crates_are_no_imports() {
    let text = "// use crate::high::Named;\n/* crate::high */ const A: &str = \"crate::high::f\"; use high_up::high::X; use ::high::Y;";
    assert_eq!(order(text), [""; 0]);
}

#[test]
fn a_table_that_is_missing_or_wrong_is_found() {
    let modules = "mod a; mod b; mod c;";
    let all = [("a.rs", ""), ("b.rs", ""), ("c.rs", "")];
    let files = |root| [&[("lib.rs", root)][..], &all[..]].concat();
    assert_eq!(found(Rule::Order, &files(modules)), ["lib.rs:1: has no table of its modules"]);
    let table =
        format!("//! | module | contents |\n//! |---|---|\n//! | `a`, [`b`] | two |\n//! | `d` | none |\n{modules}");
    let expected = [
        "lib.rs:5: `c` is not in the table of modules",
        "lib.rs:1: `d` is in the table of modules, but there is no such module",
    ];
    assert_eq!(found(Rule::Order, &files(&table)), expected);
}

#[test]
fn a_layer_orders_its_modules_and_those_of_lower_layers() {
    let table = |rows: &[&str]| {
        let rows: String = rows.iter().map(|row| format!("//! | `{row}` | x |\n")).collect();
        let modules: String = rows.split('`').skip(1).step_by(2).map(|name| format!("mod {name};")).collect();
        format!("//! | module | contents |\n//! |---|---|\n{rows}{modules}")
    };
    let (root, engine, features) = (table(&["engine", "features"]), table(&["shard", "client"]), table(&["mirror"]));
    let found = |shard: &str| {
        let files = [
            ("lib.rs", &*root),
            ("engine.rs", &engine),
            ("features.rs", &features),
            ("engine/shard.rs", shard),
            ("engine/client.rs", "use super::shard::f;"),
            ("features/mirror.rs", "use crate::engine::client::g;"),
        ];
        found(Rule::Order, &files)
    };
    assert_eq!(found(""), [""; 0]);
    let sibling = ["engine/shard.rs:1: imports `crate::engine::client::g` of a higher module"];
    assert_eq!(found("use crate::engine::client::g; fn f() { g() }"), sibling);
    let feature = ["engine/shard.rs:1: imports `crate::features::mirror::g` of a higher module"];
    for shard in [
        "fn f() { crate::features::mirror::g() }",
        "#[cfg(test)] mod tests { fn f() { crate::features::mirror::g() } }",
    ] {
        assert_eq!(found(shard), feature, "{shard}");
    }
}

#[test]
fn a_circle_of_siblings_is_found_with_its_steps() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B;"),
        ("b.rs", "use super::c::C; pub struct B;"),
        ("c.rs", "pub struct C; fn f() { crate::a::g() }"),
    ];
    let expected = "a.rs:1: circle: a.rs:1 imports `crate::b::B` of b.rs, b.rs:1 imports `super::c::C` of c.rs, \
                    c.rs:1 imports `crate::a::g` of a.rs";
    assert_eq!(found(Rule::Cycle, &files), [expected]);
}

#[test]
fn a_circle_of_parent_and_child_is_found() {
    let files =
        [("lib.rs", "mod a;"), ("a.rs", "mod b; use b::B; struct A(B);"), ("a/b.rs", "use super::A; pub struct B(A);")];
    assert_eq!(found(Rule::Family, &files).len(), 1);
    assert_eq!(found(Rule::Cycle, &files), [""; 0], "a rule of its own is about families");
}

#[test]
fn a_circle_that_tests_close_is_found() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::B;"),
        ("b.rs", "pub struct B; #[cfg(test)] mod tests { use crate::a::f; }"),
    ];
    assert_eq!(found(Rule::Cycle, &files).len(), 1);
}

#[test]
fn declaring_and_handing_on_are_no_imports() {
    // The parent re-exports `B`, and `c` imports it from the parent: an import of `b` by `c`.
    let files = [
        ("lib.rs", "mod a; pub use a::B;"),
        ("a.rs", "mod b; mod c; pub use b::{A, B}; use b::*;"),
        ("a/b.rs", "pub struct A; pub struct B;"),
        ("a/c.rs", "use super::A; use crate::B; fn f(a: A, b: B) {}"),
    ];
    assert_eq!(found(Rule::Family, &files), [""; 0]);
}

#[test]
fn handing_on_a_name_that_the_parent_mentions_is_an_import() {
    let files = [
        ("lib.rs", "mod a;"),
        ("a.rs", "mod b; pub use b::B; pub struct A(B);"),
        ("a/b.rs", "pub struct B(super::A);"),
    ];
    assert_eq!(found(Rule::Family, &files).len(), 1);
}

#[test]
fn a_type_name_that_is_declared_twice_is_found() {
    let root = "mod a; struct S; trait T { type S; } enum E {} union U { a: u8 }";
    let twice = |text| found(Rule::TypeName, &[("lib.rs", root), ("a.rs", text)]).len();
    for text in ["struct S;", "enum S {}", "union S { a: u8 }", "trait S {}", "type S = u8;", "m! { struct S; }"] {
        assert_eq!(twice(text), 1, "{text}");
    }
    for text in [
        "struct Other;",
        "impl X for Y { type S = u8; }",
        "fn S() {}",
        "#[cfg(test)] mod tests { struct S; }",
        "// struct S;",
    ] {
        assert_eq!(twice(text), 0, "{text}");
    }
}

#[test]
fn a_file_name_that_occurs_twice_is_found() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "mod b; #[cfg(test)] mod tests;"),
        ("b.rs", "#[cfg(test)] mod tests;"),
        ("a/b.rs", ""),
        ("a/tests.rs", ""),
        ("b/tests.rs", ""),
    ];
    let found = found(Rule::FileName, &files);
    assert_eq!(found, ["b.rs:1: the file name is taken: a/b.rs"]);
}

#[test]
fn a_doc_comment_of_three_words_is_found() {
    for (text, count) in [
        ("/// What is wrong.\nstruct A;", 1),
        ("/// See [`B`] — `c`.\nstruct A;", 1),
        ("struct A { /// The id.\n a: u8, /// The second\n/// part of it.\n b: u8 }", 1),
        ("//! Four words are enough.\nstruct A;", 0),
        ("// A comment.\n//// A rule.\nconst A: &str = \"/// one\";", 0),
        ("m! { /// Two words.\n a }", 1),
    ] {
        assert_eq!(found(Rule::ShortDoc, &[("lib.rs", text)]).len(), count, "{text}");
    }
}

#[test]
fn a_line_of_a_comment_beyond_120_columns_is_found() {
    let (fits, wide) = ("a ".repeat(58), "a ".repeat(60));
    for (text, count) in [
        (format!("/// {fits}\nstruct A;"), 0),
        (format!("/// {wide}\nstruct A;"), 1),
        (format!("mod tests {{\n    // {fits}aaa\n    //! {wide}\n}}"), 2),
        (format!("/// | {wide} |\n/// ```text\n/// {wide}\n/// ```\nstruct A;"), 0),
        (format!("/// ```\n/// b\n/// ```\n/// {wide}\nstruct A;"), 1),
        (format!("// https://example.com/{}\nstruct A;", "a".repeat(120)), 0),
    ] {
        assert_eq!(found(Rule::WideComment, &[("lib.rs", &text)]).len(), count, "{text}");
    }
}

#[test]
fn a_sleep_in_a_test_needs_a_reason() {
    for (text, count) in [
        ("#[cfg(test)] mod tests { fn a() { tokio::time::sleep(x).await } }", 1),
        ("#[cfg(test)]\nmod tests {\n// sleep: the system's clock has no fence\nfn a() { std::thread::sleep(x) } }", 0),
        ("#[cfg(test)]\nmod tests {\n// sleep:\nfn a() { sleep(x) } }", 1),
        ("fn a() { sleep(x) }", 0),
        ("#[cfg(not(test))] mod tests { fn a() { sleep(x) } }", 0),
        ("#[cfg(test)] mod tests { fn a() { let sleep = 1; } }", 0),
    ] {
        assert_eq!(found(Rule::Sleep, &[("lib.rs", text)]).len(), count, "{text}");
    }
}

#[test]
fn a_root_that_allows_unsafe_code_is_found() {
    let found = |text| found(Rule::Unsafe, &[("lib.rs", text)]).len();
    assert_eq!(found("#![forbid(unsafe_code)]\nmod_free!();"), 0);
    assert_eq!(found("#![deny(unsafe_code)]"), 1);
    assert_eq!(found("// #![forbid(unsafe_code)]"), 1);
}
