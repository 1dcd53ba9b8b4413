//! `nofx inbox`: the pending gates that the caller may decide, or all of them.

use std::time::SystemTime;

use anyhow::Result;
use shared::view::Gate;

use crate::client::api::Api;
use crate::output::color::{BAD, WAIT, command};
use crate::output::table::{self, Table, cell, styled};
use crate::output::{self, Format, time};

#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Also show gates that you may not decide
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    format: Format,
}

/// Prints a line for each gate, the oldest first.
pub async fn run(api: &Api, args: &Args) -> Result<()> {
    let pages: Vec<Vec<Gate>> = api.pages("/gates").await?;
    let now = SystemTime::now();
    let may_decide = |gate: &Gate| gate.standing.may_decide.is_none_or(|may| may.ok || may.waive);
    // Nobody can decide an expired gate. It is listed for everybody until the sweeper ends it.
    let (gates, others): (Vec<Gate>, Vec<Gate>) = pages
        .into_iter()
        .flatten()
        .partition(|gate| args.all || may_decide(gate) || time::is_over(gate.expires_at.as_ref(), now));
    if args.format.json {
        return output::json(&gates);
    }
    if gates.is_empty() {
        output::note(match others.len() {
            0 => "nothing waits for a decision".to_owned(),
            count => format!("nothing waits for you; {count} for others: nofx inbox --all"),
        });
        return Ok(());
    }
    output::text(table(&gates, now))?;
    output::note(format_args!("\ndecide with {}, nofx reject or nofx waive", command("nofx approve GATE")));
    Ok(())
}

fn table(gates: &[Gate], now: SystemTime) -> Table {
    let mut table = Table::new(&["GATE", "TYPE", "WAITS", "RUN", "REASON"]).whole(&[0, 2]);
    for gate in gates {
        table.row(vec![
            table::id(&gate.id, table::terminal_width()),
            styled(&gate.gate_type, WAIT),
            if time::is_over(gate.expires_at.as_ref(), now) {
                styled("time is over", BAD)
            } else {
                cell(time::ago(&gate.created_at, now).trim_end_matches(" ago"))
            },
            table::id(&gate.run_id, table::terminal_width()),
            cell(gate.reason.as_deref().and_then(|reason| reason.lines().next()).unwrap_or_default()),
        ]);
    }
    table
}
