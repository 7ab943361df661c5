//! Entries of `[[routes]]`: conditions and one action.

use std::path::PathBuf;
use std::sync::Arc;

use http::StatusCode;

use super::condition_entry::conditions;
use super::group_entry::{KnownGroups, Labels};
use super::toml_value::{TomlTable, TomlValue, read_beyond};
use crate::ground::routing::rule::{OnDown, Rejection, RouteAction, RouteRule};
use crate::ground::routing::rule_error::{Fault, RuleProblem};

/// Maximum size of a page shown in place of a hub. It is kept in memory and sent to any client.
const PAGE_MAX_BYTES: usize = 64 * 1024;

/// Actions of a route in the file.
const ACTIONS: [&str; 3] = ["group", "reject", "next"];

pub(super) fn route(value: &TomlValue<'_>, labels: &mut Labels, groups: &mut KnownGroups) -> Result<RouteRule, Fault> {
    let mut table = TomlTable::new("a route", value)?;
    let label = labels.take(&mut table)?;
    let action = action(&mut table, groups)?;
    let on_down = on_down(&mut table, &action)?;
    // Makes canaries independent of each other, and of rules added before them.
    let salt = match &action {
        RouteAction::Group(group) => group,
        RouteAction::Reject(_) => "reject",
        RouteAction::Next => "next",
    };
    let conditions = conditions(&mut table, salt)?;
    table.finish()?;
    Ok(RouteRule { label, conditions, action, on_down, matches: Arc::default() })
}

fn action(table: &mut TomlTable<'_>, groups: &mut KnownGroups) -> Result<RouteAction, Fault> {
    let found: Vec<_> = ACTIONS.into_iter().filter_map(|key| table.take(key)).collect();
    let (text, page) = (table.take("text"), table.take("page"));
    let [value] = &*found else {
        let names: Vec<_> = found.iter().map(|value| value.key).collect();
        let found = if names.is_empty() { "none".to_owned() } else { names.join(" and ") };
        return Err(table.fault(RuleProblem::Action { found }));
    };
    if let Some(alone) = text.or(page).filter(|_| value.key != "reject") {
        return Err(alone.fault(RuleProblem::Alone { key: alone.key, needed: "reject" }));
    }
    match value.key {
        "group" => groups.serving(value).map(RouteAction::Group),
        "reject" => rejection(value, text, page).map(RouteAction::Reject),
        _ if value.truth()? => Ok(RouteAction::Next),
        _ => Err(value.fault(RuleProblem::Choice { key: "next", found: "false".into(), wanted: "true" })),
    }
}

fn on_down(table: &mut TomlTable<'_>, action: &RouteAction) -> Result<OnDown, Fault> {
    let Some(value) = table.take("on-down") else { return Ok(OnDown::default()) };
    if !matches!(action, RouteAction::Group(_)) {
        return Err(value.fault(RuleProblem::Alone { key: "on-down", needed: "group" }));
    }
    match value.text()? {
        "wait" => Ok(OnDown::Wait),
        "next" => Ok(OnDown::Next),
        other => Err(value.fault(RuleProblem::Choice {
            key: "on-down",
            found: other.into(),
            wanted: "\"wait\" or \"next\"",
        })),
    }
}

fn rejection(
    value: &TomlValue<'_>,
    text: Option<TomlValue<'_>>,
    page: Option<TomlValue<'_>>,
) -> Result<Rejection, Fault> {
    let number = value.number(400..=599)?;
    let status = u16::try_from(number).ok().and_then(|number| StatusCode::from_u16(number).ok());
    let status = status.unwrap_or(StatusCode::FORBIDDEN);
    let (body, content_type): (Arc<str>, _) = match (text, page) {
        (Some(_), Some(page)) => {
            return Err(page.fault(RuleProblem::Exclusive { key: "page", other: "text" }));
        }
        (None, Some(page)) => (read_page(&page)?.into(), "text/html; charset=utf-8"),
        (text, None) => {
            let usual = status.canonical_reason().unwrap_or("Refused");
            let text = text.map(|text| text.text()).transpose()?.unwrap_or(usual);
            (text.into(), "text/plain; charset=utf-8")
        }
    };
    Ok(Rejection { status, body, content_type })
}

fn read_page(value: &TomlValue<'_>) -> Result<String, Fault> {
    let path = PathBuf::from(value.text()?);
    let read = read_beyond(&path, PAGE_MAX_BYTES);
    let page = read.map_err(|source| value.fault(RuleProblem::File { key: "page", path, source }))?;
    match page.len() {
        bytes if bytes > PAGE_MAX_BYTES => {
            Err(value.fault(RuleProblem::NamedFileTooLarge { key: "page", most: PAGE_MAX_BYTES }))
        }
        _ => Ok(page),
    }
}
