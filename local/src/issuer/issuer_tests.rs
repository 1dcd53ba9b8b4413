use reqwest::Client;
use shared::auth::Authenticator;
use shared::config::{AuthConfig, AuthMode, IssuerConfig, KeySource};
use shared::domain::principal::Via;
use shared::domain::{Role, TenantId};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::gateway::server;
use crate::process::stop::{self, StopSender};

struct Running {
    url: String,
    ann: NewUser,
    ben: NewUser,
    users: Vec<User>,
    http: Client,
    _folder: TempDir,
    _stop_sender: StopSender,
}

impl Running {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tenant = TenantId("acme".into());
        let mut users = Users::open(folder.path()).unwrap();
        let mut new = |email, role| users.set(email, &tenant, role).unwrap().unwrap();
        let (ann, ben) = (new("ann@local.test", Role::Admin), new("ben@local.test", Role::Viewer));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let issuer = Issuer::new(folder.path(), port, users.all().to_vec()).unwrap();
        let url = issuer.url.clone();
        let (stop_sender, stop) = stop::channel();
        tokio::spawn(server::serve(listener, issuer.router(), || (), None, stop));
        Self {
            url,
            ann,
            ben,
            users: users.all().to_vec(),
            http: Client::new(),
            _folder: folder,
            _stop_sender: stop_sender,
        }
    }

    /// Status and body of a login.
    async fn login(&self, email: &str, password: &str) -> (u16, Value) {
        let body = json!({ "email": email, "password": password });
        let request =
            self.http.post(format!("{}/token?grant_type=password", self.url)).header("apikey", PUBLISHABLE_KEY);
        let answer = request.json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    fn authenticator(&self) -> Authenticator {
        let issuer = IssuerConfig {
            issuer: self.url.clone(),
            audience: "authenticated".into(),
            keys: KeySource::Url(format!("{}/.well-known/jwks.json", self.url)),
            hs256_secret: None,
            max_stale: Duration::from_hours(1),
        };
        let config = AuthConfig { mode: Some(AuthMode::On), issuer: Some(issuer), ..AuthConfig::default() };
        Authenticator::new(&config, TenantId("home".into()), None).unwrap()
    }
}

#[tokio::test]
async fn the_functions_accept_the_tokens_of_a_login() {
    let running = Running::start().await;
    let authenticator = running.authenticator();
    for (new, user) in [&running.ann, &running.ben].into_iter().zip(&running.users) {
        let (status, session) = running.login(&new.email.to_uppercase(), &new.password).await;
        assert_eq!((status, &session["token_type"], &session["expires_in"]), (200, &json!("bearer"), &json!(3600)));
        let mut headers = HeaderMap::new();
        let token = session["access_token"].as_str().unwrap();
        headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        let caller = authenticator.identify(&headers, &shared::auth::RequestOrigin::default()).await.unwrap();
        assert_eq!((caller.tenant.0.as_str(), caller.subject), ("acme", user.id.to_string()));
        let Via::Jwt(login) = caller.via else { panic!("not by a JWT") };
        assert_eq!((login.email.as_deref(), login.aal.as_deref()), (Some(new.email.as_str()), Some("aal1")));
        assert!(login.at.is_some(), "when the person logged in");
        // One character of the signature.
        let forged = format!("Bearer {}{}", &token[..token.len() - 2], if token.ends_with("AA") { "BA" } else { "AA" });
        headers.insert(header::AUTHORIZATION, forged.parse().unwrap());
        assert!(authenticator.identify(&headers, &shared::auth::RequestOrigin::default()).await.is_err());
    }
}

#[tokio::test]
async fn the_public_document_holds_no_private_part() {
    let running = Running::start().await;
    let answer = running.http.get(format!("{}/.well-known/jwks.json", running.url)).send().await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "public, max-age=600");
    let document: Value = answer.json().await.unwrap();
    let key = document["keys"][0].as_object().unwrap();
    let members: Vec<&str> = key.keys().map(String::as_str).collect();
    assert_eq!(members, ["alg", "crv", "key_ops", "kid", "kty", "use", "x", "y"]);
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_look_the_same_and_five_close_the_login() {
    let running = Running::start().await;
    let wrong = json!({ "code": 400, "error_code": "invalid_credentials", "msg": "Invalid login credentials" });
    for _ in 0..FAILURES {
        assert_eq!(running.login(&running.ann.email, &running.ben.password).await, (400, wrong.clone()));
        assert_eq!(running.login("nobody@local.test", "password").await, (400, wrong.clone()));
    }
    let (status, answer) = running.login(&running.ann.email, &running.ann.password).await;
    assert_eq!((status, &answer["error_code"]), (429, &json!("over_request_rate_limit")));
    assert_eq!(running.login(&running.ben.email, &running.ben.password).await.0, 200, "others log in");
}

#[tokio::test]
async fn requests_that_are_no_login_are_refused_as_supabase_refuses_them() {
    let running = Running::start().await;
    let send = async |query: &str, key: &str, body: &'static str| {
        let request = running.http.post(format!("{}/token{query}", running.url)).header("apikey", key);
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        answer.status().as_u16()
    };
    let good = r#"{"email": "ann@local.test", "password": "x"}"#;
    assert_eq!(send("?grant_type=password", "another", good).await, 401);
    assert_eq!(send("?grant_type=refresh_token", PUBLISHABLE_KEY, good).await, 400);
    assert_eq!(send("", PUBLISHABLE_KEY, good).await, 400);
    for body in ["", "{", "[]", r#"{"email": "ann@local.test"}"#, r#"{"email": 1, "password": "x"}"#] {
        assert_eq!(send("?grant_type=password", PUBLISHABLE_KEY, body).await, 400, "{body}");
    }
    // A form, which a page of another site could send.
    let form =
        running.http.post(format!("{}/token?grant_type=password", running.url)).header("apikey", PUBLISHABLE_KEY);
    assert_eq!(form.body(good).send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_restarted_issuer_signs_with_the_same_key() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = || Issuer::new(folder.path(), 1, Vec::new()).unwrap();
    assert_eq!(issuer().key.public(), issuer().key.public());
}
