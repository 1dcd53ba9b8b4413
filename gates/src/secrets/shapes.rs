//! The shapes of known secrets: one row for each, with the page that describes it.
//!
//! The secret is the pattern's first group, or the whole match. Patterns match bytes, and take time linear in the text.

use std::collections::BTreeSet;
use std::sync::{LazyLock, OnceLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use regex::bytes::{Regex, RegexBuilder};

/// What a match must fulfil besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The shape is rare enough.
    Shape,
    /// Entropy of at least 3 bits a character, because the name beside it is all that makes it a secret.
    Random,
    /// Six base-62 digits of a CRC-32 at the end. A wrong one is reported too, and said to be wrong.
    Crc32,
    /// A JSON web token that is not public by design.
    Jwt,
    /// A password in a URL that is not a well-known one of a local server.
    Url,
    /// A mark in the middle of 84 to 90 characters of base 64. The pattern starts at the mark.
    AzureKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub rule: &'static str,
    pub name: &'static str,
    /// Texts of which one is in every match, in upper or lower case. Only lines that have one are looked at closely.
    pub keywords: &'static str,
    pub pattern: &'static str,
    pub check: Check,
    /// Who says that secrets look like this.
    pub source: &'static str,
}

const fn shape(
    rule: &'static str,
    name: &'static str,
    keywords: &'static str,
    pattern: &'static str,
    check: Check,
    source: &'static str,
) -> Shape {
    Shape { rule, name, keywords, pattern, check, source }
}

use Check::{AzureKey, Crc32, Jwt, Random, Shape as Rare, Url};

#[rustfmt::skip]
pub const SHAPES: &[Shape] = &[
    shape("aws-access-key", "AWS access key id", "A3T AKIA ASIA ABIA ACCA", r"\b((?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16})\b", Rare, "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html"),
    shape("aws-secret-key", "AWS secret access key", "key", r#"(?i)\b(?:aws|amazon|secret|s3)[\w.-]{0,30}key["']?\s{0,5}(?:=>|[:=,])\s{0,5}["'`]?([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$)"#, Random, "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html"),
    shape("aws-bedrock-key", "Amazon Bedrock API key", "ABSK bedrock-api-key-", r"\b(ABSK[A-Za-z0-9+/]{109,269}={0,2}|bedrock-api-key-[A-Za-z0-9+/]{60,}={0,2})", Rare, "https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html"),
    shape("github-token", "GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", r"\b(gh[pousr]_[A-Za-z0-9]{36,255})\b", Crc32, "https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/"),
    shape("github-pat", "GitHub fine-grained token", "github_pat_", r"\b(github_pat_\w{60,255})\b", Rare, "https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github"),
    shape("gitlab-token", "GitLab token", "glpat- gldt- glrt- glrtr- glcbt- glptt- glft- glsoat- glimt- glagent- glffct- glwt- gloas- GR1348941", r"\b(gl(?:pat|dt|rt|rtr|cbt|ptt|ft|soat|imt|agent|ffct|wt|oas)-[0-9A-Za-z_.-]{20,}|GR1348941[0-9A-Za-z_-]{20})", Rare, "https://docs.gitlab.com/security/tokens/#token-prefixes"),
    shape("slack-token", "Slack token", "xox xapp-", r"\b(xox[abeoprs](?:\.xox[bp])?-[0-9A-Za-z-]{10,}|xapp-\d-[A-Z0-9]+-\d+-[0-9a-f]{20,})", Rare, "https://api.slack.com/authentication/token-types"),
    shape("slack-webhook", "Slack webhook", "hooks.slack.com", r"(https://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{40,})", Rare, "https://api.slack.com/messaging/webhooks"),
    shape("stripe-key", "Stripe key", "sk_live_ sk_test_ sk_prod_ rk_live_ rk_test_ rk_prod_", r"\b((?:sk|rk)_(?:live|test|prod)_[0-9A-Za-z]{16,250})\b", Rare, "https://docs.stripe.com/keys"),
    shape("stripe-webhook-secret", "webhook signing secret", "whsec_", r"\b(whsec_[A-Za-z0-9+/]{24,}={0,2})", Rare, "https://docs.stripe.com/webhooks"),
    shape("openai-key", "OpenAI key", "sk-", r"\b(sk-(?:proj|svcacct|admin|service|None)-[A-Za-z0-9_-]{20,}|sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}|sk-[A-Za-z0-9]{32,64})\b", Rare, "https://platform.openai.com/docs/api-reference/authentication"),
    shape("anthropic-key", "Anthropic key", "sk-ant-", r"\b(sk-ant-[a-z0-9]{3,12}-[A-Za-z0-9_-]{20,})", Rare, "https://docs.anthropic.com/en/api/overview"),
    shape("openrouter-key", "OpenRouter key", "sk-or-v1-", r"\b(sk-or-v1-[0-9a-f]{64})\b", Rare, "https://openrouter.ai/docs/api-reference/authentication"),
    shape("google-api-key", "Google API key", "AIza", r"\b(AIza[0-9A-Za-z_-]{35})(?:[^0-9A-Za-z_-]|$)", Rare, "https://cloud.google.com/docs/authentication/api-keys"),
    shape("google-oauth", "Google OAuth secret", "GOCSPX- ya29. 1//0 AQ.Ab", r"\b(GOCSPX-[A-Za-z0-9_-]{28}|ya29\.[0-9A-Za-z_-]{30,}|1//0[0-9A-Za-z_-]{40,}|AQ\.Ab[0-9A-Za-z_-]{40,})", Rare, "https://developers.google.com/identity/protocols/oauth2"),
    shape("azure-key", "Azure account key", "AccountKey SharedAccessKey", r"(?i)(?:AccountKey|SharedAccessKey)\s?=\s?([A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{86}==)", Rare, "https://learn.microsoft.com/azure/storage/common/storage-account-keys-manage"),
    shape("azure-client-secret", "Azure client secret", "Q~", r#"(?:^|[\s'"`=:,(>])([A-Za-z0-9_~.]{3}\dQ~[A-Za-z0-9_~.-]{31,34})(?:[\s'"`,;)<]|$)"#, Rare, "https://learn.microsoft.com/purview/sit-defn-client-secret-api-key"),
    shape("azure-identifiable-key", "Azure key", "JQQJ99 AZDO +ASt AzCa AzSe AzFu +ACR +ABa +AMC +AIo +ARm +AEh", r"((?:JQQJ99[A-Za-z0-9]{18}|AZDO|\+ASt|AzCa|AzSe|AzFu|\+ACR|\+ABa|\+AMC|\+AIo|\+ARm|\+AEh)[A-Za-z0-9+/]{4,12}={0,2})", AzureKey, "https://github.com/microsoft/security-utilities"),
    shape("azure-sas", "Azure shared access signature", "sig=", r"(?i)[?&]sv=\d{4}-\d\d-\d\d[^\s'\x22]{0,300}&sig=([A-Za-z0-9%+/]{43,65}(?:%3D|=))", Rare, "https://learn.microsoft.com/azure/storage/common/storage-sas-overview"),
    shape("nofx-token", "NOFX token", "nofx_agent_ nofx_service_ nofx_person_ nofx_link_", r"\b(nofx_(?:agent|service|person|link)_[a-z2-7]{26,130}_[a-z2-7]{20,})", Rare, "https://www.rfc-editor.org/rfc/rfc4648#section-6"),
    shape("npm-token", "npm token", "npm_", r"\b(npm_[A-Za-z0-9]{36})\b", Crc32, "https://github.blog/changelog/2021-09-23-npm-has-a-new-access-token-format/"),
    shape("npmrc-auth", "npm registry password", "_auth _password", r#"(?i)(?:^|[/:\s"'`=])_(?:authToken|auth|password)\s?=\s?["']?([A-Za-z0-9+/=_.-]{8,})"#, Random, "https://docs.npmjs.com/cli/configuring-npm/npmrc"),
    shape("pypi-token", "PyPI token", "pypi-Ag", r"\b(pypi-Ag(?:EIcHlwaS5vcmc|ENdGVzdC5weXBpLm9yZw)[A-Za-z0-9_-]{50,})", Rare, "https://docs.pypi.org/api/secrets/"),
    shape("sendgrid-key", "SendGrid key", "SG.", r"\b(SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64})", Rare, "https://www.twilio.com/docs/sendgrid/ui/account-and-settings/api-keys"),
    shape("twilio-key", "Twilio key", "SK", r"\b(SK[0-9a-f]{32})\b", Rare, "https://www.twilio.com/docs/iam/api-keys"),
    shape("twilio-auth-token", "Twilio auth token", "twilio", r#"(?i)twilio[\w.-]{0,30}["']?\s{0,5}(?:=>|[:=,])\s{0,5}["'`]?([0-9a-f]{32})\b"#, Random, "https://www.twilio.com/docs/iam/api/authtoken"),
    shape("supabase-key", "Supabase key", "sb_secret_ sbp_", r"\b(sb_secret_[A-Za-z0-9_-]{20,}|sbp_(?:v0_|oauth_)?[0-9a-f]{40})\b", Rare, "https://supabase.com/docs/guides/api/api-keys"),
    shape("jwt", "JSON web token", "eyJ", r"\b(eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,})", Jwt, "https://www.rfc-editor.org/rfc/rfc7519"),
    shape("url-password", "password in a URL", "://", r#"\b([a-zA-Z][a-zA-Z0-9+.-]{1,30}://[^\s:/@'"`<>\\|]{0,100}:[^\s/@'"`<>\\|]{2,200}@[A-Za-z0-9_.\[\]{}$-]{1,200})"#, Url, "https://www.rfc-editor.org/rfc/rfc3986#section-3.2.1"),
    shape("authorization-header", "Authorization header", "authorization", r#"(?i)\bauthorization["']?\s{0,3}[:=,]\s{0,3}["'`]?(?:bearer|basic|token|apikey)\s+([A-Za-z0-9._~+/=-]{20,})"#, Random, "https://www.rfc-editor.org/rfc/rfc9110#section-11.6.2"),
    shape("age-key", "age key", "AGE-SECRET-KEY-1", r"\b(AGE-SECRET-KEY-1[0-9A-Z]{58})\b", Rare, "https://age-encryption.org/v1"),
    shape("digitalocean-token", "DigitalOcean token", "_v1_", r"\b(do[oprt]_v1_[0-9a-f]{64})\b", Rare, "https://docs.digitalocean.com/reference/api/create-personal-access-token/"),
    shape("shopify-token", "Shopify token", "shpat_ shpca_ shppa_ shpss_ shptka_", r"\b(shp(?:at|ca|pa|ss|tka)_[0-9a-fA-F]{32})\b", Rare, "https://shopify.dev/docs/apps/build/authentication-authorization"),
    shape("square-token", "Square token", "sq0atp- sq0csp- sq0idp- EAAA", r"\b(sq0(?:atp|csp|idp)-[0-9A-Za-z_-]{22,43}|EAAA[0-9A-Za-z_-]{60})\b", Rare, "https://developer.squareup.com/docs/build-basics/access-tokens"),
    shape("mailgun-key", "Mailgun key", "key-", r"\b(key-[0-9a-f]{32})\b", Rare, "https://documentation.mailgun.com/docs/mailgun/user-manual/api-key-mgmt/"),
    shape("mailchimp-key", "Mailchimp key", "-us", r"\b([0-9a-f]{32}-us\d{1,2})\b", Rare, "https://mailchimp.com/developer/marketing/guides/quick-start/"),
    shape("brevo-key", "Brevo key", "xkeysib-", r"\b(xkeysib-[0-9a-f]{64}-[A-Za-z0-9]{16})\b", Rare, "https://developers.brevo.com/docs/getting-started"),
    shape("resend-key", "Resend key", "re_", r"\b(re_[A-Za-z0-9]{8}_[A-Za-z0-9]{20,30})\b", Rare, "https://resend.com/docs/dashboard/api-keys/introduction"),
    shape("postmark-token", "Postmark token", "postmark", r#"(?i)postmark[\w.-]{0,30}["']?\s{0,5}[:=,]\s{0,5}["'`]?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\b"#, Random, "https://postmarkapp.com/developer/api/overview"),
    shape("telegram-token", "Telegram bot token", ":AA", r"\b(\d{8,10}:AA[0-9A-Za-z_-]{33})(?:[^0-9A-Za-z_-]|$)", Rare, "https://core.telegram.org/bots/api#authorizing-your-bot"),
    shape("discord-token", "Discord bot token", ".", r"\b([MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38})\b", Rare, "https://discord.com/developers/docs/reference#authentication"),
    shape("discord-webhook", "Discord webhook", "/api/webhooks/", r"(https://(?:ptb\.|canary\.)?discord(?:app)?\.com/api/webhooks/\d{17,20}/[A-Za-z0-9_-]{60,})", Rare, "https://discord.com/developers/docs/resources/webhook"),
    shape("heroku-key", "Heroku key", "HRKU-", r"\b(HRKU-[0-9A-Za-z_-]{36,64})", Rare, "https://devcenter.heroku.com/articles/authentication"),
    shape("databricks-token", "Databricks token", "dapi", r"\b(dapi[0-9a-f]{32}(?:-\d)?)\b", Rare, "https://docs.databricks.com/dev-tools/auth/pat.html"),
    shape("vault-token", "HashiCorp Vault token", "hvs. hvb. hvr.", r"\b(hv[sbr]\.[A-Za-z0-9_-]{24,})", Rare, "https://developer.hashicorp.com/vault/docs/concepts/tokens"),
    shape("terraform-token", "Terraform Cloud token", ".atlasv1.", r"\b([A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,70})", Rare, "https://developer.hashicorp.com/terraform/cloud-docs/users-teams-organizations/api-tokens"),
    shape("huggingface-token", "Hugging Face token", "hf_ api_org_", r"\b(hf_[A-Za-z0-9]{34}|api_org_[A-Za-z]{34})\b", Rare, "https://huggingface.co/docs/hub/security-tokens"),
    shape("replicate-token", "Replicate token", "r8_", r"\b(r8_[0-9A-Za-z]{37})\b", Rare, "https://replicate.com/docs/topics/security/api-tokens"),
    shape("groq-key", "Groq key", "gsk_", r"\b(gsk_[A-Za-z0-9]{52})\b", Rare, "https://console.groq.com/docs/quickstart"),
    shape("xai-key", "xAI key", "xai-", r"\b(xai-[A-Za-z0-9]{70,90})\b", Rare, "https://docs.x.ai/docs/overview"),
    shape("perplexity-key", "Perplexity key", "pplx-", r"\b(pplx-[A-Za-z0-9]{40,60})\b", Rare, "https://docs.perplexity.ai/getting-started/quickstart"),
    shape("langsmith-key", "LangSmith key", "lsv2_", r"\b(lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10})\b", Rare, "https://docs.smith.langchain.com/administration/how_to_guides/organization_management/create_account_api_key"),
    shape("linear-key", "Linear key", "lin_api_ lin_oauth_", r"\b(lin_(?:api|oauth)_[A-Za-z0-9]{40,64})\b", Rare, "https://linear.app/developers/graphql#personal-api-keys"),
    shape("notion-token", "Notion token", "ntn_ secret_", r"\b(ntn_\d{11}[A-Za-z0-9]{32,35}|secret_[A-Za-z0-9]{43})\b", Rare, "https://developers.notion.com/docs/authorization"),
    shape("doppler-token", "Doppler token", "dp.", r"\b(dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]{2,35}\.)?[A-Za-z0-9]{40,44})\b", Rare, "https://docs.doppler.com/reference/auth-token-formats"),
    shape("pulumi-token", "Pulumi token", "pul-", r"\b(pul-[0-9a-f]{40})\b", Rare, "https://www.pulumi.com/docs/administration/access-identity/access-tokens/"),
    shape("grafana-token", "Grafana token", "glsa_ glc_", r"\b(glsa_[A-Za-z0-9]{32}_[0-9a-fA-F]{8}|glc_[A-Za-z0-9+/]{32,400}={0,3})", Rare, "https://grafana.com/docs/grafana/latest/administration/service-accounts/"),
    shape("newrelic-key", "New Relic key", "NRAK- NRJS- NRII-", r"\b(NRAK-[A-Z0-9]{27}|NRJS-[a-f0-9]{19}|NRII-[A-Za-z0-9_-]{32})\b", Rare, "https://docs.newrelic.com/docs/apis/intro-apis/new-relic-api-keys/"),
    shape("sentry-token", "Sentry token", "sntrys_ sntryu_", r"\b(sntrys_eyJ[A-Za-z0-9+/=_]{60,}|sntryu_[0-9a-f]{64})", Rare, "https://docs.sentry.io/account/auth-tokens/"),
    shape("dockerhub-token", "Docker Hub token", "dckr_", r"\b(dckr_(?:pat|oat)_[A-Za-z0-9_-]{27,40})", Rare, "https://docs.docker.com/security/access-tokens/"),
    shape("rubygems-key", "RubyGems key", "rubygems_", r"\b(rubygems_[0-9a-f]{48})\b", Rare, "https://guides.rubygems.org/api-key-scopes/"),
    shape("crates-io-token", "crates.io token", "cio", r"\b(cio[A-Za-z0-9]{32})\b", Random, "https://crates.io/settings/tokens"),
    shape("postman-key", "Postman key", "PMAK-", r"\b(PMAK-[0-9a-f]{24}-[0-9a-f]{34})\b", Rare, "https://learning.postman.com/docs/developer/postman-api/authentication/"),
    shape("figma-token", "Figma token", "figd_ figo_ figu_ figr_ figor_ figur_", r"\b(fig[dour]{1,2}_[A-Za-z0-9_-]{40})\b", Rare, "https://developers.figma.com/docs/rest-api/authentication/"),
    shape("airtable-token", "Airtable token", "pat", r"\b(pat[A-Za-z0-9]{14}\.[0-9a-f]{64})\b", Rare, "https://airtable.com/developers/web/guides/personal-access-tokens"),
    shape("atlassian-token", "Atlassian token", "TT3xFf", r"\b(AT[AC]TT3xFf[A-Za-z0-9+/=_-]{100,250})", Rare, "https://support.atlassian.com/atlassian-account/docs/manage-api-tokens-for-your-atlassian-account/"),
    shape("planetscale-token", "PlanetScale token", "pscale_", r"\b(pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_=.-]{32,64})", Rare, "https://planetscale.com/docs/concepts/service-tokens"),
    shape("netlify-token", "Netlify token", "nfp_ nfc_ nfo_ nfu_", r"\b(nf[pcou]_[A-Za-z0-9]{36,40})\b", Rare, "https://docs.netlify.com/api/get-started/"),
    shape("flyio-token", "Fly.io token", "fm1_ fm2_ fm1a_ fm2a_ fm1r_ fm2r_ fo1_", r"\b(fm[12][ar]?_[A-Za-z0-9+/]{80,}={0,3}|fo1_[A-Za-z0-9_-]{43})", Rare, "https://fly.io/docs/security/tokens/"),
    shape("cloudflare-key", "Cloudflare origin CA key", "v1.0-", r"\b(v1\.0-[0-9a-f]{24}-[0-9a-f]{146})\b", Rare, "https://developers.cloudflare.com/fundamentals/api/get-started/ca-keys/"),
    shape("braintree-token", "PayPal Braintree token", "access_token$", r"(access_token\$(?:production|sandbox)\$[0-9a-z]{16}\$[0-9a-f]{32})", Rare, "https://developer.paypal.com/braintree/docs/guides/authorization/overview"),
    shape("facebook-token", "Facebook token", "EAAM EAAC", r"\b(EAA[MC][A-Za-z0-9]{100,250})\b", Rare, "https://developers.facebook.com/docs/facebook-login/guides/access-tokens"),
    shape("vercel-token", "Vercel token", "vcp_ vci_ vck_ vcr_ vca_", r"\b(vc[pikra]_[A-Za-z0-9]{50,70})\b", Rare, "https://vercel.com/docs/rest-api"),
    shape("clickhouse-key", "ClickHouse Cloud key", "4b1d", r"\b(4b1d[A-Za-z0-9]{38})\b", Random, "https://clickhouse.com/docs/cloud/manage/openapi"),
];

/// The start of a private key. The key itself follows, on this line or on the next ones.
pub const PRIVATE_KEY_RULE: &str = "private-key";
pub static PRIVATE_KEY_START: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-\d|BEGIN SSH2 ENCRYPTED PRIVATE KEY",
    )
});
pub static PRIVATE_KEY_END: LazyLock<Regex> = LazyLock::new(|| {
    compile(r"-----END (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----|Private-MAC:|END SSH2 ENCRYPTED PRIVATE KEY")
});

/// One pattern. Unicode classes are off: `\w` and `\b` are of ASCII, which is what tokens consist of.
pub fn compile(pattern: &str) -> Regex {
    RegexBuilder::new(pattern).unicode(false).size_limit(4 << 20).build().expect("a valid pattern")
}

/// The keywords of all shapes, and the shape of each.
static KEYWORDS: LazyLock<(AhoCorasick, Vec<usize>)> = LazyLock::new(|| {
    let of_shapes = SHAPES.iter().enumerate();
    let keywords = of_shapes.flat_map(|(index, shape)| shape.keywords.split(' ').map(move |keyword| (keyword, index)));
    let (keywords, indexes): (Vec<&str>, Vec<usize>) = keywords.unzip();
    let automaton =
        AhoCorasick::builder().ascii_case_insensitive(true).kind(Some(AhoCorasickKind::DFA)).build(keywords);
    (automaton.expect("a small set of keywords"), indexes)
});

static EACH: [OnceLock<Regex>; SHAPES.len()] = [const { OnceLock::new() }; SHAPES.len()];

/// A secret in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    pub shape: &'static Shape,
    pub start: usize,
    pub end: usize,
}

/// The shapes of which a keyword is in the line.
fn candidates(line: &[u8]) -> BTreeSet<usize> {
    let (automaton, indexes) = &*KEYWORDS;
    automaton.find_overlapping_iter(line).filter_map(|found| indexes.get(found.pattern().as_usize()).copied()).collect()
}

/// At most this many secrets of a shape are looked for in one line.
const MAX_MATCHES: usize = 1_000;

/// Everything in the line that has a known shape, without further checks.
pub fn matches(line: &[u8]) -> Vec<Match> {
    let mut found = Vec::new();
    for index in candidates(line) {
        let (Some(shape), Some(pattern)) = (SHAPES.get(index), EACH.get(index)) else { continue };
        let pattern = pattern.get_or_init(|| compile(shape.pattern));
        for captures in pattern.captures_iter(line).take(MAX_MATCHES) {
            if let Some(secret) = captures.get(1).or_else(|| captures.get(0)) {
                let (start, end) = (secret.start(), secret.end());
                let start = if shape.check == AzureKey { start - base64_before(line, start) } else { start };
                if shape.check != AzureKey || (80..=92).contains(&(end - start)) {
                    found.push(Match { shape, start, end });
                }
            }
        }
    }
    found
}

/// How many characters of base 64 precede the place. More than a key has are not counted.
fn base64_before(line: &[u8], at: usize) -> usize {
    let is_base64 = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    line.get(..at).unwrap_or_default().iter().rev().take(100).take_while(is_base64).count()
}
