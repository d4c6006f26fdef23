//! What the lives of a queue were told, and told us.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::Write as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use postroad_envelope::{Fence, JobKey, LeaseRef, QueueId};

/// Rounds after which what has ended for certain is forgotten; whoever comes back then is a stranger.
const REMEMBERED: u64 = 40;

/// One mail; sets of recipients have a bit for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mail {
    pub all: u32,
    /// It was told that they are durable.
    pub acknowledged: u32,
    /// Their end was offered; it may be durable or not.
    pub trying: u32,
    /// It was told that their end is durable.
    pub ended: u32,
    /// It was told that they have failed, or were relayed to a host that does not report, and their sender wants to hear of it.
    pub failed: u32,
    /// It was told that the mail is held, and nobody tried to release it since.
    pub held: bool,
    /// Somebody dropped it: then debts go, too.
    pub excused: bool,
    /// Its account wanted it back, and was not told that it is too late.
    pub regretted: bool,
    /// It was offered while a rule was in force that holds one of its recipients, and nobody tried to release it since.
    pub ruled: bool,
    /// It was seen among the retired mails.
    pub retired: bool,
    /// Reports about it that were seen, with the recipients they are about.
    pub reports: BTreeMap<QueueId, u32>,
    /// The round of the last word about it.
    pub round: u64,
}

/// What is known of the one hold rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rule {
    #[default]
    Out,
    In,
    /// Somebody was about to change it.
    Unsure,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Told {
    pub round: u64,
    pub epoch: u64,
    pub mails: BTreeMap<QueueId, Mail>,
    /// What workers held when they died.
    pub leases: BTreeMap<JobKey, LeaseRef>,
    /// Results that were on their way then.
    pub settling: BTreeSet<JobKey>,
    /// Whether the hold rule is in force.
    pub rule: Rule,
    /// How often what was met.
    pub met: BTreeMap<String, u64>,
}

static QUIET: AtomicBool = AtomicBool::new(false);

/// Nothing is told any more: the queue is gone.
pub fn hush() {
    QUIET.store(true, Ordering::SeqCst);
}

/// Tells the parent; in one write, so no line is cut.
pub fn say(line: std::fmt::Arguments<'_>) {
    if !QUIET.load(Ordering::SeqCst) {
        let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
        let _ = std::io::stdout().flush();
    }
}

impl Told {
    /// What a life said. Hearing it twice is hearing it once, but for the counts.
    pub fn hear(&mut self, text: &str) {
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            // A line that is no word of ours is of the test harness.
            let _ = self.hear_line(&words);
        }
    }

    fn hear_line(&mut self, words: &[&str]) -> Option<()> {
        let mut met = *words.first()?;
        match *words {
            ["met", what] => met = what,
            ["epoch", epoch] => {
                let epoch = epoch.parse().ok()?;
                assert!(epoch >= self.epoch, "epoch {epoch} after {}", self.epoch);
                self.epoch = epoch;
                self.leases.clear();
            }
            ["leased", id, job, epoch, counter, revision] => {
                let job = job_key(id, job)?;
                let (epoch, counter) = (epoch.parse().ok()?, counter.parse().ok()?);
                let lease = LeaseRef {
                    job,
                    fence: Fence { epoch, counter },
                    revision: revision.parse().ok()?,
                };
                self.leases.insert(job, lease);
            }
            ["let-go", id, job] => drop(self.leases.remove(&job_key(id, job)?)),
            ["settling", id, job] => drop(self.settling.insert(job_key(id, job)?)),
            ["answered", id, job] => drop(self.settling.remove(&job_key(id, job)?)),
            ["counted"] => self.settling.clear(),
            ["rule", word] => self.hear_of_rule(word)?,
            ["report", id, set, report] => {
                let (report, set) = (report.parse().ok()?, set.parse().ok()?);
                // One that was seen for the last time before its mail was forgotten.
                let known = self.mails.get_mut(&id.parse().ok()?)?;
                known.reports.insert(report, set);
            }
            [word, id, set] => self.hear_of(word, id.parse().ok()?, set.parse().ok()?)?,
            _ => return None,
        }
        *self.met.entry(met.to_owned()).or_default() += 1;
        Some(())
    }

    fn hear_of_rule(&mut self, word: &str) -> Option<()> {
        self.rule = match word {
            "in" => Rule::In,
            "out" => Rule::Out,
            "unsure" => Rule::Unsure,
            "freeing" => {
                self.mails.values_mut().for_each(|mail| mail.ruled = false);
                return Some(());
            }
            _ => return None,
        };
        Some(())
    }

    fn hear_of(&mut self, word: &str, id: QueueId, set: u32) -> Option<()> {
        let round = self.round;
        let mail = self.mails.entry(id).or_default();
        match word {
            "offered" => mail.all = set,
            "acknowledged" => mail.acknowledged |= set,
            "trying" => mail.trying |= set,
            "ended" => mail.ended |= set,
            "failed" => mail.failed |= set,
            "held" => mail.held = true,
            "releasing" => (mail.held, mail.ruled) = (false, false),
            "ruled" => mail.ruled = true,
            // No news of it, but of what was known.
            "retired" => {
                mail.retired = true;
                return Some(());
            }
            "regretting" => (mail.regretted, mail.trying) = (true, mail.trying | set),
            "too-late" => mail.regretted = false,
            "dropping" => (mail.excused, mail.trying) = (true, mail.trying | set),
            _ => return None,
        }
        mail.round = round;
        Some(())
    }

    pub fn forget_the_old(&mut self) {
        let round = self.round;
        self.mails.retain(|_, mail| {
            let reported = mail.reports.values().fold(0, |all, set| all | set);
            let ended = mail.ended == mail.all && (mail.excused || mail.failed & !reported == 0);
            !ended || mail.round + REMEMBERED > round
        });
    }

    pub fn write(&self, folder: &Path) {
        let mut text = format!("round {} {}\n", self.round, self.epoch);
        let rule = match self.rule {
            Rule::In => "in",
            Rule::Out => "out",
            Rule::Unsure => "unsure",
        };
        writeln!(text, "rule {rule}").unwrap();
        for job in &self.settling {
            writeln!(text, "settling {} {}", job.queue_id, job.number).unwrap();
        }
        for (what, count) in &self.met {
            writeln!(text, "met {what} {count}").unwrap();
        }
        for (
            job,
            LeaseRef {
                fence, revision, ..
            },
        ) in &self.leases
        {
            let Fence { epoch, counter } = fence;
            let (id, number) = (job.queue_id, job.number);
            writeln!(text, "lease {id} {number} {epoch} {counter} {revision}").unwrap();
        }
        for (id, mail) in &self.mails {
            let Mail {
                all,
                acknowledged,
                trying,
                ended,
                failed,
                round,
                ..
            } = mail;
            let flags = u32::from(mail.held)
                | u32::from(mail.excused) << 1
                | u32::from(mail.ruled) << 2
                | u32::from(mail.retired) << 3
                | u32::from(mail.regretted) << 4;
            write!(
                text,
                "mail {id} {all} {acknowledged} {trying} {ended} {failed} {flags} {round}"
            )
            .unwrap();
            for (report, set) in &mail.reports {
                write!(text, " {report} {set}").unwrap();
            }
            text.push('\n');
        }
        let new = folder.join("told.new");
        fs::write(&new, text).unwrap();
        fs::rename(new, folder.join("told")).unwrap();
    }

    pub fn read(folder: &Path) -> Self {
        let mut told = Self::default();
        let text = fs::read_to_string(folder.join("told")).unwrap_or_default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            told.read_line(&words).expect("written by ourselves");
        }
        told
    }

    fn read_line(&mut self, words: &[&str]) -> Option<()> {
        match *words {
            ["round", round, epoch] => {
                (self.round, self.epoch) = (round.parse().ok()?, epoch.parse().ok()?);
            }
            ["met", what, count] => drop(self.met.insert(what.to_owned(), count.parse().ok()?)),
            ["lease", ..] => {
                let rest = words.get(1..)?;
                self.hear_line(&[&["leased"], rest].concat())?;
                *self.met.get_mut("leased")? -= 1;
            }
            ["rule", word] => self.hear_of_rule(word)?,
            ["settling", id, job] => drop(self.settling.insert(job_key(id, job)?)),
            ["mail", id, ref rest @ ..] => {
                let (facts, reports) = rest.split_at_checked(7)?;
                let facts: Vec<u64> = facts.iter().filter_map(|word| word.parse().ok()).collect();
                let &[all, acknowledged, trying, ended, failed, flags, round] = &facts[..] else {
                    return None;
                };
                let set = |bits| u32::try_from(bits).ok();
                let mut mail = Mail {
                    all: set(all)?,
                    acknowledged: set(acknowledged)?,
                    trying: set(trying)?,
                    ended: set(ended)?,
                    failed: set(failed)?,
                    held: flags & 1 != 0,
                    excused: flags & 2 != 0,
                    regretted: flags & 16 != 0,
                    ruled: flags & 4 != 0,
                    retired: flags & 8 != 0,
                    round,
                    ..Mail::default()
                };
                for report in reports.chunks(2) {
                    let [report, set] = report else { return None };
                    mail.reports.insert(report.parse().ok()?, set.parse().ok()?);
                }
                self.mails.insert(id.parse().ok()?, mail);
            }
            _ => return None,
        }
        Some(())
    }
}

fn job_key(id: &str, number: &str) -> Option<JobKey> {
    Some(JobKey {
        queue_id: id.parse().ok()?,
        number: number.parse().ok()?,
    })
}

/// Any mail's content follows from its id.
pub fn content_of(id: QueueId) -> Vec<u8> {
    let bytes = id.to_bytes();
    let [.., a, b, c] = bytes;
    let len = match a {
        // Above what lies in a record.
        0..8 => 262_100 + usize::from(b) * 300,
        8..60 => usize::from(b) * 160,
        _ => usize::from(b) * 12 + usize::from(c),
    };
    let line = format!("{id} of which this is line ");
    let mut content = Vec::with_capacity(len + 64);
    for number in 0_u32.. {
        if content.len() >= len {
            break;
        }
        content.extend_from_slice(line.as_bytes());
        content.extend_from_slice(&number.to_be_bytes());
        content.extend_from_slice(b"\r\n");
    }
    content.truncate(len);
    content
}
