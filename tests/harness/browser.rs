//! Pages in headless Chromium, operated like a person does: fill, click, read.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::process::Command;
use trunkline_protocol::manifest::Transport;

use crate::harness::client::CLIENTS_FOLDER;
use crate::harness::driver::Driver;
use crate::harness::scenario::Fixture;

/// Script of the official client, as loaded by pages.
pub const OFFICIAL_SCRIPT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/clients/js/node_modules/@microsoft/signalr/dist/browser/signalr.js");

/// Running headless browser, controlled by commands.
#[derive(Debug)]
pub struct Browser {
    driver: Arc<Driver>,
}

impl Browser {
    /// Starts a browser with a new profile.
    pub fn start(fixture: &Fixture) -> Result<Self> {
        Self::start_with(fixture, &[])
    }

    /// Starts a browser that connects to another address instead of `address`, both as `host:port`.
    pub fn start_redirected(fixture: &Fixture, address: &str, other: &str) -> Result<Self> {
        Self::start_with(fixture, &[format!("--host-resolver-rules=MAP {address} {other}")])
    }

    fn start_with(fixture: &Fixture, flags: &[String]) -> Result<Self> {
        let mut command = Command::new("node");
        command.arg(Path::new(CLIENTS_FOLDER).join("js/browser.mjs")).args(flags);
        Ok(Self { driver: Driver::start(fixture, "browser", command)? })
    }

    /// Opens a page with this name.
    pub async fn open(&self, name: &str, url: &str) -> Result<Page> {
        let page = Page { driver: Arc::clone(&self.driver), name: name.into() };
        page.command("open", json!({ "url": url })).await?;
        Ok(page)
    }

    /// Opens a page, and adds the official client to it.
    pub async fn open_with_client(&self, name: &str, url: &str) -> Result<Page> {
        let page = Page { driver: Arc::clone(&self.driver), name: name.into() };
        page.command("openWithClient", json!({ "url": url, "script": OFFICIAL_SCRIPT })).await?;
        Ok(page)
    }

    /// Closes the browser and waits for its end.
    pub async fn end(self) -> Result<()> {
        self.driver.end().await
    }
}

/// Page of the browser. Elements are identified by their ids.
#[derive(Debug)]
pub struct Page {
    driver: Arc<Driver>,
    name: String,
}

impl Page {
    /// Fills in a field.
    pub async fn fill(&self, element: &str, text: &str) -> Result<()> {
        self.command("fill", json!({ "element": element, "text": text })).await?;
        Ok(())
    }

    /// Clicks an element.
    ///
    /// # Errors
    /// If the element does not exist.
    pub async fn click(&self, element: &str) -> Result<()> {
        self.command("click", json!({ "element": element })).await?;
        Ok(())
    }

    /// Waits until the element shows this text.
    pub async fn see(&self, element: &str, text: &str) -> Result<()> {
        self.command("see", json!({ "element": element, "text": text })).await?;
        Ok(())
    }

    /// Text shown by the element.
    pub async fn text(&self, element: &str) -> Result<String> {
        let text = self.command("text", json!({ "element": element })).await?;
        Ok(text.as_str().context("a text")?.to_owned())
    }

    /// Number of elements with this tag in the element.
    pub async fn count(&self, element: &str, tag: &str) -> Result<u64> {
        let count = self.command("count", json!({ "element": element, "tag": tag })).await?;
        count.as_u64().context("a count")
    }

    /// Waits until `count` descendants of the element match a CSS selector.
    pub async fn see_count(&self, element: &str, selector: &str, count: usize) -> Result<()> {
        self.command("seeCount", json!({ "element": element, "selector": selector, "count": count })).await?;
        Ok(())
    }

    /// Attributes of all matching descendants; missing ones are empty.
    pub async fn attributes(&self, element: &str, selector: &str, names: &[&str]) -> Result<Vec<Vec<String>>> {
        let options = json!({ "element": element, "selector": selector, "names": names });
        let found: Vec<Vec<Option<String>>> = serde_json::from_value(self.command("attributes", options).await?)?;
        Ok(found.into_iter().map(|values| values.into_iter().map(Option::unwrap_or_default).collect()).collect())
    }

    /// Clicks the first matching descendant.
    pub async fn click_in(&self, element: &str, selector: &str) -> Result<()> {
        self.command("clickIn", json!({ "element": element, "selector": selector })).await?;
        Ok(())
    }

    /// Drags the pointer through positions in the element, given as fractions of its width and height.
    pub async fn drag(&self, element: &str, places: &[(f64, f64)]) -> Result<()> {
        self.command("drag", json!({ "element": element, "places": places })).await?;
        Ok(())
    }

    /// Focuses the first matching descendant.
    pub async fn focus_in(&self, element: &str, selector: &str) -> Result<()> {
        self.command("focusIn", json!({ "element": element, "selector": selector })).await?;
        Ok(())
    }

    /// Presses a key, by name.
    pub async fn press(&self, key: &str) -> Result<()> {
        self.command("press", json!({ "key": key })).await?;
        Ok(())
    }

    /// Accessible name of the focused element.
    pub async fn focused(&self) -> Result<String> {
        let name = self.command("focused", json!({})).await?;
        Ok(name.as_str().context("a text")?.to_owned())
    }

    /// Changes the size of the window.
    pub async fn resize(&self, (width, height): (u32, u32)) -> Result<()> {
        self.command("resize", json!({ "width": width, "height": height })).await?;
        Ok(())
    }

    /// Pixels by which the page is wider than its window.
    pub async fn overflow(&self) -> Result<i64> {
        let pixels = self.command("overflow", json!({})).await?;
        pixels.as_i64().context("a number")
    }

    /// Pixels of the widest matching element that are hidden until it is scrolled.
    pub async fn hidden_width(&self, selector: &str) -> Result<i64> {
        let pixels = self.command("hiddenWidth", json!({ "selector": selector })).await?;
        pixels.as_i64().context("a number")
    }

    /// Saves a screenshot in the `light` or `dark` colour scheme.
    pub async fn picture(&self, path: &Path, scheme: &str, size: (u32, u32)) -> Result<()> {
        let (width, height) = size;
        self.command("picture", json!({ "path": path, "scheme": scheme, "width": width, "height": height })).await?;
        Ok(())
    }

    /// Downloads numbered items of a length from a hub with the official client, first by a stream and then by sends.
    /// Returns the numbers of both, negative for parts of items.
    pub async fn download(&self, url: &str, transport: Transport, (items, length): (u64, usize)) -> Result<[Value; 2]> {
        let options = json!({ "url": url, "transport": transport.name(), "items": items, "length": length });
        let mut got = self.command("download", options).await?;
        Ok(["streamed", "sent"].map(|kind| got.get_mut(kind).map(Value::take).unwrap_or_default()))
    }

    /// Address of the page.
    pub async fn url(&self) -> Result<String> {
        let url = self.command("url", json!({})).await?;
        Ok(url.as_str().context("a text")?.to_owned())
    }

    /// Loads the page again.
    pub async fn reload(&self) -> Result<()> {
        self.command("reload", json!({})).await?;
        Ok(())
    }

    /// Closes the page.
    ///
    /// # Errors
    /// If it is gone.
    pub async fn close(self) -> Result<()> {
        self.command("close", json!({})).await?;
        Ok(())
    }

    async fn command(&self, op: &str, mut options: Value) -> Result<Value> {
        if let Some(options) = options.as_object_mut() {
            options.insert("page".into(), json!(self.name));
        }
        let reply = self.driver.command(op, options).await?;
        reply.map_err(anyhow::Error::msg).with_context(|| format!("{op} on page {}", self.name))
    }
}
