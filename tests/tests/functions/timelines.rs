//! The timeline of a run with very many events: every page reads a bounded number of them.

use std::time::{Duration, Instant};

use nofx_tests::{Lab, plans};
use shared::domain::RunId;

use crate::gateway::{Gateway, Shape};

const EVENTS: i64 = 120_000;
/// What a page may take here, also on a busy machine.
const LONGEST: Duration = Duration::from_secs(2);

/// A run with steps that started and lost their workers in turn, and with a gate at its beginning.
async fn eventful(lab: &Lab) -> RunId {
    let run = lab.submit(&plans::wide(20)).await;
    let sql = "with newest as (select event_seq as seq from nofx.run where id = $1),
               steps as (select array_agg(id order by ordinal) as ids, count(*) as count from nofx.step where run_id = $1),
               written as (
                   insert into nofx.event (run_id, seq, tenant_id, step_id, type, payload, timestamp)
                   select $1, n, $2, s.ids[1 + (n / 2) % s.count],
                          case when n = newest.seq + 7 then 'gate.created' when n % 2 = 0 then 'step.started'
                               else 'step.worker_lost' end,
                          jsonb_build_object('attempt', n, 'gate_type', 'manual:early'),
                          now() - make_interval(secs => ($3 - n) * 0.5)
                     from newest, steps s, generate_series(newest.seq + 1, $3) n
               )
               update nofx.run set event_seq = $3 where id = $1";
    lab.admin.execute(sql, &[&run.0, &lab.tenant.0, &EVENTS]).await.expect("events");
    run
}

async fn page(console: &Gateway, path: &str) -> String {
    let start = Instant::now();
    let answer = console.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    println!("{path}: {:?}", start.elapsed());
    assert!(start.elapsed() < LONGEST, "{path}: {:?}", start.elapsed());
    answer.body.as_str().expect("a page").to_owned()
}

/// Numbers of the events at the ends of the page's entries.
fn numbers(page: &str) -> Vec<i64> {
    let ids = page.split("<li id=\"event-").skip(1).filter_map(|part| part.split('"').next());
    ids.map(|id| id.parse().expect("a number")).collect()
}

/// The query of the link with these words.
fn link(page: &str, words: &str) -> Option<String> {
    let (before, _) = page.split_once(&format!(">{words}</a>"))?;
    let (_, href) = before.rsplit_once("href=\"")?;
    let query = href.split('"').next()?.split(['?', '#']).nth(1)?;
    Some(query.replace("&amp;", "&"))
}

#[tokio::test]
async fn pages_of_a_hundred_thousand_events_are_searched_part_by_part() {
    let lab = Lab::new().await;
    let console = Gateway::console(&lab, Shape::Http);
    let run = eventful(&lab).await;
    let at = |query: &str| format!("/ui/runs/{run}?{query}");

    let newest = page(&console, &at("")).await;
    assert!(newest.contains("newest first, 120,000 events") && numbers(&newest)[0] == EVENTS);
    let middle = page(&console, &at("before=60000")).await;
    assert!(numbers(&middle).iter().all(|seq| (59_700..60_000).contains(seq)), "{:?}", numbers(&middle));
    let of_step = page(&console, &at("step=3")).await;
    assert!(numbers(&of_step).len() > 50 && of_step.matches("<b><bdi>s3</bdi></b>").count() > 50, "{of_step:.300}");

    // One early gate: pages without it say so and lead to older ones, until it is found.
    let (mut next, mut searched) = ("kind=gates".to_owned(), 0);
    let found = loop {
        let shown = page(&console, &at(&next)).await;
        searched += 1;
        if shown.contains("manual:early") {
            break shown;
        }
        assert!(shown.contains("No event matches so far: go on with older events."), "{next}");
        next = link(&shown, "Older events").unwrap_or_else(|| panic!("{next}: no older events"));
    };
    assert_eq!(searched, 3, "two parts have no gate");
    assert_eq!((numbers(&found).len(), link(&found, "Older events")), (1, None));
    // Back up again, over the parts without one.
    let newer = page(&console, &at(&link(&found, "Newer events").expect("newer events"))).await;
    assert!(numbers(&newer).is_empty() && link(&newer, "Newer events").is_some(), "{newer:.300}");

    let none = page(&console, &at("kind=writes&before=50000")).await;
    assert!(none.contains("No event matches.") && link(&none, "Older events").is_none());
}
