use postroad_envelope::{Cause, RemoteHost, Stage, StatusReport};
use postroad_reply::{EnhancedStatusCode, Reply, ReplyCode};
use proptest::prelude::*;

use super::*;

const TUNED: &str = include_str!("../samples/tuned.txt");
const HELD_OUT: &str = include_str!("../samples/held_out.txt");

struct Sample {
    line: &'static str,
    cause: Cause,
    report: StatusReport,
}

fn samples(file: &'static str) -> Vec<Sample> {
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    lines.map(sample).collect()
}

/// `cause | stage | 550 5.1.1 text`, or `cause | stage | 4.4.1 text` for what we found ourselves.
fn sample(line: &'static str) -> Sample {
    let mut parts = line.splitn(3, " | ");
    let mut part = || {
        parts
            .next()
            .unwrap_or_else(|| panic!("three parts: {line}"))
    };
    let (cause, stage, said) = (part(), part(), part().replace("\\n", "\n"));
    let (first, rest) = said.split_at(said.find([' ', '-']).expect("a code"));
    let rest = rest[1..].to_owned();
    let mut report = match first.parse::<EnhancedStatusCode>() {
        Ok(status) => StatusReport::local(status, rest),
        Err(_) => replied(first, &rest),
    };
    report.stage = (stage != "-").then(|| stage.parse().expect("a stage"));
    let cause = cause.parse().unwrap_or_else(|_| panic!("a cause: {line}"));
    Sample {
        line,
        cause,
        report,
    }
}

/// As the client's decoder hands it on: the enhanced code of the first line is taken off.
fn replied(code: &str, text: &str) -> StatusReport {
    let code = ReplyCode::new(code.parse().expect("a number")).expect("a code");
    let enhanced = text.split_once(' ').and_then(|(first, rest)| {
        let enhanced: EnhancedStatusCode = first.parse().ok()?;
        Some((enhanced, rest.to_owned()))
    });
    let none = match code.value() / 100 {
        5 => "5.0.0".parse().unwrap(),
        _ => "4.0.0".parse().unwrap(),
    };
    let reply = match &enhanced {
        Some((enhanced, rest)) => Reply::new(code, *enhanced, rest.as_str()),
        None => Reply::plain(code, text),
    };
    StatusReport {
        reply: Some(reply),
        ..StatusReport::local(enhanced.map_or(none, |(enhanced, _)| enhanced), "")
    }
}

/// How many were diagnosed rightly, in hundredths; the others are printed.
#[allow(clippy::print_stdout, reason = "a person mends the rules by it")]
fn rate(file: &'static str) -> usize {
    let (rules, all) = (Rules::builtin(), samples(file));
    let mut right = 0;
    for Sample {
        line,
        cause,
        report,
    } in &all
    {
        let found = rules.diagnose(report);
        if found.cause == *cause {
            right += 1;
        } else {
            println!("{} by {:?}: {line}", found.cause, found.rule);
        }
    }
    println!("{right} of {}", all.len());
    right * 100 / all.len()
}

#[test]
fn our_own_rules_can_be_read() {
    assert_eq!(Rules::parse(BUILTIN, "builtin").err(), None);
    assert!(Rules::builtin().0.len() > 50);
}

#[test]
fn replies_in_view_have_their_cause() {
    assert!(samples(TUNED).len() >= 200);
    assert!(rate(TUNED) >= 98);
}

/// No rule was written for these.
#[test]
fn replies_never_seen_have_their_cause() {
    assert!(samples(HELD_OUT).len() >= 100);
    assert!(rate(HELD_OUT) >= 95);
}

#[test]
fn every_cause_but_those_without_a_reply_has_a_sample() {
    let all: Vec<Sample> = samples(TUNED)
        .into_iter()
        .chain(samples(HELD_OUT))
        .collect();
    for cause in Cause::ALL {
        let is_ours = matches!(cause, Cause::Suppressed | Cause::Other);
        assert!(
            is_ours || all.iter().any(|sample| sample.cause == *cause),
            "{cause}"
        );
    }
}

#[test]
fn a_users_rule_comes_first() {
    let rules = Rules::with_file(
        "[[rule]]\nname = \"far\"\ncause = \"policy\"\nhost = ['\\.far\\.example$']\ncode = ['550']\n",
    )
    .unwrap();
    let mut report = replied("550", "5.1.1 no such user");
    report.stage = Some(Stage::Rcpt);
    assert_eq!(rules.diagnose(&report).cause, Cause::MailboxUnknown);
    report.remote = Some(RemoteHost {
        name: "mx.FAR.example".to_owned(),
        address: None,
        tls: None,
        tls_policy: None,
    });
    let found = rules.diagnose(&report);
    assert_eq!((found.cause, found.rule), (Cause::Policy, Some("far")));
}

#[test]
fn a_file_that_is_wrong_says_where() {
    let wrong = |text| Rules::with_file(text).unwrap_err().to_string();
    assert!(wrong("[[rule]]\ncause = 'policy'\ntext = ['(']").contains("`(` is no pattern"));
    assert!(wrong("[[rule]]\ncause = 'policy'\ntext = ['(']").contains("line 3"));
    assert!(wrong("[[rule]]\ncause = 'bad luck'\ncode = ['5']").contains("no cause"));
    assert!(wrong("[[rule]]\ncause = 'policy'\ncode = ['250']").contains("no reply code"));
    assert!(wrong("[[rule]]\ncause = 'policy'\nstatus = ['5.1']").contains("5.1"));
    assert!(wrong("[[rule]]\ncause = 'policy'").contains("names nothing"));
    assert!(wrong("[[rules]]\n").contains("rules"));
    // A pattern that would need too much room.
    assert!(
        wrong("[[rule]]\ncause = 'policy'\ntext = ['(\\w{200}){2000}']").contains("no pattern")
    );
}

proptest! {
    #[test]
    fn whatever_a_host_says_has_a_cause(text in "(?s).{0,300}", code in 400_u16..600, stage in proptest::option::of(0_usize..11)) {
        static RULES: std::sync::LazyLock<Rules> = std::sync::LazyLock::new(Rules::builtin);
        let reply = Reply::plain(ReplyCode::new(code).unwrap(), text);
        let report = StatusReport {
            reply: Some(reply),
            stage: stage.map(|at| Stage::ALL[at]),
            ..StatusReport::local("5.0.0".parse().unwrap(), "")
        };
        prop_assert!(Cause::ALL.contains(&RULES.diagnose(&report).cause));
    }
}
