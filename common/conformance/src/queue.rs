//! The queue as its agents find it.

pub(crate) mod caller;
mod counting;
mod losing;
mod submitting;
mod withdrawing;
mod worker;
mod working;

use std::time::Duration;

use futures::future::BoxFuture;
use tonic::transport::Channel;

use crate::{
    Deed, Finding,
    rules::{self, Outcome, Set, Stage, rules},
};

/// A queue to try, and as whom.
#[derive(Clone)]
pub struct Target {
    /// As an agent of the role msa.
    pub msa: Channel,
    /// As an agent of the role mda.
    pub mda: Channel,
    /// Whether these are two agents: over a Unix socket one user may have all roles, and none is refused anything.
    pub has_single_roles: bool,
    /// An account of the queue's directory.
    pub account: String,
    /// Another address in a domain of ours, or the same.
    pub recipient: String,
    /// Kills it and starts it again.
    pub restart: Option<Deed>,
    /// How long an answer may take.
    pub patience: Duration,
    /// For so long nothing comes where nothing must.
    pub quiet: Duration,
}

rules![Target;
    "serves.health": "Every endpoint also serves `grpc.health.v1.Health`" => submitting::serves_health,
    "submit.accepted": "`Submit` takes a mail of any size: one `begin`, chunks of at most 64 KiB each, one `end`." => submitting::in_chunks,
    "submit.begin_first": "one `begin`, chunks of at most 64 KiB each, one `end`" => submitting::begin_first,
    "submit.duplicate": "the same id with the same content is acknowledged again (`duplicate`)" => submitting::duplicate,
    "submit.id_taken": "with another content it is refused (`ALREADY_EXISTS`, `REASON_ID_TAKEN`)" => submitting::id_taken,
    "submit.broken": "A stream that breaks before `end` stores nothing." => submitting::broken_stream,
    "submit.size": "a mismatch stores nothing and is `INVALID_ARGUMENT` for the size" => submitting::wrong_size,
    "submit.checksum": "and `UNAVAILABLE` for the checksum" => submitting::wrong_checksum,
    "submit.unknown_field": "Unknown fields are ignored" => submitting::unknown_field,
    "submit.recipients": "at least one recipient (with indices that differ)" => submitting::recipients,
    "submit.oversize": "| any one message | 4 MiB |" => submitting::oversize,
    "many.admission": "The first answer, and one at each change, is `Admission`" => submitting::many_admission,
    "many.answers": "Answers come as mails become durable, in any order, and name `sequence`, which the client chooses." => submitting::many_answers,
    "many.oversize": "`SubmitMany` takes mails of at most 256 KiB, many on one stream." => submitting::many_oversize,
    "admit.yes": "`Admit` asks beforehand for room and quota" => submitting::admit,
    "record.events": "What an agent knows of a mail, for `postroad trace`: `Record`" => submitting::record,
    "roles.msa": "A call that the role does not allow is answered `PERMISSION_DENIED`" => working::msa_does_not_work,
    "roles.mda": "never with an account | `LOCAL`" => working::mda_names_no_account,
    "roles.classes": "| mda | mail with the null path, to recipients of ours, or with `original` in every recipient; never with an account | `LOCAL` |" => working::mda_leases_local,
    "work.hello": "**Hello** is the first message." => working::hello_first,
    "work.no_credits": "A worker without credits gets nothing and stays connected." => working::no_credits,
    "work.credits": "The queue never has more leases at a worker than it gave credits for, and spends one with each lease." => working::credits,
    "work.recipients": "`envelope.recipients` has those that are still to be tried, and no others." => working::recipients,
    "work.content": "if `content` is absent, `Read` gives it, in chunks, from any offset." => working::content,
    "work.unknown": "unknown messages of a `oneof` are passed over" => working::unknown_message,
    "settle.settled": "`Settled` says that the queue has it on its disk" => working::settled,
    "settle.twice": "A lease that has ended is given to another worker, and what the first one says of it then is `stale`." => working::settled_twice,
    "settle.fence": "a `fence` that no other lease ever had" => working::wrong_fence,
    "settle.failed": "reports to the sender" => working::failure_is_reported,
    "extend.ended": "`Revoked` lists leases that ended already" => working::extended_too_late,
    "hand_back.attempt": "returns a lease untried. It costs no attempt" => working::handed_back,
    "resume.held": "`Welcome.resumed` says for each whether it goes on and under which new reference; the old one is worth nothing any more." => working::resumed,
    "resume.ended": "One without a new reference has ended" => working::resumed_too_late,
    "drained.returns": "What was on its way to it goes back to the queue without having counted." => working::drained,
    "late.result": "A lease that has ended is given to another worker" => losing::late_result,
    "restart.kept": "It says so once the mail is on the disk" => losing::kept_over_a_restart,
    "restart.resumed": "The same holds after a restart of the queue, which begins a new `epoch`." => losing::resumed_after_a_restart,
    "count.ban": "it is added, and more than `limit` within the window is a ban for `ban_ms`" => counting::ban,
    "count.limits": "it is added only if each of them has room for all of it" => counting::limits,
    "count.windows": "Windows are from 1 second to 31 days" => counting::windows,
    "count.role": "`Count` of `auth_failed`, `guessed`, `home` and `sent`" => counting::role,
    "withdraw.untried": "`WITHDRAWN`: nothing of it was sent, nothing will be, and nobody is told" => withdrawing::untried,
    "withdraw.leased": "`TOO_LATE`: some of it was leased" => withdrawing::leased,
    "withdraw.unknown": "`UNKNOWN`: there is no such mail, or it is another account's, or it has ended." => withdrawing::unknown,
    "withdraw.role": "It takes the role msa, and of a program one of its accounts." => withdrawing::role,
    "slow.worker": "**Slow workers** slow nobody else" => working::slow_worker,
];

impl Stage for Target {
    fn patience(&self) -> Duration {
        self.patience
    }

    fn clear(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async { drop(worker::Worker::clear(self).await) })
    }
}

/// Tries them one after the other, and tells of each as it is done.
pub async fn run(target: &Target, mut tell: impl FnMut(&Finding) + Send) -> Vec<Finding> {
    let all = Set {
        rules: RULES,
        tries: TRIES,
    };
    rules::run(&[all], &mut target.clone(), &mut tell).await
}
