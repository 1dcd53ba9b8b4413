//! An error of the gateway as a page, for a browser that asked for one. The functions make all other pages.

use axum::http::{HeaderMap, header};
use shared::error::Code;

/// Whether a browser asked for a page of the console.
pub fn is_wanted(path: &str, headers: &HeaderMap) -> bool {
    let is_page = path == "/ui" || path.starts_with("/ui/");
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    is_page && accepts.flat_map(|value| value.split(',')).any(|kind| kind.trim_start().starts_with("text/html"))
}

/// The page. `detail` may have the words of a function.
pub fn of(code: Code, title: &str, detail: &str) -> String {
    let advice = match code {
        Code::NotTaken => "Nothing was changed. Reload the page in a moment.",
        Code::FunctionFailed | Code::FunctionTimedOut => {
            "If you sent a form, look whether it counted before you send it again."
        }
        _ => "",
    };
    let (title, detail) = (escaped(title), escaped(detail));
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title} · NOFX</title>\
         <link rel=\"stylesheet\" href=\"/ui/static/app.css\"></head><body><main class=\"page\"><div class=\"message\">\
         <h1>{title}</h1><p class=\"lead\" role=\"alert\"><bdi>{detail}</bdi></p><p>{advice}</p>\
         <p><a class=\"button\" href=\"/ui/runs\">All runs</a></p></div></main></body></html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_browser_on_a_page_gets_a_page() {
        let wanted = |path: &str, accept: &'static str| {
            is_wanted(path, &[(header::ACCEPT, accept.parse().unwrap())].into_iter().collect())
        };
        let browser = "text/html,application/xhtml+xml,*/*;q=0.8";
        assert!(wanted("/ui", browser) && wanted("/ui/gates/1/approve", browser) && wanted("/ui/x", "a/b, text/html"));
        assert!(!wanted("/runs", browser) && !wanted("/uix", browser));
        assert!(!wanted("/ui/runs", "*/*") && !wanted("/ui/runs", "application/json"));
        assert!(!is_wanted("/ui/runs", &HeaderMap::new()));
    }

    #[test]
    fn the_words_of_a_function_are_text() {
        let page = of(Code::FunctionFailed, "Bad Gateway", "failed: <script>\"&");
        assert!(page.contains("failed: &lt;script&gt;&quot;&amp;") && !page.contains("<script"), "{page}");
        assert!(page.contains("look whether it counted"), "{page}");
    }
}
