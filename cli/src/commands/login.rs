//! `nofx login`: starts a session of a person, or stores the token of a program, for one API.

use std::io::{self, IsTerminal};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use console::Term;
use nofx_local::report::{hinted, printable};
use reqwest::Url;
use serde_json::json;
use shared::view::{AuthSettings, TokenCreated, Whoami};

use crate::client::api::Api;
use crate::client::credentials::{self, Credentials};
use crate::client::issuer;
use crate::client::profile::Environment;
use crate::client::token::{self, Token};
use crate::commands::whoami;
use crate::output;
use crate::output::color::command;

/// How long a session lasts: 30 days.
const SESSION_S: u32 = 2_592_000;
/// Maximum length of a token or a password.
const MAX_SECRET_BYTES: usize = 4_096;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// E-mail address to log in with. The command asks for the password, or reads it from standard input
    #[arg(long)]
    email: Option<String>,
    /// Store an API token instead. The value is -: the token is read from standard input, so that other programs cannot see it
    #[arg(long, value_name = "-", value_parser = ["-"], conflicts_with = "email")]
    token: Option<String>,
}

/// `nofx login`.
pub async fn run(profile: Option<&str>, args: &Args) -> Result<()> {
    let api = Api::of(&Environment::read()?.target(profile)?).await;
    // Before anything is asked for: whoever changes an answer on its way could name another place for passwords.
    token::check_way(api.address())?;
    let secret = match args.token {
        Some(_) => secret("API token")?,
        None => match session(&api, args.email.as_deref()).await? {
            Some(session) => session,
            None => return Ok(()),
        },
    };
    let token = Token::named("what was read", &secret)?;
    let who: Whoami = api.clone().with_token(Some(token)).get("/whoami").await?;
    let file = credentials::path()?;
    let mut credentials = Credentials::read(&file)?;
    credentials.set(api.address(), &secret);
    credentials.save(&file)?;
    let line = whoami::sentence(&who, SystemTime::now());
    output::line(format_args!("{line} at {}", printable(api.address())))
}

/// A new session of a person. None if the API needs no login.
async fn session(api: &Api, email: Option<&str>) -> Result<Option<String>> {
    let settings: AuthSettings = api.get("/auth/config").await?;
    if settings.mode == "local" {
        output::note(format_args!(
            "{} needs no login: every request is that of the person local",
            printable(api.address())
        ));
        return Ok(None);
    }
    let grant = grant_of(&settings)?;
    let email = match email {
        Some(email) => email.to_owned(),
        None => asked("E-mail")?,
    };
    let password = secret(&format!("Password of {} at {}", printable(&email), grant.origin().ascii_serialization()))?;
    let login = issuer::login(grant, settings.publishable_key.as_deref(), &email, &password).await?;
    start_session(api, &login).await.map(Some)
}

/// The URL at which a person gets a JSON web token for a password.
pub fn grant_of(settings: &AuthSettings) -> Result<Url> {
    let Some(auth_url) = &settings.auth_url else {
        let hint = "store an API token: nofx login --token -";
        return Err(hinted("this API has no login with a password", hint));
    };
    issuer::grant_url(auth_url)
}

/// Starts a session with a JSON web token of the issuer. Returns the session's token.
pub async fn start_session(api: &Api, login: &str) -> Result<String> {
    let person = api.clone().with_token(Some(Token::named("the issuer's answer", login)?));
    let body = json!({"name": "nofx login", "expires_in_s": SESSION_S});
    let made: TokenCreated = person.post("/sessions", &body).await?;
    Ok(made.token)
}

/// A line that a person types.
fn asked(what: &str) -> Result<String> {
    if !io::stdin().is_terminal() {
        let name = command("nofx login --email ADDRESS");
        bail!("there is no terminal to ask for an e-mail address; use {name}")
    }
    let term = Term::stderr();
    term.write_str(&format!("{what}: "))?;
    let line = term.read_line().context("cannot read from the terminal")?;
    Ok(line.trim().to_owned())
}

/// Reads a secret from the terminal, without echo, or from the first line of standard input. It is never an argument, which other
/// programs could see.
fn secret(what: &str) -> Result<String> {
    let line = if io::stdin().is_terminal() {
        let term = Term::stderr();
        term.write_str(&format!("{what}: "))?;
        term.read_secure_line().context("cannot read from the terminal")?
    } else {
        let mut line = String::new();
        io::stdin().read_line(&mut line).context("cannot read standard input")?;
        line
    };
    let secret = line.trim_end_matches(['\r', '\n']).to_owned();
    if secret.is_empty() || secret.len() > MAX_SECRET_BYTES {
        bail!("nothing was read, or more than {MAX_SECRET_BYTES} bytes; nothing was stored");
    }
    Ok(secret)
}
