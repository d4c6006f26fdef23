//! What may happen, with small numbers so that it happens to the same mails.

use postroad_envelope::RouteClass;
use proptest::prelude::*;

use crate::shapes::SHAPES;

/// A sequence of operations on one queue.
#[derive(Debug, Clone)]
pub struct Life {
    /// Finished mails wait until they are retired.
    pub retire: bool,
    pub acts: Vec<Act>,
}

/// Numbers without a name choose one of what there is.
#[derive(Debug, Clone)]
pub enum Act {
    Insert {
        number: u8,
        shape: usize,
    },
    Pass {
        seconds: u64,
    },
    Lease {
        class: RouteClass,
        stream: u64,
        max: usize,
    },
    Extend(usize),
    HandBack {
        lease: usize,
        delay: u64,
    },
    /// One outcome for each recipient.
    Settle {
        lease: usize,
        outcomes: [Said; 3],
    },
    DropStream(u64),
    FreeStream(u64),
    Resume {
        lease: usize,
        stream: u64,
    },
    Tell(usize, Told),
    Report {
        mail: usize,
        with_mail: bool,
    },
    ExpireOld(usize),
    /// All that was prepared is committed.
    Commit,
    /// The last change that was prepared is given up.
    Abandon,
    Snapshot,
    Checkpoint {
        reaches_index: bool,
    },
    NextSegment,
    Reclaim,
    Retire(usize),
    Restart(Restart),
}

/// What a worker says of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Nothing,
    Delivered,
    /// The next system reports nothing.
    Relayed,
    /// The next system reports success itself.
    TakenOver,
    Delayed,
    Failed,
}

/// What an operator says.
#[derive(Debug, Clone, Copy)]
pub enum Told {
    Hold,
    Release,
    Retry,
    Schedule(u64),
    Fail,
    Expire,
    Drop,
    Reroute(&'static str),
    Priority(i8),
}

/// A crash, and the start after it.
#[derive(Debug, Clone, Copy)]
pub struct Restart {
    /// So many of the prepared changes had reached the journal.
    pub committed: usize,
    /// The last lease hints had.
    pub hints: bool,
    /// The index is gone.
    pub rebuild: bool,
    /// All of the journal is replayed once more.
    pub twice: bool,
}

pub fn lives() -> impl Strategy<Value = Life> {
    let acts = proptest::collection::vec(act(), 1..150);
    (any::<bool>(), acts).prop_map(|(retire, acts)| Life { retire, acts })
}

fn act() -> impl Strategy<Value = Act> {
    let any = any::<usize>();
    let stream = || 1_u64..4;
    let class = prop_oneof![
        1 => Just(RouteClass::Local),
        2 => Just(RouteClass::Relay),
    ];
    prop_oneof![
        12 => (0_u8..7, 0..SHAPES.len()).prop_map(|(number, shape)| Act::Insert { number, shape }),
        8 => seconds().prop_map(|seconds| Act::Pass { seconds }),
        14 => (class, stream(), 1_usize..5)
            .prop_map(|(class, stream, max)| Act::Lease { class, stream, max }),
        3 => any.prop_map(Act::Extend),
        3 => (any, 0_u64..120).prop_map(|(lease, delay)| Act::HandBack { lease, delay }),
        16 => (any, [said(), said(), said()])
            .prop_map(|(lease, outcomes)| Act::Settle { lease, outcomes }),
        2 => stream().prop_map(Act::DropStream),
        2 => stream().prop_map(Act::FreeStream),
        5 => (any, stream()).prop_map(|(lease, stream)| Act::Resume { lease, stream }),
        8 => (any, told()).prop_map(|(job, told)| Act::Tell(job, told)),
        5 => (any, proptest::bool::ANY)
            .prop_map(|(mail, with_mail)| Act::Report { mail, with_mail }),
        1 => (1_usize..4).prop_map(Act::ExpireOld),
        14 => Just(Act::Commit),
        1 => Just(Act::Abandon),
        4 => proptest::bool::weighted(0.8)
            .prop_map(|reaches_index| Act::Checkpoint { reaches_index }),
        1 => Just(Act::Snapshot),
        3 => Just(Act::NextSegment),
        3 => Just(Act::Reclaim),
        2 => (1_usize..4).prop_map(Act::Retire),
        4 => restart().prop_map(Act::Restart),
    ]
}

/// Now and then beyond a grace, the deadline of a lease, the window of finished ids, the life of a mail.
fn seconds() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 1_u64..40,
        4 => 100_u64..700,
        1 => 3600_u64..5 * 3600,
        1 => 5 * 86_400_u64..6 * 86_400,
    ]
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        1 => Just(Said::Nothing),
        4 => Just(Said::Delivered),
        2 => Just(Said::Relayed),
        1 => Just(Said::TakenOver),
        2 => Just(Said::Delayed),
        2 => Just(Said::Failed),
    ]
}

fn told() -> impl Strategy<Value = Told> {
    prop_oneof![
        Just(Told::Hold),
        Just(Told::Release),
        Just(Told::Retry),
        (0_u64..500).prop_map(Told::Schedule),
        Just(Told::Fail),
        Just(Told::Expire),
        Just(Told::Drop),
        prop_oneof![Just("demo.test"), Just("a.example"), Just("hold.test")]
            .prop_map(Told::Reroute),
        (-9_i8..10).prop_map(Told::Priority),
    ]
}

fn restart() -> impl Strategy<Value = Restart> {
    (0_usize..4, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(committed, hints, rebuild, twice)| Restart {
            committed,
            hints,
            rebuild,
            twice,
        },
    )
}
