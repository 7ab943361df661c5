//! A feature-rich app, behind a node and on Kestrel: its client must see the same, apart from the differences that the
//! book lists.
//!
//! The client prints a row per feature. Rows are split into facts, and each fact that differs must be in the book's
//! table; each row of the table must be needed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::Value as Json;
use trunkline_tests::harness::dotnet::{DotNet, run_dotnet_11_test};
use trunkline_tests::harness::scenario::{Fixture, until};

use crate::dial_in::{DialIn, NODE};

/// Page with the table.
const PAGE: &str = include_str!("../../docs/book/src/aspnetcore.md");

/// Heading above the table.
const HEADING: &str = "### Compared with Kestrel";

/// Wildcard in the table.
const ANY: &str = "…";

/// Client runs that are executed concurrently. None reads the row `token expires`, which takes 25 s and shows only what
/// the two rows with this prefix show.
const RUNS: [Run; 10] = [
    ("basics", "", "11.0.0.0 lp newton"),
    ("features", "", "keyed and implicit services"),
    ("features", "receive size", "receive size lp 3000000"),
    ("features", "result size", "result size 20000000"),
    ("features", "invoke cancelled", "invoke cancelled by the client, CancellationToken parameter"),
    ("features", "upload faster", "upload faster than the hub reads (StreamBufferCapacity)"),
    ("features", "echo while", "echo while a stream runs"),
    ("features", "token expires sse", "token expires sse"),
    ("features", "token expires lp", "token expires lp"),
    ("features", "large jwt", "large jwt"),
];

/// Rows that need a user id provider.
const USER_RUNS: [Run; 2] =
    [("features", "send to user", "send to user"), ("features", "user id provider", "user id provider (email)")];

/// Rows and facts that are excluded. Some are a race on Kestrel: the response to an upload that is too large against
/// the end of the connection, or a call of a polling client against its next poll. Others differ behind every service:
/// the server connections of a hub mapped at two paths.
const RACES: [&str; 6] = [
    "receive size sse 1100000",
    "receive size sse 3000000",
    "receive size lp 1100000",
    "receive size lp 3000000",
    "whoami sameUser",
    "whoami endpoint",
];

/// Length of a connection id.
const ID_CHARS: usize = 22;

const HUBS: usize = 5;

/// Section of the client, prefix of row names, and last row to read.
type Run = (&'static str, &'static str, &'static str);

/// Row names with their values.
type Rows = Vec<(String, String)>;

/// Both values of each fact, by row name and place in the row; for rows that show a whole context, the row name
/// includes the fact's name.
type FactPairs = BTreeMap<(String, String), (String, String)>;

/// Starts the app behind a node and on Kestrel, runs the client, and returns the node's rows and Kestrel's.
async fn rows(fixture: &Fixture, dotnet: &DotNet, arguments: &[(&str, &str)], runs: &[Run]) -> Result<[Rows; 2]> {
    let dial_in = DialIn::open(fixture).await?;
    let (mut behind, mut alone) = (dotnet.field_app(fixture, "azure"), dotnet.field_app(fixture, "alone"));
    behind = behind.connection(&dial_in.connection_string());
    for (name, value) in arguments {
        behind = behind.argument(name, value);
        alone = alone.argument(name, value);
    }
    let (behind, alone) = tokio::try_join!(behind.start(), alone.start())?;
    let linked = async || {
        let metrics = dial_in.node.metrics().await?;
        Ok((metrics.distinct("trunkline_links", "hub", &[("state", "open")]) >= HUBS).then_some(()))
    };
    until(linked).await?;
    let addresses = [dial_in.address(), behind.address(), alone.address()];
    let (behind, alone) = (behind.url(""), alone.url(""));
    tokio::try_join!(
        rows_of(fixture, dotnet, ("N", &behind), runs, addresses),
        rows_of(fixture, dotnet, ("K", &alone), runs, addresses)
    )
    .map(<[Rows; 2]>::from)
}

/// All rows of a client of one app, without addresses.
async fn rows_of(
    fixture: &Fixture,
    dotnet: &DotNet,
    (side, app): (&str, &str),
    runs: &[Run],
    addresses: [&str; 3],
) -> Result<Rows> {
    let run = |&(section, filter, last): &Run| async move {
        let arguments = [section, side, filter];
        let arguments = if filter.is_empty() { &arguments[..2] } else { &arguments[..] };
        dotnet.field_rows(fixture, app, arguments, last).await
    };
    let mut rows = try_join_all(runs.iter().map(run)).await?.concat();
    for (_, value) in &mut rows {
        for address in addresses {
            *value = value.replace(address, "ADDRESS");
        }
    }
    Ok(rows)
}

/// Facts of a row by name.
fn facts(name: &str, value: &str) -> Result<BTreeMap<(String, String), String>> {
    let (text, context) = match value.find("{\"id\"") {
        Some(at) => (&value[..at], Some(serde_json::from_str::<Json>(&value[at..])?)),
        None => (value, None),
    };
    let parts = text.split(" | ").flat_map(|part| part.split("; ")).map(str::trim).filter(|part| !part.is_empty());
    let mut all: BTreeMap<(String, String), String> =
        parts.enumerate().map(|(place, part)| ((name.to_owned(), format!("part {place}")), settled(part))).collect();
    let context = context.as_ref().and_then(Json::as_object);
    for (member, value) in context.into_iter().flatten() {
        for (fact, value) in context_facts(member, value) {
            let seen = all.entry((format!("whoami {fact}"), name.to_owned())).or_default();
            *seen = if seen.is_empty() { value } else { format!("{seen}, {value}") };
        }
    }
    Ok(all)
}

/// Facts of a member of the hub's context: headers, claims and parameters separately.
fn context_facts(member: &str, value: &Json) -> Vec<(String, String)> {
    let texts = || value.as_array().into_iter().flatten().filter_map(Json::as_str);
    let pair = |(name, value): (&str, &str), of: &str| (format!("{of} {name}"), settled(value));
    match (member, value) {
        ("headers", _) => texts()
            .filter_map(|header| header.split_once(": "))
            .map(|(name, value)| pair((&name.to_lowercase(), value), "header"))
            .collect(),
        ("claims", _) => texts().filter_map(|claim| claim.split_once('=')).map(|claim| pair(claim, "claim")).collect(),
        ("query", Json::String(query)) => {
            let query = query.trim_start_matches('?').split('&');
            query.filter_map(|one| one.split_once('=')).map(|one| pair(one, "query")).collect()
        }
        (_, Json::String(text)) => vec![(member.into(), settled(text))],
        (_, Json::Null) => vec![(member.into(), String::new())],
        (_, Json::Number(number)) if number.as_u64() == Some(0) => vec![(member.into(), String::new())],
        _ => vec![(member.into(), value.to_string())],
    }
}

/// Removes ids, times and counts that differ between runs.
fn settled(text: &str) -> String {
    let is_id =
        |word: &str| word.len() == ID_CHARS && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    let is_time = |word: &str| {
        let digits = word.chars().filter(char::is_ascii_digit).count();
        let is_mark = |c: char| c == '.' || c == ':';
        digits > 0 && word.contains(is_mark) && word.chars().all(|c| c.is_ascii_digit() || is_mark(c))
    };
    let words: Vec<&str> = text.split(' ').collect();
    let word = |(at, word): (usize, &&str)| {
        let bare = word.trim_matches(['\'', ';', ',', '.']);
        if is_id(bare) {
            word.replace(bare, "ID")
        } else if is_time(bare) {
            word.replace(bare, "T")
        } else if words.get(at + 1) == Some(&"items") {
            "N".into()
        } else {
            (*word).to_owned()
        }
    };
    words.iter().enumerate().map(word).collect::<Vec<_>>().join(" ").replace(NODE, "NODE")
}

/// All facts with both values: Kestrel's, then the node's.
fn both(behind: &Rows, alone: &Rows) -> Result<FactPairs> {
    let names = |rows: &Rows| rows.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>();
    ensure!(names(behind) == names(alone), "{:?} at the node, {:?} on Kestrel", names(behind), names(alone));
    let mut all = FactPairs::new();
    for (rows, is_node) in [(alone, false), (behind, true)] {
        for (name, value) in rows.iter().filter(|(name, _)| !RACES.contains(&name.as_str())) {
            for (fact, value) in facts(name, value)?.into_iter().filter(|(fact, _)| !RACES.contains(&fact.0.as_str())) {
                let pair = all.entry(fact).or_default();
                *(if is_node { &mut pair.1 } else { &mut pair.0 }) = value;
            }
        }
    }
    Ok(all)
}

/// Row of the book's table.
#[derive(Debug)]
struct Known {
    rows: Vec<String>,
    kestrel: String,
    node: String,
}

impl Known {
    /// Whether it describes exactly this difference.
    fn explains(&self, kestrel: &str, node: &str) -> bool {
        match (self.kestrel.as_str(), self.node.as_str()) {
            (ANY, "") => node.is_empty(),
            ("", ANY) => kestrel.is_empty(),
            (ANY, ANY) => true,
            (here, there) => kestrel.contains(here) && kestrel.replacen(here, there, 1) == node,
        }
    }
}

/// Table of the book: rows, values on Kestrel, values behind a node, reasons.
fn table() -> Result<Vec<Known>> {
    let (_, below) = PAGE.split_once(HEADING).context("the heading is not there")?;
    let lines = below.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let mut all = Vec::new();
    for line in lines.skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let [rows, kestrel, node, reason] = cells.as_slice() else { anyhow::bail!("four cells are due: {line}") };
        ensure!(!reason.trim().is_empty(), "a reason is due: {line}");
        let code = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let one = |cell: &str| if cell.trim() == ANY { ANY.to_owned() } else { code(cell).concat() };
        all.push(Known { rows: code(rows), kestrel: one(kestrel), node: one(node) });
    }
    ensure!(!all.is_empty(), "the table is not there");
    Ok(all)
}

/// Asserts that the table lists each fact that differs, and that each of its rows is needed.
fn compare(facts: &FactPairs, table: &[Known]) -> Result<usize> {
    let mut used = BTreeSet::new();
    let mut unknown = Vec::new();
    for ((row, place), (kestrel, node)) in facts.iter().filter(|(_, (kestrel, node))| kestrel != node) {
        let mut named = table.iter().flat_map(|known| known.rows.iter().map(move |name| (name, known)));
        let is_of = |name: &str| row.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        match named.find(|(name, known)| is_of(name) && known.explains(kestrel, node)) {
            Some((name, known)) => {
                used.insert((name.as_str(), std::ptr::from_ref(known)));
            }
            None => unknown.push(format!("`{row}` ({place})\n  Kestrel: {kestrel}\n  node:    {node}")),
        }
    }
    let all = table.iter().flat_map(|known| known.rows.iter().map(move |name| (name, known)));
    let needless: Vec<_> =
        all.filter(|(name, known)| !used.contains(&(name.as_str(), std::ptr::from_ref(*known)))).collect();
    ensure!(
        unknown.is_empty() && needless.is_empty(),
        "{} facts differ without a row below {HEADING:?}:\n{}\n{} rows there are not needed any more: {needless:#?}",
        unknown.len(),
        unknown.join("\n"),
        needless.len(),
    );
    Ok(used.len())
}

#[test]
fn an_app_behind_a_node_differs_from_one_on_kestrel_in_what_the_book_names_alone() {
    run_dotnet_11_test(async |fixture, dotnet| {
        let [behind, alone] = rows(fixture, dotnet, &[], &RUNS).await?;
        let broken: Vec<_> = behind.iter().filter(|(_, value)| value.starts_with("PROBLEMS")).collect();
        ensure!(broken.is_empty(), "{broken:?}");
        let facts = both(&behind, &alone)?;
        let differences = compare(&facts, &table()?)?;
        eprintln!("{} rows, {} facts, {differences} known differences", behind.len(), facts.len());
        ensure!(behind.len() >= 50 && facts.len() >= 200, "only {} rows, {} facts", behind.len(), facts.len());
        Ok(())
    });
}

#[test]
fn a_provider_of_user_ids_counts_behind_a_node_as_on_kestrel() {
    run_dotnet_11_test(async |fixture, dotnet| {
        let [behind, alone] = rows(fixture, dotnet, &[("--userid", "true")], &USER_RUNS).await?;
        let facts = both(&behind, &alone)?;
        ensure!(behind.len() == USER_RUNS.len(), "{behind:?}");
        ensure!(facts.values().all(|(kestrel, node)| kestrel == node), "{facts:#?}");
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts_of(kestrel: &str, node: &str) -> FactPairs {
        let row = |value: &str| vec![("row".to_owned(), value.to_owned())];
        both(&row(node), &row(kestrel)).unwrap()
    }

    fn known(kestrel: &str, node: &str) -> Vec<Known> {
        vec![Known { rows: vec!["row".into()], kestrel: kestrel.into(), node: node.into() }]
    }

    #[test]
    fn a_difference_has_to_be_in_the_table_and_a_row_of_the_table_has_to_differ() {
        let differ = facts_of("= 1; IOException: gone", "= 1; HubException: gone");
        assert_eq!(compare(&differ, &known("IOException", "HubException")).unwrap(), 1);
        for wrong in [known("IOException", "Exception"), known("", ANY), Vec::new()] {
            assert!(compare(&differ, &wrong).is_err());
        }
        let same = facts_of("= 1 after 0.5 s; x", "= 1 after 0.7 s; x");
        assert_eq!(compare(&same, &[]).unwrap(), 0);
        assert!(compare(&same, &known("IOException", "HubException")).is_err());
    }

    #[test]
    fn contexts_are_compared_by_their_members() {
        let context = |method: &str, header: &str| {
            format!("= ok; {{\"id\":\"aaaaaaaaaaaaaaaaaaaaaa\",\"method\":\"{method}\",\"headers\":[\"{header}: x\"]}}")
        };
        let facts = facts_of(&context("GET", "Upgrade"), &context("", "x-mine"));
        let differ: Vec<_> = facts.iter().filter(|(_, (one, other))| one != other).map(|((row, _), _)| row).collect();
        assert_eq!(differ, ["whoami header upgrade", "whoami header x-mine", "whoami method"]);
    }
}
