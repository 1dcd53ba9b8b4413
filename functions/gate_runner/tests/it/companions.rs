//! Stubs: programs that run beside the command.

use nofx_gates::evidence::Verdict;
use nofx_gates::judge::Request;

use crate::sample::{Lab, Tree, failed, passed, request};

/// A smoke test that asks its stub on the port that the runner chose.
fn smoke(stub: &str, health: &str) -> Tree {
    let definition = format!(
        "[stubs.api]\ncommand = '''{stub}'''\nshell = true\nport = \"API_PORT\"\nhealth = \"{health}\"\nstart_timeout_s = 5\n\
         [gates.e2e_smoke]\ncommand = [\"python3\", \"smoke.py\"]\nstubs = [\"api\"]\n"
    );
    let smoke = "import os, urllib.request\n\
                 url = f\"http://127.0.0.1:{os.environ['API_PORT']}/hello.txt\"\n\
                 assert urllib.request.urlopen(url, timeout=5).read() == b\"hello\\n\"\n";
    Tree::defined(&definition).with("smoke.py", smoke).with("site/hello.txt", "hello\n")
}

const SERVER: &str = "exec python3 -m http.server --bind 127.0.0.1 --directory site \"$API_PORT\"";

fn risky(tree: &Tree) -> Request {
    Request { risky: true, ..request("e2e_smoke", tree) }
}

#[tokio::test]
async fn a_smoke_test_reaches_its_stub() {
    for health in ["tcp", "/hello.txt"] {
        let evidence = Lab::new().evidence(&risky(&smoke(SERVER, health))).await;
        assert_eq!(evidence.verdict, Verdict::Passed, "{health}: {}", evidence.reason.message);
        assert_ne!(evidence.sandbox["network"], "open");
    }
}

#[tokio::test]
async fn a_smoke_test_needs_a_risky_run() {
    assert_eq!(Lab::new().verdict(&request("e2e_smoke", &smoke(SERVER, "tcp"))).await, failed("risky_required"));
}

#[tokio::test]
async fn a_stub_that_ends_or_is_not_healthy_fails_the_gate() {
    let lab = Lab::new();
    for (stub, health) in [("exit 3", "tcp"), (SERVER, "/missing.txt")] {
        assert_eq!(lab.verdict(&risky(&smoke(stub, health))).await, failed("stub_failed"), "{stub} {health}");
    }
}

#[tokio::test]
async fn a_stub_may_be_shared_by_other_gates() {
    let tree = smoke(SERVER, "tcp");
    let definition = "[stubs.api]\ncommand = \"python3 -m http.server --directory site 8123\"\nport = \"API_PORT\"\n\
                      [gates.check]\ncommand = \"true\"\n";
    assert_eq!(
        Lab::new().verdict(&request("check", &tree.with("nofx.toml", definition))).await,
        passed("command_succeeded")
    );
}
