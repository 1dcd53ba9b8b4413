//! The benchmark's chain of five steps as Restate services. Each step repeats the result of the previous one. One handler
//! runs the steps itself (`ctx.run`, journaled), the other calls another handler for each step.
//!
//! Usage: restate-chain PORT. Listens on 127.0.0.1.

use std::error::Error;

use restate_sdk::prelude::*;
use tokio::net::TcpListener;

const STEPS: usize = 5;

struct Echo;

#[service]
impl Echo {
    #[handler]
    async fn say(&self, _ctx: Context<'_>, text: String) -> HandlerResult<String> {
        Ok(text)
    }
}

struct Chain;

#[service]
impl Chain {
    #[handler]
    async fn runs(&self, ctx: Context<'_>, text: String) -> HandlerResult<String> {
        let mut text = text;
        for _ in 0..STEPS {
            let previous = text;
            text = ctx.run(|| async move { Ok(previous) }).await?;
        }
        Ok(text)
    }

    #[handler]
    async fn calls(&self, ctx: Context<'_>, text: String) -> HandlerResult<String> {
        let mut text = text;
        for _ in 0..STEPS {
            text = ctx.service_client::<EchoClient>().say(text).call().await?;
        }
        Ok(text)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: restate-chain PORT")?.parse()?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    HttpServer::new(Endpoint::builder().bind(Echo).bind(Chain).build()).serve(listener).await;
    Ok(())
}
