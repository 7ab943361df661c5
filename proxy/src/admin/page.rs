//! A plain page of counters, for a first look without any tool.

use std::fmt::Write;

use axum::extract::State;
use axum::response::Html;

use super::Admin;

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
<meta http-equiv=refresh content=2><title>Trunkline</title><style>:root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;width:100%;margin:1rem 0}td,th{text-align:left;padding:.3rem .8rem;border-bottom:1px solid #8884}\
td:last-child,th:last-child{text-align:right;font-variant-numeric:tabular-nums}</style>";

/// The page; it loads itself anew every two seconds.
pub(super) async fn page(State(admin): State<Admin>) -> Html<String> {
    let shared = &admin.shared;
    let mut out = String::from(HEAD);
    let reasons = admin.reasons_not_ready();
    let state = if reasons.is_empty() { "ready".to_owned() } else { reasons.join("; ") };
    row(&mut out, format_args!("<h1>Node {}</h1><p>{}</p>", shared.settings.node, escaped(&state)));
    row(&mut out, format_args!("<table><tr><th>Hub<th>App server<th>Links open"));
    for hub in shared.hubs.all().iter() {
        for pool in hub.pools().iter() {
            let (app, open, size) = (escaped(&pool.app().name), pool.open(), pool.size());
            row(&mut out, format_args!("<tr><td>{}<td>{app}<td>{open} of {size}", escaped(hub.name())));
        }
    }
    row(&mut out, format_args!("</table><table><tr><th>Metric<th>Value"));
    let metrics = super::render(shared, reasons.is_empty()).unwrap_or_default();
    for (name, value) in metrics.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '))
    {
        row(&mut out, format_args!("<tr><td>{}<td>{}", escaped(name), escaped(value)));
    }
    out.push_str("</table>");
    Html(out)
}

/// Writing to a text can't fail.
fn row(out: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(line);
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
