//! How a run looks while it is followed: on a terminal without flicker, in a pipe as lines.

use std::collections::HashSet;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use nofx_tests::command::{Terminal, output, screen};
use nofx_tests::delivery::event;
use nofx_tests::script::succeeded;
use nofx_tests::{Deliver, Lab, Script, plans};
use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::Semaphore;

use crate::commands::{serve, texts};

const STEPS: usize = 200;
const CHAINS: usize = 20;
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;
/// Marks of a synchronised update: the terminal shows what is between them at once.
const BEGIN: &str = "\x1b[?2026h";
const END: &str = "\x1b[?2026l";
/// As long as the id of a run, which is printed first.
const ID: &str = "01a2274b-8a10-759b-a622-bf1fcf05559a";

/// Twenty chains of ten steps. The names are in no other name.
fn plan() -> Value {
    let steps = (0..STEPS).map(|at| {
        let parents = if at < CHAINS { vec![] } else { vec![name(at - CHAINS)] };
        plans::after(&name(at), &parents.iter().map(String::as_str).collect::<Vec<_>>(), json!({ "at": at }))
    });
    json!({ "goal": "many", "steps": steps.collect::<Vec<_>>() })
}

fn name(at: usize) -> String {
    format!("step-{at:03}")
}

/// What the terminal got, one update after another, and what is outside of all updates.
fn updates(written: &str) -> (Vec<&str>, String) {
    let (mut inside, mut outside) = (Vec::new(), String::new());
    let mut rest = written;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (update, after) = after.split_once(END).expect("every update ends");
        outside.push_str(before);
        inside.push(update);
        rest = after;
    }
    outside.push_str(rest);
    (inside, outside)
}

/// Works on the steps, wave after wave. Each wave is seen while it runs, and when it is done.
async fn work(lab: &Lab, terminal: &mut Terminal) {
    let ended = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&ended);
    let script = Script::new(move |_, _| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.expect("an open semaphore").forget();
            succeeded(json!({}))
        }
    });
    let worker = lab.worker("echo", &script).without_continuation();
    for done in (0..STEPS).step_by(CHAINS) {
        let sent = lab.sent().await;
        assert_eq!(sent.len(), CHAINS);
        let batches = sent.chunks(10).map(|batch| worker.handle_batch(event(batch, Deliver::Once), None));
        let watch = async {
            terminal.until(&format!("{done} of {STEPS} done · {CHAINS} running")).await;
            ended.add_permits(CHAINS);
            // The last state is seen only as the end of the run.
            terminal.until(&format!("{} of {STEPS} done", done + CHAINS)).await;
        };
        tokio::join!(join_all(batches), watch);
    }
}

#[tokio::test]
async fn two_hundred_steps_are_followed_without_flicker() {
    let lab = Lab::new().await;
    let nofx = serve(&lab).await;
    let mut terminal = Terminal::start(nofx.command(&["run", nofx.plan(&plan()), "--watch"]), COLUMNS, ROWS);
    terminal.until(&format!("0 of {STEPS} done")).await;
    let start = Instant::now();
    work(&lab, &mut terminal).await;
    assert!(terminal.end().await.success(), "{}", terminal.seen());
    let took = start.elapsed();
    let written = String::from_utf8(std::mem::take(&mut terminal.written)).expect("UTF-8");

    let (updates, outside) = updates(&written);
    let seconds = usize::try_from(took.as_secs()).expect("a number");
    assert!((20..20 * (seconds + 2)).contains(&updates.len()), "{} updates in {took:?}", updates.len());
    assert_eq!(moves(&outside), "", "nothing moves or vanishes outside of an update");
    every_update_is_whole(&updates);
    the_end_has_every_step_once(&written);
}

/// The escape codes of a text, without those of colours.
fn moves(text: &str) -> String {
    let escapes = Regex::new("\x1b(\\[[0-9;?]*[a-zA-Z]|.)|\r[^\n]").expect("a pattern");
    escapes.find_iter(text).map(|found| found.as_str()).filter(|code| !code.ends_with('m')).collect()
}

/// Each update leaves a whole picture, stays within the live lines, and is small.
fn every_update_is_whole(updates: &[&str]) {
    let mut screen = screen(COLUMNS, ROWS);
    screen.process(format!("{ID}\r\n").as_bytes());
    let counts = Regex::new("(\\d+) of 200 done").expect("a pattern");
    let (mut done, mut height) = (0, 0);
    let up = Regex::new("\x1b\\[(\\d+)A").expect("a pattern");
    let (last, others) = updates.split_last().expect("updates");
    for update in others {
        let codes = moves(update);
        for clear in ["\x1b[2J", "\x1b[3J", "\x1b[J", "\x1b[0J", "\x1b[H", "\x1b[?1049h", "\x1bc"] {
            assert!(!codes.contains(clear), "{clear:?} clears more than the live lines: {update:?}");
        }
        let farthest = up.captures_iter(update).map(|up| up[1].parse::<usize>().expect("a number")).max();
        assert!(farthest.unwrap_or(0) < ROWS.into(), "the cursor leaves the screen: {update:?}");
        let printed = update.matches('✓').count();
        let most = 2 * 160 * usize::from(ROWS) + 160 * printed;
        assert!(update.len() <= most, "{} bytes, of which {printed} lines stay", update.len());

        screen.process(update.as_bytes());
        let rows = rows(&screen);
        let found: Vec<usize> = rows.iter().filter_map(|row| counts.captures(row)?[1].parse().ok()).collect();
        assert_eq!(found.len(), 1, "one row of counts: {rows:?}");
        assert!(rows.last().is_some_and(|row| counts.is_match(row)), "it is the last one: {rows:?}");
        assert!(rows.iter().all(|row| !row.is_empty()), "no gap: {rows:?}");
        assert!(found[0] >= done, "{done} steps were done before: {rows:?}");
        done = found[0];
        height = height.max(rows.iter().filter(|row| !row.starts_with('✓') && !row.starts_with(ID)).count());
    }
    assert!((10..usize::from(ROWS)).contains(&height), "{height} live lines");
    screen.process(last.as_bytes());
    assert!(rows(&screen).iter().all(|row| row.starts_with("✓ step-")), "the live lines are gone at the end");
}

/// What is seen, without the empty rows below it.
fn rows(screen: &vt100::Parser) -> Vec<String> {
    let mut rows: Vec<_> = screen.screen().rows(0, COLUMNS).map(|row| row.trim_end().to_owned()).collect();
    rows.truncate(rows.iter().rposition(|row| !row.is_empty()).map_or(0, |last| last + 1));
    rows
}

/// Scrolled back, the terminal has a line for each step, and the result once.
fn the_end_has_every_step_once(written: &str) {
    let mut screen = screen(COLUMNS, 1_000);
    screen.process(written.as_bytes());
    let lines = rows(&screen);
    for name in (0..STEPS).map(name) {
        let about: Vec<_> = lines.iter().filter(|line| line.contains(&name)).collect();
        assert!(about.len() == 1 && about[0].starts_with(&format!("✓ {name}  ")), "{name}: {about:?}");
    }
    assert_eq!(lines.len(), STEPS + 2, "the id, the steps, and the result: {lines:?}");
    assert!(lines[STEPS + 1].starts_with("✓ succeeded  200 of 200 done  "), "{}", lines[STEPS + 1]);
}

#[tokio::test]
async fn in_a_pipe_two_hundred_steps_are_clean_lines() {
    let lab = Lab::new().await;
    let nofx = serve(&lab).await;
    let follow = output(nofx.command(&["run", nofx.plan(&plan()), "--watch"]));
    let work = async {
        lab.until("the run", "select count(*) = 1 from nofx.run").await;
        lab.settle(&Script::deployed(), Deliver::Once).await;
    };
    let (followed, ()) = tokio::join!(follow, work);
    let (printed, beside) = texts(&followed);
    assert!(followed.status.success() && beside.is_empty(), "{printed}{beside}");
    assert!(!printed.contains(['\x1b', '\r', '\x08']), "no escape codes: {printed:?}");
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.iter().collect::<HashSet<_>>().len(), lines.len(), "no line twice: {printed}");
    for name in (0..STEPS).map(name) {
        let about: Vec<&str> = lines.iter().filter_map(|line| line.split_once(&name)).map(|(_, what)| what).collect();
        assert!(about.len() == 2 && about[0] == " started", "{name}: {about:?}");
        assert!(about[1].starts_with(" succeeded after "), "{name}: {about:?}");
    }
    let others: Vec<&str> = lines.iter().filter(|line| !line.contains("step-")).copied().collect();
    let [id, started, began, succeeded, counts] = others[..] else { panic!("other lines: {others:?}") };
    assert_eq!(id.len(), ID.len(), "{id}");
    for (line, end) in [(started, "ann started the run"), (began, "The run began"), (succeeded, "The run succeeded")] {
        assert!(line.ends_with(end), "{line}");
    }
    assert!(counts.starts_with("✓ succeeded  200 of 200 done  "), "{counts}");
}

/// A run that waits for a decision.
async fn waiting(lab: &Lab) -> String {
    let run = lab.submit(&plans::approval(3_600)).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    run.to_string()
}

#[tokio::test]
async fn a_terminal_without_colours_or_room_still_shows_the_command_that_decides() {
    let lab = Lab::new().await;
    let nofx = serve(&lab).await;
    let run = waiting(&lab).await;
    let gate = nofx.json(&["inbox", "--json"]).await[0]["id"].as_str().expect("an id").to_owned();
    let end = &gate[gate.len() - 8..];

    let mut narrow = Terminal::start(nofx.command(&["watch", &run]), 40, 10);
    narrow.until(&format!("◆ manual:deploy: nofx approve {end}")).await;
    let colours = Regex::new("\x1b\\[[0-9;]*m").expect("a pattern");
    assert!(colours.is_match(&String::from_utf8_lossy(&narrow.written)));

    let mut command = nofx.command(&["watch", &run]);
    command.env("NO_COLOR", "1");
    let flag = nofx.command(&["watch", &run, "--color", "never"]);
    for command in [command, flag] {
        let mut plain = Terminal::start(command, 80, 24);
        plain.until(&format!("◆ manual:deploy: nofx approve {gate}")).await;
        kill_process(Pid::from_child(&plain.child), Signal::INT).expect("interrupt it");
        assert_eq!(plain.end().await.code(), Some(130));
        let written = String::from_utf8_lossy(&plain.written);
        assert!(!colours.is_match(&written), "{written:?}");
        assert!(plain.seen().contains("the run goes on; follow it with nofx watch"), "{}", plain.seen());
    }

    let mut dumb = nofx.command(&["watch", &run]);
    dumb.env("TERM", "dumb");
    let mut dumb = Terminal::start(dumb, 80, 24);
    dumb.until("waits for a decision").await;
    assert!(!dumb.written.contains(&0x1b), "no escape codes: {}", dumb.seen());
    let document = nofx.json(&["approve", end, "--json"]).await;
    assert_eq!(document["id"], json!(gate), "the end of the id names it");
}

#[tokio::test]
async fn a_watch_ends_when_nobody_reads_it_any_more() {
    let lab = Lab::new().await;
    let nofx = serve(&lab).await;
    let run = waiting(&lab).await;
    let mut command = tokio::process::Command::from(nofx.command(&["watch", &run]));
    let mut watch = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("it starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    assert!(lines.next_line().await.expect("a line").is_some());
    // As with `nofx watch last | head -1`: the run writes nothing more.
    drop(lines);
    assert!(watch.wait().await.expect("it ends").success());
}

#[tokio::test]
async fn a_gate_whose_time_is_over_is_not_offered() {
    let lab = Lab::new().await;
    let nofx = serve(&lab).await;
    let run = waiting(&lab).await;
    let gate = nofx.json(&["inbox", "--json"]).await[0]["id"].as_str().expect("an id").to_owned();
    lab.admin.batch_execute("update nofx.gate set expires_at = now() - interval '1 s'").await.expect("moved");
    let (shown, _) = texts(&nofx.output(&["show", &run]).await);
    assert!(shown.contains("its time is over") && !shown.contains("nofx approve"), "{shown}");
    let (listed, _) = texts(&nofx.output(&["inbox"]).await);
    assert!(listed.contains("time is over"), "{listed}");
    let late = nofx.output(&["approve", &gate]).await;
    let (_, why) = texts(&late);
    assert!(late.status.code() == Some(1) && why.contains(&format!("hint: nofx retry {run} starts")), "{why}");
}
