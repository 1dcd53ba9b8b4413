//! Pause, resume, cancel and retry by the forms of a run's page, on a real database.

use nofx_tests::script::broken;
use nofx_tests::{Deliver, Lab, Script, plans};
use shared::domain::{RunId, TenantId};

use crate::gateway::{Answer, Gateway, SHAPES, Shape};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const COOKIE: (&str, &str) = ("cookie", "nofx-csrf=0123456789abcdef0123456789abcdef");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const OWN: (&str, &str) = ("sec-fetch-site", "same-origin");

async fn send(console: &Gateway, run: RunId, verb: &str, form: &str) -> Answer {
    console.send("POST", &format!("/ui/runs/{run}/{verb}"), &[FORM, OWN, COOKIE], Some(form.to_owned())).await
}

/// Sends the form of `ben`.
async fn by_ben(console: &Gateway, run: RunId, verb: &str) -> Answer {
    send(console, run, verb, &format!("actor=%20ben&csrf={TOKEN}")).await
}

fn html(answer: &Answer) -> &str {
    answer.body.as_str().expect("a page")
}

/// Type and actor of the run's events that have an actor.
async fn requests(lab: &Lab, run: RunId) -> Vec<String> {
    let sql = "select type || ' ' || (payload ->> 'actor') from nofx.event
                where run_id = $1 and payload ? 'actor' order by seq";
    lab.admin.query(sql, &[&run.0]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn the_forms_control_a_run_and_lead_back_to_it() {
    for shape in SHAPES {
        let lab = Lab::new().await;
        let console = Gateway::console(&lab, shape);
        let run = lab.submit(&plans::chain(2)).await;
        let back = format!("../../runs/{run}");
        for (verb, status) in [("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled"), ("retry", "queued")]
        {
            let page = console.get(&format!("/ui/runs/{run}")).await;
            assert!(html(&page).contains(&format!("action=\"../runs/{run}/{verb}\"")), "{verb}");
            let done = by_ben(&console, run, verb).await;
            assert_eq!((done.status, done.header("location")), (303, Some(back.as_str())), "{verb}: {done:?}");
            assert_eq!(lab.run_status(run).await, status);
        }
        let all = ["run.pause_requested ben", "run.resumed ben", "run.cancel_requested ben", "run.retried ben"];
        assert_eq!(requests(&lab, run).await, all);
        // The wake-ups of a resumed and of a retried run were sent.
        lab.settle(&Script::deployed(), Deliver::Once).await;
        assert_eq!(lab.run_status(run).await, "succeeded");
        lab.assert_invariants().await;
    }
}

#[tokio::test]
async fn a_refused_form_says_what_did_not_happen_and_why() {
    let lab = Lab::new().await;
    let console = Gateway::console(&lab, Shape::Http);
    let run = lab.submit(&plans::chain(2)).await;
    let long = "x".repeat(201);
    for (form, status, words) in [
        (format!("csrf={TOKEN}"), 400, "A name is needed."),
        (format!("actor=+&csrf={TOKEN}"), 400, "It must be a name of 1 to 200 characters"),
        (format!("actor={long}&csrf={TOKEN}"), 400, "It must be a name of 1 to 200 characters"),
        ("actor=ann&csrf=".to_owned(), 403, "The form is older than your session. Nothing was changed. Send it again."),
    ] {
        let refused = send(&console, run, "cancel", &form).await;
        assert_eq!(refused.status, status, "{form}: {refused:?}");
        let said = ["The run was not cancelled.", words, "<details class=\"menu\" id=\"menu-cancel\" open>"];
        for words in said {
            assert!(html(&refused).contains(words), "{words}: {}", html(&refused));
        }
    }
    let kept = send(&console, run, "cancel", "actor=ann&csrf=").await;
    assert!(html(&kept).contains("value=\"ann\""), "{}", html(&kept));
    // The name that was typed is there, even where it is wrong.
    let kept = send(&console, run, "pause", &format!("actor={long}&csrf={TOKEN}")).await;
    assert!(html(&kept).contains(&format!("value=\"{long}\"")), "{}", html(&kept));
    assert_eq!((lab.run_status(run).await.as_str(), requests(&lab, run).await.len()), ("queued", 0));

    lab.settle(&Script::overriding(|step, _| async move { (step.name == "s1").then(broken) }), Deliver::Once).await;
    for (verb, words) in [
        ("pause", "The run was not paused.</strong> <bdi>The run has already ended as failed.</bdi>"),
        ("resume", "The run was not resumed.</strong> <bdi>The run has already ended as failed.</bdi>"),
        ("cancel", "The run was not cancelled.</strong> <bdi>The run has already ended as failed.</bdi>"),
    ] {
        let late = by_ben(&console, run, verb).await;
        assert_eq!(late.status, 409, "{verb}: {late:?}");
        assert!(html(&late).contains(words) && html(&late).contains("id=\"menu-retry\""), "{verb}: {}", html(&late));
    }
    assert_eq!(by_ben(&console, run, "retry").await.status, 303);
    let twice = by_ben(&console, run, "retry").await;
    let words = "not retried.</strong> <bdi>Only a failed or cancelled run can be retried; this one is running.</bdi>";
    assert!(twice.status == 409 && html(&twice).contains(words), "{}", html(&twice));
    assert_eq!(requests(&lab, run).await, ["run.retried ben"]);
    lab.assert_invariants().await;
}

#[tokio::test]
async fn a_run_of_another_tenant_cannot_be_controlled() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(1)).await;
    let mut other = Lab::on(lab.database, lab.ctx.config.clone()).await;
    other.ctx.config.tenant = TenantId("other".into());
    let console = Gateway::console(&other, Shape::Http);
    for verb in ["pause", "resume", "cancel", "retry"] {
        assert_eq!(by_ben(&console, run, verb).await.status, 404, "{verb}");
    }
    assert_eq!(other.run_status(run).await, "queued");
}
