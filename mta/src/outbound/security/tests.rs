use postroad_net::DaneRecord;

use super::*;

const HOST: &str = "mx.a.test";

fn rule(policy: TlsPolicy) -> Rule {
    Rule {
        policy,
        from: "mta.outbound.tls".to_owned(),
        names: vec!["a.test".to_owned()],
    }
}

fn dane() -> DaneFacts {
    let record = DaneRecord {
        usage: 3,
        selector: 1,
        matching: 1,
        data: vec![0; 32],
    };
    DaneFacts::Usable(Dane::new(&[record], vec![HOST.to_owned()]).unwrap())
}

fn sts(mode: Mode, names_host: bool) -> StsFacts {
    StsFacts::Policy {
        domain: "a.test".to_owned(),
        mode,
        names_host,
    }
}

/// `dane (TLSA 3 1 1 of mx.a.test)`, `refused 4.7.0`.
fn told(policy: TlsPolicy, dane: &DaneFacts, sts: &StsFacts, mail: (bool, bool)) -> String {
    let rule = rule(policy);
    let decided = decide(&Facts {
        rule: &rule,
        host: HOST,
        dane,
        sts,
        requiretls: mail.0,
        waived: mail.1,
    });
    match decided {
        Ok(security) => {
            let matched = match &security.certificate {
                Match::Anything => "any".to_owned(),
                Match::Names(names) => names.join(","),
                Match::Host(host) => host.clone(),
                Match::Dane(dane) => dane.to_string(),
            };
            format!("{} {matched}", security.level.as_str())
        }
        Err(refusal) => format!("refused {}", refusal.status),
    }
}

const PLAIN: (bool, bool) = (false, false);
const REQUIRED: (bool, bool) = (true, false);
const WAIVED: (bool, bool) = (false, true);

#[test]
fn dane_wins_then_mta_sts_then_the_configuration() {
    let absent = StsFacts::Absent;
    let failed = DaneFacts::Failed("no answer".to_owned());
    let (enforced, foreign) = (sts(Mode::Enforce, true), sts(Mode::Enforce, false));
    let (insecure, none) = (DaneFacts::Insecure, DaneFacts::Absent);
    let unusable = DaneFacts::Unusable;
    use TlsPolicy::{Dane, Encrypt, May, None, Verify};
    for (policy, dane, sts, expected) in [
        (None, &dane(), &enforced, "none any"),
        (May, &insecure, &absent, "may any"),
        (May, &none, &absent, "may any"),
        (May, &dane(), &absent, "dane TLSA 3 1 1"),
        // RFC 8461 §2: DANE is not overridden, neither by a good policy nor by one that does not name the host.
        (May, &dane(), &enforced, "dane TLSA 3 1 1"),
        (May, &dane(), &foreign, "dane TLSA 3 1 1"),
        (May, &failed, &enforced, "refused 4.7.0"),
        (May, &unusable, &absent, "encrypt any"),
        (May, &unusable, &enforced, "verify mx.a.test"),
        (May, &insecure, &enforced, "verify mx.a.test"),
        (May, &insecure, &foreign, "refused 4.7.0"),
        (May, &insecure, &sts(Mode::Testing, false), "may any"),
        (May, &insecure, &sts(Mode::None, false), "may any"),
        (Encrypt, &insecure, &absent, "encrypt any"),
        (Encrypt, &none, &sts(Mode::Testing, true), "encrypt any"),
        (Encrypt, &none, &enforced, "verify mx.a.test"),
        (Encrypt, &dane(), &absent, "dane TLSA 3 1 1"),
        (Verify, &dane(), &enforced, "verify a.test"),
        (Dane, &dane(), &absent, "dane TLSA 3 1 1"),
        (Dane, &none, &enforced, "refused 4.7.5"),
        (Dane, &insecure, &absent, "refused 4.7.5"),
        (Dane, &unusable, &absent, "refused 4.7.5"),
        (Dane, &failed, &absent, "refused 4.7.0"),
    ] {
        let found = told(policy, dane, sts, PLAIN);
        assert_eq!(found, expected, "{policy:?} {dane:?} {sts:?}");
    }
}

#[test]
fn rfc_8689_requiretls_raises_and_tls_required_no_lowers() {
    let absent = StsFacts::Absent;
    let (enforced, foreign) = (sts(Mode::Enforce, true), sts(Mode::Enforce, false));
    use TlsPolicy::{Dane, Encrypt, May, None, Verify};
    let (insecure, none) = (DaneFacts::Insecure, DaneFacts::Absent);
    let failed = DaneFacts::Failed("no answer".to_owned());
    for (policy, dane, sts, mail, expected) in [
        (May, &insecure, &absent, REQUIRED, "verify a.test"),
        (May, &none, &absent, REQUIRED, "verify mx.a.test"),
        (May, &dane(), &absent, REQUIRED, "dane TLSA 3 1 1"),
        (Encrypt, &insecure, &enforced, REQUIRED, "verify mx.a.test"),
        (May, &insecure, &foreign, REQUIRED, "refused 4.7.0"),
        (None, &insecure, &absent, REQUIRED, "refused 5.7.30"),
        // RFC 8689 §4.1: beside REQUIRETLS the field means nothing.
        (May, &insecure, &absent, (true, true), "verify a.test"),
        (May, &insecure, &enforced, WAIVED, "may any"),
        (May, &insecure, &foreign, WAIVED, "may any"),
        (May, &dane(), &enforced, WAIVED, "may any"),
        (May, &failed, &absent, WAIVED, "may any"),
        // What is ours to demand stays so.
        (Encrypt, &dane(), &absent, WAIVED, "encrypt any"),
        (Verify, &insecure, &absent, WAIVED, "verify a.test"),
        (Dane, &dane(), &absent, WAIVED, "dane TLSA 3 1 1"),
    ] {
        let found = told(policy, dane, sts, mail);
        assert_eq!(found, expected, "{policy:?} {dane:?} {sts:?} {mail:?}");
    }
}

#[test]
fn a_person_is_told_why() {
    let rule = rule(TlsPolicy::May);
    let facts = Facts {
        rule: &rule,
        host: HOST,
        dane: &DaneFacts::Insecure,
        sts: &sts(Mode::Enforce, true),
        requiretls: false,
        waived: false,
    };
    let why = |facts: &Facts<'_>| decide(facts).unwrap().to_string();
    assert_eq!(why(&facts), "verify (MTA-STS policy of a.test)");
    let testing = sts(Mode::Testing, true);
    let tested = Facts {
        sts: &testing,
        ..facts.clone()
    };
    assert_eq!(
        why(&tested),
        "may (mta.outbound.tls, a.test tests its MTA-STS policy)"
    );
    let dane = dane();
    let published = Facts {
        dane: &dane,
        requiretls: true,
        ..facts
    };
    assert_eq!(
        why(&published),
        "dane (TLSA 3 1 1 of mx.a.test, and REQUIRETLS)"
    );
}
