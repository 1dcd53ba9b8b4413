//! Who looks at a page. The header of each page names them, and forms ask for no name if the session says it. A page is
//! rendered in the task of its request, so this travels with the task.

use std::future::Future;
use std::sync::OnceLock;

use axum::http::HeaderMap;
use shared::auth::ApiToken;
use shared::config::AuthMode;
use shared::context::Ctx;
use shared::db::Session;
use shared::domain::principal::Principal;
use shared::http::session_cookie;

tokio::task_local! {
    static VIEWER: OnceLock<Viewer>;
}

/// Somebody who has logged in.
struct Viewer {
    session: Session,
    /// The token for forms of the session in the cookie. None for a credential in a header.
    form_token: Option<String>,
}

/// Runs a request. Whoever it is of is known after [`enter`].
pub async fn request<T>(future: impl Future<Output = T>) -> T {
    VIEWER.scope(OnceLock::new(), future).await
}

/// Whether people log in. Else the one person of the stack acts.
pub fn log_in(ctx: &Ctx) -> bool {
    ctx.config.auth.mode == Some(AuthMode::On)
}

/// Says whose request this is, if people log in.
pub fn enter(ctx: &Ctx, session: &Session, headers: &HeaderMap) {
    if log_in(ctx) {
        let form_token = session_cookie(headers).and_then(ApiToken::parse).map(|token| token.form_token());
        let viewer = Viewer { session: session.clone(), form_token };
        let _ = VIEWER.try_with(|known| known.set(viewer).is_ok());
    }
}

/// Whether the session says who acts.
pub fn is_known() -> bool {
    VIEWER.try_with(|viewer| viewer.get().is_some()).unwrap_or_default()
}

/// The person who has logged in, if a statement of this request has confirmed it, with the token for forms.
pub fn principal() -> Option<(Principal, Option<String>)> {
    let known = |viewer: &Viewer| Some((viewer.session.known()?.clone(), viewer.form_token.clone()));
    VIEWER.try_with(|viewer| viewer.get().and_then(known)).ok().flatten()
}
