//! Submission: from clients that log in under TLS, anew for each mail, by way of a durable queue into Maildirs.

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::{delivery::Mailboxes, load::To, product::Task, trial};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    pub rounds: trial::Rounds,
    /// Who sends and to whom it is, in turn.
    #[arg(long, default_value_t = 10)]
    users: usize,
    /// Whether a password that was right is remembered.
    #[arg(long, value_delimiter = ',', default_values_t = [Passwords::Hashed, Passwords::Remembered])]
    passwords: Vec<Passwords>,
}

/// What a product does about passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Passwords {
    /// Each is hashed.
    Hashed,
    /// One that was right a moment ago counts, as far as the product does so.
    Remembered,
}

/// As it is typed.
impl std::fmt::Display for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hashed => "hashed",
            Self::Remembered => "remembered",
        })
    }
}

pub async fn run(options: &Options) -> Result<Value> {
    let mut results = Vec::new();
    for &passwords in &options.passwords {
        let task = Task::Submit {
            users: options.users,
            passwords,
        };
        println!("\npasswords are {passwords}\n");
        let mailboxes = Mailboxes::of(task, To::Colleagues(options.users));
        let mut result = trial::run("submission", &options.rounds, &mailboxes).await?;
        result["passwords"] = json!(passwords.to_string());
        results.push(result);
    }
    Ok(json!({ "bench": "submission", "users": options.users, "results": results }))
}
