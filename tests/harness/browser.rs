//! Pages in headless Chromium, driven by what a person does: fill, click, read.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::client::CLIENTS_FOLDER;
use crate::harness::driver::Driver;
use crate::harness::scenario::Stage;

/// Script of the official client, as pages load it.
pub const OFFICIAL_SCRIPT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/clients/js/node_modules/@microsoft/signalr/dist/browser/signalr.js");

/// A running browser without a window.
#[derive(Debug)]
pub struct Browser {
    driver: Arc<Driver>,
}

impl Browser {
    /// Starts it, with a fresh profile.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(stage: &Stage) -> Result<Self> {
        let mut command = Command::new("node");
        command.arg(Path::new(CLIENTS_FOLDER).join("js/browser.mjs"));
        Ok(Self { driver: Driver::start(stage, "browser", command)? })
    }

    /// Opens a page of this name.
    ///
    /// # Errors
    /// When the page does not load.
    pub async fn open(&self, name: &str, url: &str) -> Result<Page> {
        let page = Page { driver: Arc::clone(&self.driver), name: name.into() };
        page.command("open", json!({ "url": url })).await?;
        Ok(page)
    }

    /// Ends the browser and waits for it.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn end(self) -> Result<()> {
        self.driver.end().await
    }
}

/// Page of the browser. Elements are named by their ids.
#[derive(Debug)]
pub struct Page {
    driver: Arc<Driver>,
    name: String,
}

impl Page {
    /// Writes into a field.
    ///
    /// # Errors
    /// When there is no such field.
    pub async fn fill(&self, element: &str, text: &str) -> Result<()> {
        self.command("fill", json!({ "element": element, "text": text })).await?;
        Ok(())
    }

    /// Clicks.
    ///
    /// # Errors
    /// When there is no such element.
    pub async fn click(&self, element: &str) -> Result<()> {
        self.command("click", json!({ "element": element })).await?;
        Ok(())
    }

    /// Waits until the element shows this text.
    ///
    /// # Errors
    /// When the page goes away.
    pub async fn see(&self, element: &str, text: &str) -> Result<()> {
        self.command("see", json!({ "element": element, "text": text })).await?;
        Ok(())
    }

    /// The text that the element shows.
    ///
    /// # Errors
    /// When there is no such element.
    pub async fn text(&self, element: &str) -> Result<String> {
        let text = self.command("text", json!({ "element": element })).await?;
        Ok(text.as_str().context("a text")?.to_owned())
    }

    /// Number of elements of this tag within the element.
    ///
    /// # Errors
    /// When there is no such element.
    pub async fn count(&self, element: &str, tag: &str) -> Result<u64> {
        let count = self.command("count", json!({ "element": element, "tag": tag })).await?;
        count.as_u64().context("a count")
    }

    /// Waits until so many elements below the element match a CSS selector.
    ///
    /// # Errors
    /// When the page goes away.
    pub async fn see_count(&self, element: &str, selector: &str, count: usize) -> Result<()> {
        self.command("seeCount", json!({ "element": element, "selector": selector, "count": count })).await?;
        Ok(())
    }

    /// These attributes of all elements below the element that match; none is an empty text.
    ///
    /// # Errors
    /// When there is no such element.
    pub async fn attributes(&self, element: &str, selector: &str, names: &[&str]) -> Result<Vec<Vec<String>>> {
        let options = json!({ "element": element, "selector": selector, "names": names });
        let found: Vec<Vec<Option<String>>> = serde_json::from_value(self.command("attributes", options).await?)?;
        Ok(found.into_iter().map(|values| values.into_iter().map(Option::unwrap_or_default).collect()).collect())
    }

    /// Clicks the first element below the element that matches.
    ///
    /// # Errors
    /// When there is none.
    pub async fn click_in(&self, element: &str, selector: &str) -> Result<()> {
        self.command("clickIn", json!({ "element": element, "selector": selector })).await?;
        Ok(())
    }

    /// Presses the pointer at the first place within the element, moves it over the others, and lets it go. Places are
    /// parts of its width and height.
    ///
    /// # Errors
    /// When there is no such element.
    pub async fn drag(&self, element: &str, places: &[(f64, f64)]) -> Result<()> {
        self.command("drag", json!({ "element": element, "places": places })).await?;
        Ok(())
    }

    /// Puts the keyboard at the first element below the element that matches.
    ///
    /// # Errors
    /// When there is none.
    pub async fn focus_in(&self, element: &str, selector: &str) -> Result<()> {
        self.command("focusIn", json!({ "element": element, "selector": selector })).await?;
        Ok(())
    }

    /// Presses a key, by its name.
    ///
    /// # Errors
    /// When the page is gone.
    pub async fn press(&self, key: &str) -> Result<()> {
        self.command("press", json!({ "key": key })).await?;
        Ok(())
    }

    /// The name of what the keyboard is at, as it is read aloud.
    ///
    /// # Errors
    /// When the page is gone.
    pub async fn focused(&self) -> Result<String> {
        let name = self.command("focused", json!({})).await?;
        Ok(name.as_str().context("a text")?.to_owned())
    }

    /// Takes a picture of what is seen, `light` or `dark`.
    ///
    /// # Errors
    /// When it can't be written.
    pub async fn picture(&self, path: &Path, scheme: &str, size: (u32, u32)) -> Result<()> {
        let (width, height) = size;
        self.command("picture", json!({ "path": path, "scheme": scheme, "width": width, "height": height })).await?;
        Ok(())
    }

    /// Closes the page.
    ///
    /// # Errors
    /// When it is gone.
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
