//! JSON web tokens of people (RFC 7519), by the rules of RFC 8725.
//!
//! This is our own reader on aws-lc-rs, and not the crate `jsonwebtoken` (12.0). Its part would be small: base64, the call
//! of aws-lc-rs, and the key of a JWK, about 60 lines. Of the hostile tokens of our tests it accepts one in four: it does
//! not refuse deep nesting, keys in the header and other types of tokens, and repeated keys only where it reads them; it
//! accepts a list as `iss`, fractions as `exp`, and null as absent; and it does not know the claims of Supabase. It reads
//! the clock itself, parses the key for every token, checks neither the exponent nor the use of a key, and panics without
//! a global provider. So a strict reader would stay in front of it and do the same work. It had three major versions in
//! fourteen months, and calls itself passively maintained. Tests use it as an oracle: it accepts every token that we
//! accept.

use serde_json::{Map, Value};

use super::Refused;
use super::jws::{self, Compact};
use super::key::Key;
use crate::domain::hidden::{self, Lines};
use crate::domain::json::strict_object;
use crate::domain::principal::Login;
use crate::domain::{TenantId, Timestamp};

/// Tolerated difference between the issuer's clock and ours.
const LEEWAY_S: i64 = 30;
const MAX_TEXT_BYTES: usize = 255;

/// What a token must say.
#[derive(Debug, Clone)]
pub struct Rules {
    pub issuer: String,
    pub audience: String,
    /// The tenant of a person whose token names none. A membership there is needed anyway.
    pub home: TenantId,
}

/// The person of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub tenant: TenantId,
    pub subject: String,
    pub login: Login,
}

/// The person, if the token is a JWT that the key signed and that counts now.
pub fn verify(token: Compact<'_>, key: &Key, rules: &Rules, now_s: i64) -> Result<Person, Refused> {
    if token.parameter("typ").is_some_and(|typ| typ != "JWT") {
        return Err(Refused("typ"));
    }
    // A token inside this one.
    if token.parameter("cty").is_some() {
        return Err(Refused("cty"));
    }
    let payload = token.verify(key)?;
    let claims = strict_object(&payload, jws::MAX_DEPTH).map_err(|_| Refused("claims"))?;
    person(&Claims(claims), rules, now_s)
}

fn person(claims: &Claims, rules: &Rules, now_s: i64) -> Result<Person, Refused> {
    if claims.text("iss")? != Some(&rules.issuer) {
        return Err(Refused("iss"));
    }
    if !claims.names_audience(&rules.audience) {
        return Err(Refused("aud"));
    }
    let expires = claims.time("exp")?.ok_or(Refused("exp"))?;
    if now_s >= expires.saturating_add(LEEWAY_S) {
        return Err(Refused("expired"));
    }
    for start in ["nbf", "iat"] {
        if claims.time(start)?.is_some_and(|start| start > now_s.saturating_add(LEEWAY_S)) {
            return Err(Refused(start));
        }
    }
    // Supabase signs its keys `anon` and `service_role` with the secret of its users' tokens.
    if claims.text("role")?.is_some_and(|role| role != "authenticated") {
        return Err(Refused("role"));
    }
    if claims.0.get("is_anonymous").is_some_and(|anonymous| anonymous != false) {
        return Err(Refused("is_anonymous"));
    }
    let subject = claims.text("sub")?.filter(|subject| is_printable(subject)).ok_or(Refused("sub"))?;
    let login = Login {
        email: claims.text("email")?.filter(|email| is_printable(email)).map(str::to_owned),
        aal: claims.text("aal")?.filter(|aal| is_printable(aal)).map(str::to_owned),
        at: claims.login_time(),
    };
    Ok(Person { tenant: claims.tenant(&rules.home)?, subject: subject.to_owned(), login })
}

/// Claims. One of the wrong type is refused, and never counts as absent.
struct Claims(Map<String, Value>);

impl Claims {
    fn text(&self, name: &'static str) -> Result<Option<&str>, Refused> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refused(name)),
        }
    }

    /// Whole seconds since 1970.
    fn time(&self, name: &'static str) -> Result<Option<i64>, Refused> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => value.as_i64().filter(|seconds| *seconds >= 0).map(Some).ok_or(Refused(name)),
        }
    }

    fn names_audience(&self, audience: &str) -> bool {
        match self.0.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(many)) => many.iter().all(Value::is_string) && many.iter().any(|one| one == audience),
            _ => false,
        }
    }

    /// From `app_metadata`, which only the issuer writes. Users write `user_metadata` themselves, so it never counts.
    fn tenant(&self, home: &TenantId) -> Result<TenantId, Refused> {
        let tenant = match self.0.get("app_metadata") {
            None => None,
            Some(Value::Object(metadata)) => metadata.get("tenant_id"),
            Some(_) => return Err(Refused("app_metadata")),
        };
        match tenant {
            None => Ok(home.clone()),
            Some(tenant) => tenant.as_str().and_then(TenantId::parse).ok_or(Refused("tenant_id")),
        }
    }

    /// The newest time in `amr`, where Supabase lists how the person logged in. `iat` is not it: a refreshed token has a
    /// new one.
    fn login_time(&self) -> Option<Timestamp> {
        let methods = self.0.get("amr")?.as_array()?;
        let times = methods.iter().filter_map(|method| method.get("timestamp")?.as_i64());
        times.max().and_then(Timestamp::of_epoch_s)
    }
}

fn is_printable(text: &str) -> bool {
    (1..=MAX_TEXT_BYTES).contains(&text.len()) && hidden::check(text, Lines::One).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::forge::{ALGS, Alg, FORGE, ISSUER, NOW, SECRET, SUBJECT, claims, with, without};
    use super::*;

    fn key(alg: Alg) -> Key {
        match alg {
            Alg::Hs256 => Key::hs256(SECRET.as_bytes()).unwrap(),
            Alg::Es256 => Key::from_jwk(FORGE.ec_jwk().as_object().unwrap()).unwrap(),
            Alg::Rs256 => Key::from_jwk(FORGE.rsa_jwk().as_object().unwrap()).unwrap(),
        }
    }

    fn read_at(now_s: i64, claims: &Value) -> Result<Person, Refused> {
        let rules = Rules { issuer: ISSUER.into(), audience: "authenticated".into(), home: TenantId("home".into()) };
        let people = ALGS.map(|alg| verify(Compact::parse(&FORGE.token(alg, claims))?, &key(alg), &rules, now_s));
        assert!(people.iter().all(|person| *person == people[0]), "the algorithm changes nothing");
        people[0].clone()
    }

    fn read(claims: &Value) -> Result<Person, Refused> {
        read_at(NOW, claims)
    }

    #[test]
    fn a_person_of_supabase_is_read() {
        let person = read(&claims()).unwrap();
        assert_eq!((person.tenant.0.as_str(), person.subject.as_str()), ("acme", SUBJECT));
        assert_eq!(
            person.login,
            Login {
                email: Some("ann@acme.test".into()),
                aal: Some("aal1".into()),
                at: Some(Timestamp("2027-01-15T07:59:00+00:00".into())),
            }
        );
    }

    #[test]
    fn what_a_token_need_not_say_changes_nothing() {
        for claims in [
            with("aud", json!(["other", "authenticated"])),
            with("aud", json!(["authenticated"])),
            with("nbf", NOW),
            with("exp", 9_007_199_254_740_991_i64),
            with("iat", 0),
            without("iat"),
            without("role"),
            without("is_anonymous"),
            without("user_metadata"),
            with("user_metadata", json!({"tenant_id": "other", "role": "service_role", "exp": 1})),
            with("tenant_id", "other"),
            with("jti", "x"),
        ] {
            assert_eq!(read(&claims).unwrap().tenant.0, "acme", "{claims}");
        }
        for subject in ["s", "a b", "ann@acme.test", "auth0|5f", "Änne", &"s".repeat(255)] {
            assert_eq!(read(&with("sub", subject)).unwrap().subject, subject);
        }
    }

    #[test]
    fn the_leeway_is_thirty_seconds_on_both_sides() {
        let mut claims = with("exp", NOW + 100);
        claims["nbf"] = json!(NOW);
        claims["iat"] = json!(NOW);
        for now_s in [NOW - 30, NOW, NOW + 100, NOW + 129] {
            assert!(read_at(now_s, &claims).is_ok(), "{}", now_s - NOW);
        }
        assert_eq!(read_at(NOW - 31, &claims), Err(Refused("nbf")));
        for now_s in [NOW + 130, NOW + 131, i64::MAX] {
            assert_eq!(read_at(now_s, &claims), Err(Refused("expired")), "{}", now_s - NOW);
        }
    }

    #[test]
    fn only_the_issuer_names_the_tenant() {
        let home = |claims: &Value| read(claims).unwrap().tenant.0;
        assert_eq!(home(&without("app_metadata")), "home");
        assert_eq!(home(&with("app_metadata", json!({"provider": "email"}))), "home");
        let mut claims = without("app_metadata");
        claims["user_metadata"] = json!({"tenant_id": "other", "app_metadata": {"tenant_id": "other"}});
        claims["raw_app_meta_data"] = json!({"tenant_id": "other"});
        assert_eq!(home(&claims), "home", "people write user_metadata themselves");
    }

    #[test]
    fn the_time_of_a_login_is_what_the_token_says_about_it() {
        let at = |amr: Value| read(&with("amr", amr)).unwrap().login.at.map(|at| at.epoch_ms().unwrap() / 1_000);
        let password = json!({"method": "password", "timestamp": NOW - 500});
        let code = json!({"method": "totp", "timestamp": NOW - 400});
        assert_eq!(at(json!([code, password])), Some(NOW - 400), "the newest");
        for amr in [json!([]), json!(["pwd"]), json!([{"method": "password"}]), json!("pwd"), json!(null), json!(NOW)] {
            assert_eq!(at(amr.clone()), None, "{amr}: the time of the token is not that of the login");
        }
        for timestamp in [json!(-1), json!(9_007_199_254_740_991_i64), json!("1"), json!(1.5)] {
            assert_eq!(at(json!([{"method": "password", "timestamp": timestamp}])), None);
        }
        assert_eq!(read(&without("amr")).unwrap().login.at, None);
    }

    #[test]
    fn an_email_that_cannot_be_shown_is_left_out() {
        for email in ["", "a\nb", "ann@\u{202e}acme.test", &"e".repeat(256)] {
            assert_eq!(read(&with("email", email)).unwrap().login.email, None);
        }
    }
}
