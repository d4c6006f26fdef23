//! Delivery: from a client by way of a durable queue into Maildirs.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use clap::Args;
use serde_json::Value;

use crate::{
    load::{Mails, To},
    product::{Product, Task},
    sink::Count,
    trial::{self, Goal},
};

/// Mailboxes are a product's.
const NOWHERE: &str = "without a product there is no mailbox";

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    pub rounds: trial::Rounds,
    /// Whom the mails are to, in turn.
    #[arg(long, default_value_t = 1)]
    users: usize,
}

/// Maildirs of a product, as where mails go.
pub struct Mailboxes {
    task: Task<'static>,
    to: To,
    expected: Mutex<Arc<Mails>>,
}

pub async fn run(options: &Options) -> Result<Value> {
    let task = Task::Deliver {
        users: options.users,
    };
    let mailboxes = Mailboxes::of(task, To::Users(options.users));
    trial::run("delivery", &options.rounds, &mailboxes).await
}

impl Mailboxes {
    /// Of a product with this task, for mails to these.
    pub fn of(task: Task<'static>, to: To) -> Self {
        Self {
            task,
            to,
            expected: Mutex::new(Arc::new(Mails::new(0, 0, to, 0))),
        }
    }
}

#[async_trait(?Send)]
impl Goal for Mailboxes {
    fn task(&self) -> Task<'_> {
        self.task
    }

    fn to(&self) -> To {
        self.to
    }

    fn expect(&self, mails: &Arc<Mails>) {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        *expected = Arc::clone(mails);
    }

    /// What is in no queue any more is in a mailbox, or lost, which [`count`](Self::count) finds.
    async fn all_arrived(&self, product: Option<&Product>) -> Result<()> {
        product.context(NOWHERE)?.idle().await
    }

    /// Takes the mails out, so that those of the next pass are alone there.
    fn count(&self, product: Option<&Product>) -> Result<Count> {
        let product = product.context(NOWHERE)?;
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let mut times = vec![0_u32; expected.count];
        let mut count = Count::default();
        each_mail(&product.mailboxes(), &mut |file| {
            let content = fs::read(file)?;
            fs::remove_file(file)?;
            // Lines end as they do on this system.
            let content = String::from_utf8_lossy(&content).replace("\r\n", "\n");
            let number = expected.number(content.replace('\n', "\r\n").as_bytes());
            match number.and_then(|number| times.get_mut(number)) {
                Some(times) => *times += 1,
                None => count.strange += 1,
            }
            Ok(())
        })?;
        for times in times {
            count.arrived += usize::from(times > 0);
            count.repeated += usize::from(times > 1);
        }
        Ok(count)
    }
}

/// All files in folders called `new`.
pub fn each_mail(folder: &Path, take: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            each_mail(&entry.path(), take)?;
        } else if folder.ends_with("new") {
            take(&entry.path())?;
        }
    }
    Ok(())
}
