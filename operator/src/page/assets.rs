//! The files of the page, which are part of the program.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

/// Path, media type and content of each file.
const FILES: [(&str, &str, &str); 9] = [
    ("/", HTML, include_str!("web/index.html")),
    // the same page, which shows the nodes at this path
    ("/nodes", HTML, include_str!("web/index.html")),
    ("/page.css", CSS, include_str!("web/page.css")),
    ("/page.js", SCRIPT, include_str!("web/page.js")),
    ("/dom.js", SCRIPT, include_str!("web/dom.js")),
    ("/charts.js", SCRIPT, include_str!("web/charts.js")),
    ("/nodes.js", SCRIPT, include_str!("web/nodes.js")),
    ("/function.js", SCRIPT, include_str!("web/function.js")),
    ("/icon.svg", "image/svg+xml", include_str!("web/icon.svg")),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Routes of the files. They contain no data, so they need no token: the page itself asks for it.
pub(super) fn routes() -> Router {
    let add = |router: Router, (path, media_type, content): (&str, &'static str, &'static str)| {
        // not cached, so that page and replica have the same version after an upgrade
        let headers = [
            (header::CONTENT_TYPE, media_type),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        router.route(
            path,
            get(move || async move { (headers, content).into_response() }),
        )
    };
    FILES.into_iter().fold(Router::new(), add)
}
