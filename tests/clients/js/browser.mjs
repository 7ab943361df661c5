// Drives pages in headless Chromium for the end-to-end tests. Elements are identified by their ids. Arguments are further
// flags of the browser.

import { chromium } from "playwright-core";
import { serve } from "./lines.mjs";

// Two of these are shorter than a test's time limit, so that the log names the browser as the cause.
const LAUNCH_TIMEOUT_MS = 240_000;

// No sandbox, because tests may run as root in a container, and no background network traffic.
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

// Without a first window, because a persistent context waits up to three minutes for it.
const launch = () =>
  chromium.launch({
    executablePath: process.env.TRUNKLINE_CHROMIUM ?? "/usr/bin/chromium",
    args: [...FLAGS, ...process.argv.slice(2)],
    timeout: LAUNCH_TIMEOUT_MS,
  });

// A browser that does not start is not the product's fault, and a second attempt mostly works.
const browser = await launch().catch((error) => {
  console.error(`starting the browser again: ${error.message}`);
  return launch();
});
// Browsers don't trust the tests' certificate authority.
const context = await browser.newContext({ ignoreHTTPSErrors: true });
// The time limit of the scenario applies.
context.setDefaultTimeout(0);
const pages = new Map();

async function newPage(name) {
  const page = await context.newPage();
  page.on("console", (message) => console.error(`${name}: ${message.text()}`));
  page.on("pageerror", (error) => console.error(`${name}: ${error.stack}`));
  pages.set(name, page);
  return page;
}

async function open({ page: name, url }) {
  await (await newPage(name)).goto(url);
}

// Opens a page, and adds the official client to it.
async function openWithClient({ page: name, url, script }) {
  const page = await newPage(name);
  await page.goto(url);
  await page.addScriptTag({ path: script });
}

// Downloads numbered items, first by a stream and then by sends. Returns the numbers of the whole items of both.
const download = ({ page, ...options }) =>
  pages.get(page).evaluate(async ({ url, transport, items, length }) => {
    const over = { transport: signalR.HttpTransportType[transport] };
    const connection = new signalR.HubConnectionBuilder().withUrl(url, over).build();
    const [streamed, sent] = [[], []];
    const note = (numbers) => ([number, text]) => numbers.push(text.length === length ? number : -number);
    connection.on("Announced", note(sent));
    await connection.start();
    await new Promise((complete, error) => {
      connection.stream("CountPadded", items, length).subscribe({ next: note(streamed), complete, error });
    });
    await connection.invoke("SendPadded", items, length);
    await connection.stop();
    return { streamed, sent };
  }, options);

const exactly = (text) => new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
const element = ({ page, element }) => pages.get(page).locator(`#${element}`);
const within = (at) => element(at).locator(at.selector);

// Attributes of all matching descendants, each as a list of values.
const attributes = (at) =>
  within(at).evaluateAll((found, names) => found.map((one) => names.map((name) => one.getAttribute(name))), at.names);

// Waits until this many descendants match.
async function seeCount({ page, element, selector, count }) {
  const matching = ([id, selector, count]) => document.getElementById(id)?.querySelectorAll(selector).length === count;
  await pages.get(page).waitForFunction(matching, [element, selector, count]);
}

// Accessible name of the focused element, otherwise its text.
const focused = ({ page }) =>
  pages.get(page).evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.innerText);

// Drags the pointer from the first place over the others.
async function drag({ page: name, element: id, places }) {
  const { mouse } = pages.get(name);
  const box = await element({ page: name, element: id }).boundingBox();
  const move = ([x, y]) => mouse.move(box.x + x * box.width, box.y + y * box.height, { steps: 4 });
  await move(places[0]);
  await mouse.down();
  for (const place of places.slice(1)) await move(place);
  await mouse.up();
}

const resize = ({ page, width, height }) => pages.get(page).setViewportSize({ width, height });

// Pixels by which the page is wider than its window.
const overflow = ({ page }) => pages.get(page).evaluate(() => document.documentElement.scrollWidth - window.innerWidth);

// Pixels of the widest matching element that are hidden until it is scrolled.
const hiddenWidth = ({ page, selector }) =>
  pages.get(page).evaluate((selector) => Math.max(...[...document.querySelectorAll(selector)].map((one) => one.scrollWidth - one.clientWidth)), selector);

async function picture({ page: name, path, scheme, width, height }) {
  const page = pages.get(name);
  await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
  await page.setViewportSize({ width, height });
  await page.screenshot({ path });
}

serve(
  {
    open,
    openWithClient,
    download,
    fill: (at) => element(at).fill(at.text),
    click: (at) => element(at).click(),
    text: (at) => element(at).innerText(),
    count: (at) => element(at).locator(at.tag).count(),
    // Waits until the element contains the text. A pattern is case-sensitive, unlike a string.
    see: (at) => element(at).filter({ hasText: exactly(at.text) }).waitFor({ state: "attached" }),
    seeCount,
    attributes,
    focused,
    drag,
    resize,
    overflow,
    hiddenWidth,
    picture,
    clickIn: (at) => within(at).first().click(),
    focusIn: (at) => within(at).first().focus(),
    press: ({ page, key }) => pages.get(page).keyboard.press(key),
    url: ({ page }) => pages.get(page).url(),
    reload: ({ page }) => pages.get(page).reload().then(() => null),
    close: ({ page }) => pages.get(page).close(),
  },
  () => browser.close(),
);
