//! Secrets of every shape are found, and honest lines are not. The secrets are put together at run time, so that no
//! scanner complains about this file.

use std::collections::BTreeSet;

use super::shapes::SHAPES;
use super::*;

const BASE62: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const HEX: &str = "0123456789abcdef";

struct Made {
    random: fastrand::Rng,
}

impl Made {
    fn from(&mut self, alphabet: &str, length: usize) -> String {
        (0..length).map(|_| char::from(alphabet.as_bytes()[self.random.usize(..alphabet.len())])).collect()
    }

    fn b62(&mut self, length: usize) -> String {
        self.from(BASE62, length)
    }

    fn b64(&mut self, length: usize) -> String {
        self.from(&format!("{BASE62}+/"), length)
    }

    fn url64(&mut self, length: usize) -> String {
        // A dash at the end would end the word there.
        format!("{}x", self.from(&format!("{BASE62}-_"), length - 1))
    }

    fn b32(&mut self, length: usize) -> String {
        self.from("abcdefghijklmnopqrstuvwxyz234567", length)
    }

    fn hex(&mut self, length: usize) -> String {
        self.from(HEX, length)
    }

    fn upper(&mut self, length: usize) -> String {
        self.from("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", length)
    }

    fn uuid(&mut self) -> String {
        let parts: Vec<String> = [8, 4, 4, 4, 12].iter().map(|length| self.hex(*length)).collect();
        parts.join("-")
    }

    /// A secret of the rule, with what must stand beside it.
    #[rustfmt::skip]
    fn secret(&mut self, rule: &str) -> Vec<String> {
        let one = |text: String| vec![text];
        match rule {
            "aws-access-key" => vec![format!("AKIA{}", self.upper(16)), format!("ASIA{}", self.upper(16))],
            "aws-secret-key" => vec![format!("aws_secret_access_key = {}", self.b64(40)), format!("AWS_SECRET_ACCESS_KEY: \"{}\"", self.b64(40)), format!("secretAccessKey: '{}'", self.b64(40))],
            "aws-bedrock-key" => one(format!("ABSK{}=", self.b64(127))),
            "github-token" => ["p", "o", "u", "s", "r"].map(|kind| format!("gh{kind}_{}", self.b62(36))).to_vec(),
            "github-pat" => one(format!("github_pat_{}_{}", self.b62(22), self.b62(59))),
            "gitlab-token" => ["glpat-", "gldt-", "glrt-", "glcbt-"].map(|prefix| format!("{prefix}{}", self.url64(20))).to_vec(),
            "slack-token" => vec![format!("xoxb-{}-{}-{}", self.from("123456789", 12), self.from("123456789", 13), self.b62(24)), format!("xapp-1-{}-{}-{}", self.upper(11), self.from("123456789", 13), self.hex(64))],
            "slack-webhook" => one(format!("https://hooks.slack.com/services/T{}/B{}/{}", self.upper(10), self.upper(10), self.b62(24))),
            "stripe-key" => ["sk_live_", "rk_live_", "sk_test_"].map(|prefix| format!("{prefix}{}", self.b62(24))).to_vec(),
            "stripe-webhook-secret" => one(format!("whsec_{}", self.b62(32))),
            "openai-key" => vec![format!("sk-proj-{}", self.url64(120)), format!("sk-{}T3BlbkFJ{}", self.b62(20), self.b62(20)), format!("sk-{}", self.b62(48))],
            "anthropic-key" => vec![format!("sk-ant-api03-{}", self.url64(95)), format!("sk-ant-admin01-{}", self.url64(95))],
            "openrouter-key" => one(format!("sk-or-v1-{}", self.hex(64))),
            "google-api-key" => one(format!("AIza{}", self.url64(35))),
            "google-oauth" => vec![format!("GOCSPX-{}", self.url64(28)), format!("ya29.{}", self.url64(60))],
            "azure-key" => vec![format!("DefaultEndpointsProtocol=https;AccountName=acme;AccountKey={}==;EndpointSuffix=core.windows.net", self.b64(86)), format!("Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey={}=", self.b64(43))],
            "azure-client-secret" => one(format!("{}8Q~{}", self.b62(3), self.b62(34))),
            "azure-identifiable-key" => vec![format!("{}JQQJ99{}AC{}", self.b62(52), self.b62(18), self.b62(6)), format!("{}+ASt{}==", self.b64(76), self.b64(6))],
            "azure-sas" => one(format!("https://acme.blob.core.windows.net/c?sv=2024-11-04&ss=b&sp=r&sig={}%3D", self.b62(43))),
            "nofx-token" => ["agent", "service", "person", "link"].map(|kind| format!("nofx_{kind}_{}_{}", self.b32(33), self.b32(52))).to_vec(),
            "npm-token" => one(format!("npm_{}", self.b62(36))),
            "npmrc-auth" => vec![format!("//npm.acme.io/:_authToken={}", self.uuid()), format!("_auth={}", self.b62(40))],
            "pypi-token" => one(format!("pypi-AgEIcHlwaS5vcmc{}", self.url64(150))),
            "sendgrid-key" => one(format!("SG.{}.{}", self.url64(22), self.url64(43))),
            "twilio-key" => one(format!("SK{}", self.hex(32))),
            "twilio-auth-token" => one(format!("TWILIO_AUTH_TOKEN={}", self.hex(32))),
            "supabase-key" => vec![format!("sbp_{}", self.hex(40)), format!("sb_secret_{}_{}", self.url64(22), self.b62(8))],
            "jwt" => one(format!("{}.{}.{}", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "eyJyb2xlIjoic2VydmljZV9yb2xlIn0", self.url64(43))),
            "url-password" => vec![format!("postgresql://app:{}@db.acme.io:5432/app", self.b62(16)), format!("mongodb+srv://root:{}@c0.acme.mongodb.net", self.b62(12)), format!("redis://:{}@cache.acme.io", self.b62(20)), format!("https://bot:{}@git.acme.io/x.git", self.b62(20))],
            "authorization-header" => vec![format!("Authorization: Bearer {}", self.b62(40)), format!("-H \"authorization: Basic {}\"", self.b62(32))],
            "age-key" => one(format!("AGE-SECRET-KEY-1{}", self.upper(58))),
            "digitalocean-token" => one(format!("dop_v1_{}", self.hex(64))),
            "shopify-token" => one(format!("shpat_{}", self.hex(32))),
            "square-token" => one(format!("sq0csp-{}", self.url64(43))),
            "mailgun-key" => one(format!("key-{}", self.hex(32))),
            "mailchimp-key" => one(format!("{}-us12", self.hex(32))),
            "brevo-key" => one(format!("xkeysib-{}-{}", self.hex(64), self.b62(16))),
            "resend-key" => one(format!("re_{}_{}", self.b62(8), self.b62(24))),
            "postmark-token" => one(format!("POSTMARK_SERVER_TOKEN={}", self.uuid())),
            "telegram-token" => one(format!("{}:AA{}", self.from("123456789", 10), self.url64(33))),
            "discord-token" => one(format!("M{}.{}.{}", self.b62(25), self.b62(6), self.b62(38))),
            "discord-webhook" => one(format!("https://discord.com/api/webhooks/{}/{}", self.from("123456789", 18), self.url64(68))),
            "heroku-key" => one(format!("HRKU-AA{}", self.url64(58))),
            "databricks-token" => one(format!("dapi{}", self.hex(32))),
            "vault-token" => one(format!("hvs.{}", self.url64(95))),
            "terraform-token" => one(format!("{}.atlasv1.{}", self.b62(14), self.b62(67))),
            "huggingface-token" => one(format!("hf_{}", self.b62(34))),
            "replicate-token" => one(format!("r8_{}", self.b62(37))),
            "groq-key" => one(format!("gsk_{}", self.b62(52))),
            "xai-key" => one(format!("xai-{}", self.b62(80))),
            "perplexity-key" => one(format!("pplx-{}", self.b62(48))),
            "langsmith-key" => one(format!("lsv2_pt_{}_{}", self.hex(32), self.hex(10))),
            "linear-key" => one(format!("lin_api_{}", self.b62(40))),
            "notion-token" => one(format!("ntn_{}{}", self.from("123456789", 11), self.b62(35))),
            "doppler-token" => one(format!("dp.st.prd.{}", self.b62(43))),
            "pulumi-token" => one(format!("pul-{}", self.hex(40))),
            "grafana-token" => one(format!("glsa_{}_{}", self.b62(32), self.hex(8))),
            "newrelic-key" => one(format!("NRAK-{}", self.upper(27))),
            "sentry-token" => one(format!("sntryu_{}", self.hex(64))),
            "dockerhub-token" => one(format!("dckr_pat_{}", self.url64(27))),
            "rubygems-key" => one(format!("rubygems_{}", self.hex(48))),
            "crates-io-token" => one(format!("cio{}", self.b62(32))),
            "postman-key" => one(format!("PMAK-{}-{}", self.hex(24), self.hex(34))),
            "figma-token" => one(format!("figd_{}", self.url64(40))),
            "airtable-token" => one(format!("pat{}.{}", self.b62(14), self.hex(64))),
            "atlassian-token" => one(format!("ATATT3xFf{}", self.url64(180))),
            "planetscale-token" => one(format!("pscale_tkn_{}", self.url64(43))),
            "netlify-token" => one(format!("nfp_{}", self.b62(36))),
            "flyio-token" => one(format!("FlyV1 fm2_{}", self.b62(120))),
            "cloudflare-key" => one(format!("v1.0-{}-{}", self.hex(24), self.hex(146))),
            "braintree-token" => one(format!("access_token$production${}${}", self.from("abcdefghijklmnop0123456789", 16), self.hex(32))),
            "facebook-token" => one(format!("EAAC{}", self.b62(150))),
            "vercel-token" => one(format!("vcp_{}", self.b62(56))),
            "clickhouse-key" => one(format!("4b1d{}", self.b62(38))),
            other => panic!("no secret is made for {other}"),
        }
    }
}

fn scan_text(path: &str, text: &str) -> Scan {
    scan([SourceFile { path, bytes: text.as_bytes(), changed: None }].into_iter(), |_| false)
}

fn rules(scan: &Scan) -> Vec<&str> {
    scan.findings.iter().filter_map(|finding| finding.rule.as_deref()).collect()
}

#[test]
fn a_secret_of_every_shape_is_found_once_where_people_put_it_and_is_never_shown() {
    let mut made = Made { random: fastrand::Rng::with_seed(7) };
    let mut tried = 0;
    for shape in SHAPES {
        for secret in made.secret(shape.rule) {
            for (path, line) in [
                ("src/config.ts", format!("export const client = connect(\"{secret}\");")),
                (".env", format!("VALUE={secret}")),
                ("deploy.yaml", format!("  value: {secret}")),
                ("tests/fixtures/a.json", format!("  {{\"v\": \"{secret}\"}}")),
                ("README.md", format!("Run it with `{secret}` in the shell")),
            ] {
                tried += 1;
                let scan = scan_text(path, &line);
                assert_eq!(rules(&scan), [shape.rule], "{path}: {line}");
                let long = secret.split(|c: char| !BASE62.contains(c)).max_by_key(|part| part.len()).unwrap();
                assert!(!scan.findings[0].message.contains(&long[..8]), "{}", scan.findings[0].message);
            }
        }
    }
    assert!(tried > 450, "{tried}");
}

#[test]
fn secrets_without_a_shape_are_found_by_their_name_or_their_randomness() {
    let mut made = Made { random: fastrand::Rng::with_seed(11) };
    let password = "Tr0ub4dor&3x";
    let cases = [
        ("src/a.ts", format!("const password = \"{password}\";")),
        ("src/a.py", format!("DB_PASSWORD = '{password}'")),
        ("src/a.go", format!("cfg.Password = \"{password}\"")),
        ("src/A.java", format!("private String dbPassword = \"{password}\";")),
        ("src/a.rs", format!("let api_key: &str = \"{}\";", made.b62(32))),
        ("src/a.ts", format!("  clientSecret: '{}',", made.b62(30))),
        ("src/a.json", format!("  \"apiKey\": \"{}\"", made.hex(32))),
        (".env", format!("DB_PASSWORD={password}")),
        (".env.production", format!("SESSION_SECRET={}", made.hex(64))),
        ("config/prod.yaml", format!("  auth_token: {}", made.b62(28))),
        ("a.properties", format!("db.password={password}")),
        ("main.tf", format!("  master_password = \"{password}\"")),
        ("Dockerfile", format!("ENV API_TOKEN={}", made.b62(40))),
        ("deploy.sh", format!("export ENCRYPTION_KEY=\"{}\"", made.b64(44))),
        ("src/a.ts", format!("headers.set('X-Api-Key', '{}')", made.b62(40))),
        ("src/a.ts", format!("const k = \"{}\";", made.b62(48))),
        ("src/a.py", format!("client = Client(\"{}\")", made.b62(40))),
    ];
    for (path, line) in cases {
        let scan = scan_text(path, &line);
        assert_eq!(scan.found.total(), 1, "{path}: {line}: {:?}", scan.findings);
        assert!(matches!(rules(&scan)[0], "assigned-secret" | "random-string"), "{line}: {:?}", rules(&scan));
        assert!(!scan.findings[0].message.contains(password));
    }
}

#[test]
fn honest_lines_are_not_secrets() {
    let lines: Vec<&str> =
        include_str!("honest.txt").lines().filter(|line| !line.trim().is_empty() && !line.starts_with("## ")).collect();
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in &lines {
        let (path, text) = line.split_once(" | ").unwrap_or_else(|| panic!("no path: {line}"));
        count += 1;
        let scan = scan_text(path.trim(), text);
        wrong
            .extend(scan.findings.iter().map(|finding| format!("{line}\n    {:?}: {}", finding.rule, finding.message)));
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 150, "{count}");
}

fn key_with(begin: &str, body: &str) -> String {
    let (begin, end) =
        (format!("-----BEGIN {begin}{} KEY-----", "PRIVATE"), format!("-----END {begin}{} KEY-----", "PRIVATE"));
    format!("{begin}\n{body}\n{end}\n")
}

#[test]
fn a_private_key_is_found_once_and_code_that_looks_for_one_is_not() {
    let mut made = Made { random: fastrand::Rng::with_seed(3) };
    let body = [made.b64(64), made.b64(64), made.b64(40)].join("\n");
    for begin in ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "] {
        assert_eq!(rules(&scan_text("id", &key_with(begin, &body))), ["private-key"], "{begin}");
    }
    let in_json = format!("{{\"private_key\": \"{}\"}}", key_with("", &body).replace('\n', "\\n"));
    assert_eq!(rules(&scan_text("service.json", &in_json)), ["private-key"]);
    let code =
        format!("if (!pem.includes('-----BEGIN {} KEY-----')) {{\n  throw new Error('not a key');\n}}\n", "PRIVATE");
    assert_eq!(scan_text("src/pem.ts", &code).found.total(), 0);
    // Only the second line of the body is new.
    let text = key_with("RSA ", &body);
    let file = SourceFile { path: "id", bytes: text.as_bytes(), changed: Some(&[3]) };
    let scan = scan([file].into_iter(), |_| false);
    assert_eq!((rules(&scan), scan.findings[0].line), (vec!["private-key"], Some(3)));
}

#[test]
fn only_changed_lines_count_and_allowed_files_are_named() {
    let mut made = Made { random: fastrand::Rng::with_seed(5) };
    let text = format!("a\n{}\nb\n{}\n", made.secret("github-pat")[0], made.secret("npm-token")[0]);
    let scanned = |changed: &[u32]| {
        scan([SourceFile { path: "a.ts", bytes: text.as_bytes(), changed: Some(changed) }].into_iter(), |_| false)
    };
    assert_eq!((rules(&scanned(&[4])), scanned(&[4]).lines), (vec!["npm-token"], 1));
    assert_eq!(rules(&scanned(&[1, 3])), Vec::<&str>::new());
    assert_eq!(scanned(&[]).judge().unwrap().code, "empty_diff");
    assert_eq!(scanned(&[1]).judge().unwrap().code, "no_secrets");
    let reason = scanned(&[2, 4]).judge().unwrap_err();
    assert_eq!(reason.code, "secrets_found");
    assert!(reason.message.contains("a.ts:2: ") && reason.message.contains("[github-pat]"), "{}", reason.message);
    let whole = SourceFile { path: "a.ts", bytes: text.as_bytes(), changed: None };
    let allowed = scan([whole].into_iter(), |path| path == "a.ts");
    assert_eq!((allowed.found.total(), allowed.allowed_findings, allowed.allowed), (0, 2, vec!["a.ts".to_owned()]));
}

#[test]
fn secrets_in_binaries_utf16_and_minified_lines_are_found() {
    let mut made = Made { random: fastrand::Rng::with_seed(9) };
    let token = made.secret("stripe-key")[0].clone();
    let wide: Vec<u8> =
        [0xff, 0xfe].into_iter().chain(format!("KEY={token}\r\n").encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let binary = [b"\0\x01\xff ".as_slice(), token.as_bytes(), b"\0"].concat();
    let minified = format!("{}var a=\"{token}\"", "x();".repeat(50_000));
    for bytes in [&wide[..], &binary, minified.as_bytes()] {
        let scan = scan([SourceFile { path: "a.js", bytes, changed: None }].into_iter(), |_| false);
        assert_eq!(rules(&scan), ["stripe-key"]);
        assert!(scan.findings[0].message.len() < 300);
    }
}

#[test]
fn every_secret_of_a_line_is_redacted_and_a_comment_allows_nothing() {
    let mut made = Made { random: fastrand::Rng::with_seed(13) };
    let (first, second) = (made.secret("github-token")[0].clone(), made.secret("stripe-key")[0].clone());
    let scan = scan_text("a.ts", &format!("f(\"{first}\", \"{second}\") // gitleaks:allow"));
    assert_eq!(rules(&scan), ["github-token", "stripe-key"]);
    for finding in &scan.findings {
        assert!(!finding.message.contains(&first[8..16]) && !finding.message.contains(&second[12..20]));
        assert!(
            finding.message.contains("[redacted:github-token]") && finding.message.contains("[redacted:stripe-key]")
        );
    }
    assert!(scan.findings[0].message.contains("checksum is wrong"), "{}", scan.findings[0].message);
}

#[test]
fn rules_are_unique_and_have_a_source() {
    let rules: BTreeSet<_> = SHAPES.iter().map(|shape| shape.rule).collect();
    assert_eq!(rules.len(), SHAPES.len());
    assert!(SHAPES.iter().all(|shape| shape.source.starts_with("https://") && !shape.name.is_empty()));
}

#[test]
fn a_hostile_line_takes_linear_time() {
    let line = "password=password=".repeat(200_000) + &"eyJ".repeat(200_000) + &"a:b@".repeat(100_000);
    assert!(scan_text("a.ts", &line).found.total() < 10_000);
}
