//! Serves the gallery of the console's pages: `nofx exec -- target/debug/console-gallery`.
//!
//! It prints the name and the address of each page, or a JSON list with `--list`. What a reader starts goes on: workers
//! deliver wake-ups until Ctrl-C. With `--script` it runs a file of `tests/browser` on the pages instead, and ends.

use std::net::Ipv4Addr;

use clap::Parser;
use nofx_tests::browser;
use nofx_tests::gallery::Gallery;
use tokio::net::TcpListener;

#[derive(Parser)]
struct Args {
    /// Port of 127.0.0.1; by default a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Print a JSON list of the pages
    #[arg(long)]
    list: bool,
    /// Run this file of tests/browser
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    script: Option<String>,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await.expect("the port is free");
    let gallery = Gallery::open(listener).await;
    if let Some(file) = &args.script {
        return browser::run_on(&gallery, &[file]).await;
    }
    if args.list {
        println!("{:#}", gallery.list());
    } else {
        for page in &gallery.pages {
            println!("{:<24} {}{}", page.name, gallery.url, page.path);
        }
        for page in &gallery.missing {
            println!("{:<24} has no route yet: {}", page.name, page.path);
        }
    }
    gallery.work().await;
}
