//! Headless Chromium, driven by WebDriver.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use crate::{PATIENCE, Process};

/// What a page is looked at with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    Desktop,
    Phone,
    /// A desktop that runs no scripts.
    Scriptless,
}

/// A browser window.
#[derive(Debug)]
pub struct Page {
    client: Client,
}

/// Opens a file in a browser and looks at it; whatever comes of that, the browser is closed.
///
/// # Errors
/// When there is no browser, and those of `look`.
pub fn look(file: &Path, screen: Screen, look: impl AsyncFnOnce(&Page) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut driver = Process::spawn(Command::new(xtask::browser::driver()?).arg("--port=0"))?;
        let started = driver.stdout_line(|line| line.contains("started successfully on port"), PATIENCE)?;
        let port = started.trim_end_matches('.').rsplit(' ').next().context("no port")?.to_owned();
        let profile = tempfile::tempdir()?;
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let Value::Object(capabilities) = capabilities(screen, profile.path()) else { unreachable!() };
        let client = builder.capabilities(capabilities).connect(&format!("http://127.0.0.1:{port}")).await?;
        let page = Page { client: client.clone() };
        let outcome = match client.goto(&format!("file://{}", file.display())).await {
            Ok(()) => look(&page).await,
            Err(error) => Err(error.into()),
        };
        let closed = client.close().await;
        outcome.and(closed.map_err(Into::into))
    })
}

fn capabilities(screen: Screen, profile: &Path) -> Value {
    let mut flags: Vec<String> = xtask::browser::FLAGS.map(str::to_owned).into();
    flags.push(format!("--user-data-dir={}", profile.display()));
    flags.push("--window-size=1200,1000".into());
    let mut options = json!({ "args": flags });
    match screen {
        Screen::Desktop => {}
        Screen::Phone => {
            let metrics = json!({ "width": 390, "height": 844, "pixelRatio": 2, "touch": true });
            options["mobileEmulation"] = json!({ "deviceMetrics": metrics });
        }
        // 2: refused.
        Screen::Scriptless => {
            options["prefs"] = json!({ "profile.managed_default_content_settings.javascript": 2 });
        }
    }
    // A question of the page stays open until the test answers it.
    json!({ "browserName": "chrome", "goog:chromeOptions": options, "unhandledPromptBehavior": "ignore" })
}

impl Page {
    /// The first element of this CSS selector, awaited.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn one(&self, css: &str) -> Result<Element> {
        self.awaited(Locator::Css(css), css).await
    }

    /// The first element of this XPath, awaited.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn path(&self, xpath: &str) -> Result<Element> {
        self.awaited(Locator::XPath(xpath), xpath).await
    }

    async fn awaited(&self, what: Locator<'_>, name: &str) -> Result<Element> {
        let found = self.client.wait().at_most(PATIENCE).for_element(what).await;
        found.with_context(|| format!("awaiting {name}"))
    }

    /// The elements of this CSS selector that are there now.
    ///
    /// # Errors
    /// When the browser is gone.
    pub async fn all(&self, css: &str) -> Result<Vec<Element>> {
        Ok(self.client.find_all(Locator::Css(css)).await?)
    }

    /// What a script returns.
    ///
    /// # Errors
    /// When it throws.
    pub async fn script(&self, script: &str) -> Result<Value> {
        Ok(self.client.execute(script, Vec::new()).await?)
    }

    /// Answers the question that the page has asked.
    ///
    /// # Errors
    /// When it has asked none.
    pub async fn answer(&self, text: &str) -> Result<()> {
        self.client.send_alert_text(text).await?;
        Ok(self.client.accept_alert().await?)
    }

    /// Checks that nothing is wider than the screen, and that nothing was fetched.
    ///
    /// # Errors
    /// When it is otherwise.
    pub async fn fits(&self) -> Result<()> {
        let widths = self.script("return [document.documentElement.scrollWidth, innerWidth]").await?;
        ensure!(widths[0].as_u64() <= widths[1].as_u64(), "wider than the screen: {widths}");
        let fetched = self.script("return performance.getEntriesByType('resource').length").await?;
        ensure!(fetched == 0, "{fetched} resources were fetched");
        Ok(())
    }
}
