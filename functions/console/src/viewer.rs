//! The person who looks at a page. The header of each page shows them, and forms ask for no name if the session has it. A page
//! is rendered in the task of its request, so this is task-local.

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

/// Runs a request. [`enter`] sets its viewer.
pub async fn request<T>(future: impl Future<Output = T>) -> T {
    VIEWER.scope(OnceLock::new(), future).await
}

/// Whether people log in. Otherwise every request is that of the person `local`.
pub fn log_in(ctx: &Ctx) -> bool {
    ctx.config.auth.mode == Some(AuthMode::On)
}

/// Sets the viewer of this request, if people log in.
pub fn enter(ctx: &Ctx, session: &Session, headers: &HeaderMap) {
    if log_in(ctx) {
        let form_token = session_cookie(headers).and_then(ApiToken::parse).map(|token| token.form_token());
        let viewer = Viewer { session: session.clone(), form_token };
        let _ = VIEWER.try_with(|known| known.set(viewer).is_ok());
    }
}

/// Whether the session has the name of the person.
pub fn is_known() -> bool {
    VIEWER.try_with(|viewer| viewer.get().is_some()).unwrap_or_default()
}

/// The person who has logged in, if a statement of this request has confirmed it, with the token for forms.
pub fn principal() -> Option<(Principal, Option<String>)> {
    let known = |viewer: &Viewer| Some((viewer.session.known()?.clone(), viewer.form_token.clone()));
    VIEWER.try_with(|viewer| viewer.get().and_then(known)).ok().flatten()
}
