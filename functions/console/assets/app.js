"use strict";

// Relative times, live refresh, keyboard, and small comforts. Every page works without this file.

const MIN_POLL_MS = 2_000; // while the run changes
const MAX_POLL_MS = 15_000; // while nothing changes: a gate may be pending for days
const CALM_POLL_MS = 60_000; // after the end: only a retry changes anything
const MAX_RETRY_MS = 30_000; // while the server cannot be reached
const UNITS = [["day", 86_400], ["hour", 3_600], ["minute", 60], ["second", 1]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

document.documentElement.classList.add("has-script");

// "3 minutes ago"; with data-as="elapsed" "3 min 12 s", which grows; with "left" "in 23 hours".
function words(time, then) {
  const seconds = Math.round((then - Date.now()) / 1_000);
  if (time.dataset.as === "elapsed") return elapsed(-seconds);
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? UNITS.at(-1);
  return relative.format(Math.trunc(seconds / size), unit);
}

function elapsed(seconds) {
  const s = Math.max(0, seconds), m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
  if (m < 1) return `${s} s`;
  if (h < 1) return `${m} min ${s % 60} s`;
  return d < 1 ? `${h} h ${m % 60} min` : `${d} d ${h % 24} h`;
}

function localise() {
  for (const time of all("time[datetime]")) {
    const then = new Date(time.dateTime);
    if (Number.isNaN(then.getTime())) continue;
    time.title = `${then.toLocaleString()} (${time.dateTime})`;
    if (time.dataset.as === "clock") continue;
    const text = words(time, then);
    if (time.textContent !== text) time.textContent = text;
  }
}

// Live refresh: the regions of the fragment replace those of the page, one by one.

function replace(old, fresh) {
  const active = old.contains(document.activeElement) ? document.activeElement : null;
  const typed = all("input:not([type=hidden]), textarea", old).filter((field) => field.value !== "" || field === active);
  const opened = all("details[open][id]", old).map((details) => details.id);
  const scrolled = all(".graph", old).map((graph) => graph.scrollLeft);
  const here = old.querySelector(".here a[id]")?.id;
  const selection = active && "selectionStart" in active ? [active.selectionStart, active.selectionEnd] : null;
  old.replaceWith(fresh);
  remember(fresh);
  all(".graph", fresh).forEach((graph, at) => { graph.scrollLeft = scrolled[at] ?? 0; });
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  for (const field of typed) {
    const replacement = document.getElementById(field.id);
    if (replacement) replacement.value = field.value;
    else if (field.matches("textarea")) keep(fresh, field.value);
  }
  if (here) document.getElementById(here)?.closest("[data-row]")?.classList.add("here");
  const replacement = active?.id ? document.getElementById(active.id) : null;
  replacement?.focus({ preventScroll: true });
  if (replacement && selection) replacement.setSelectionRange(...selection);
}

// A form that is gone leaves what somebody wrote into it.
function keep(region, text) {
  const [title, quote] = ["p", "p"].map((name) => document.createElement(name));
  title.textContent = "What you wrote was not sent:";
  quote.className = "quote";
  quote.textContent = text;
  region.append(title, quote);
}

function follow(live) {
  const announcer = document.getElementById("announcer");
  const regions = (root) => all("[data-region]", root);
  // The regions as the server sent them. The page itself differs: its times are relative.
  const shown = new Map(regions(live).map((region) => [region.dataset.region, region.outerHTML]));
  let { status } = live.dataset;
  const most = (root) => (root.dataset.pace === "calm" ? CALM_POLL_MS : MAX_POLL_MS);
  let longest = most(live);
  let wait = MIN_POLL_MS;

  function announce(sentence) {
    if (announcer && announcer.textContent !== sentence) announcer.textContent = sentence;
  }

  // Returns whether anything changed, and whether the page can still change.
  function apply(html) {
    const page = new DOMParser().parseFromString(html, "text/html");
    const fresh = page.getElementById("live");
    if (!fresh) throw new Error("not a fragment");
    const [shownInbox, inbox] = [document, page].map((root) => root.querySelector(".site [data-go=inbox]"));
    if (inbox) shownInbox?.replaceChildren(...inbox.childNodes);
    let changed = false;
    for (const region of regions(fresh)) {
      const { region: name } = region.dataset;
      const old = live.querySelector(`[data-region="${CSS.escape(name)}"]`);
      if (!old || shown.get(name) === region.outerHTML) continue;
      shown.set(name, region.outerHTML);
      replace(old, region);
      changed = true;
    }
    if (fresh.dataset.status !== status) {
      document.title = document.title.replace(status, fresh.dataset.status);
      status = fresh.dataset.status;
      announce(`Now: ${status}.`);
    }
    localise();
    longest = most(fresh);
    return { changed, open: "fragment" in fresh.dataset };
  }

  async function poll() {
    try {
      const response = await fetch(live.dataset.fragment, { cache: "no-store", signal: AbortSignal.timeout(10_000) });
      if (response.status === 404) return announce("This page no longer exists.");
      if (!response.ok) throw new Error(`status ${response.status}`);
      const html = await response.text();
      if (live.classList.contains("stale")) announce("");
      live.classList.remove("stale");
      const { changed, open } = apply(html);
      if (!open) return;
      wait = changed ? MIN_POLL_MS : Math.min(wait * 1.5, longest);
    } catch {
      wait = Math.min(wait * 2, MAX_RETRY_MS);
      live.classList.add("stale");
      announce("The server cannot be reached. Retrying.");
    }
    setTimeout(next, wait);
  }

  // A hidden page does not poll.
  function next() {
    if (!document.hidden) return void poll();
    document.addEventListener("visibilitychange", () => { wait = MIN_POLL_MS; next(); }, { once: true });
  }

  setTimeout(next, wait);
}

// Keyboard. Rows are [data-row]; each contains the link or is one.

const help = document.getElementById("help");
let leader = 0; // when "g" was pressed

function move(step) {
  const rows = all("[data-row]");
  if (rows.length === 0) return;
  const now = rows.findIndex((row) => row.classList.contains("here"));
  const row = rows[Math.min(rows.length - 1, Math.max(0, now + step))];
  rows[now]?.classList.remove("here");
  row.classList.add("here");
  (row.matches("a") ? row : row.querySelector("a"))?.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

// Follows a link, or opens a panel and goes to its form. Nothing is sent.
function go(name) {
  const link = document.querySelector(`[data-go="${name}"]`);
  if (link?.matches("summary")) {
    link.parentElement.open = true;
    link.parentElement.querySelector("input:not([type=hidden])")?.select();
  } else if (link) link.click();
  return Boolean(link);
}

const KEYS = {
  j: () => move(1), k: () => move(-1),
  "/": () => document.querySelector("[data-search]")?.focus(),
  "?": () => help?.showModal(),
  n: () => go("new"), u: () => go("up"), r: () => go("primary"), f: () => go("problem"),
};
const AFTER_G = { r: "runs", i: "inbox", p: "policy", w: "rules", h: "health" };

document.addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) {
    if (key === "Enter" && !event.altKey && target.dataset.submit) document.getElementById(target.dataset.submit)?.click();
    return;
  }
  if (target.matches("input, textarea, select")) return void (key === "Escape" && target.blur());
  if (help?.open) return;
  if (Date.now() - leader < 1_500 && AFTER_G[key]) {
    leader = 0;
    if (go(AFTER_G[key])) event.preventDefault();
    return;
  }
  if (key === "g") return void (leader = Date.now());
  if (key === "Escape") return void all("details.menu[open]").forEach((menu) => { menu.open = false; });
  if (KEYS[key] && !event.shiftKey | (key === "?")) { event.preventDefault(); KEYS[key](); }
});

document.addEventListener("click", (event) => {
  const { target } = event;
  if (target.closest("[data-help]")) return void help?.showModal();
  if (target === help) help.close(); // the backdrop
  for (const menu of all("details.menu[open]")) if (!menu.contains(target)) menu.open = false;
  const copy = target.closest("[data-copy]");
  if (copy) navigator.clipboard?.writeText(copy.dataset.copy).then(() => { copy.textContent = "copied"; }, () => {});
  const line = target.closest("[data-line]");
  if (line) jump(line);
});

// Puts the cursor on the line of the plan that a problem is about.
function jump(link) {
  const editor = document.getElementById("plan");
  if (!editor) return;
  const lines = editor.value.split("\n"), at = Number(link.dataset.line) - 1;
  const start = lines.slice(0, at).join("\n").length + (at > 0 ? 1 : 0);
  editor.focus();
  editor.setSelectionRange(start, start + (lines[at]?.length ?? 0));
}

// Filters act at once; without a script a button sends them.
document.addEventListener("change", (event) => {
  if (event.target.matches("form[data-auto] :is(select, [type=checkbox])")) event.target.form.requestSubmit();
});

// The name is asked for until there is a login. This browser remembers it.
function remember(root) {
  try {
    for (const field of all("input[name=actor]", root)) if (field.value === "") field.value = localStorage.getItem("nofx.actor") ?? "";
  } catch { /* storage is off */ }
}
document.addEventListener("change", ({ target }) => {
  try {
    if (target.matches("input[name=actor]")) localStorage.setItem("nofx.actor", target.value);
  } catch { /* storage is off */ }
});
remember(document);

// A graph that is wider than the page starts where something happens.
for (const graph of all(".graph")) {
  const node = graph.querySelector(".node:is(.bad, .warn, .busy, .here)");
  if (node && graph.scrollWidth > graph.clientWidth) graph.scrollLeft = node.getBBox().x - graph.clientWidth / 2 + 92;
}

const live = document.getElementById("live");
if (live && "fragment" in live.dataset) follow(live);
localise();
setInterval(localise, document.querySelector("[data-as=elapsed]") ? 1_000 : 15_000);
