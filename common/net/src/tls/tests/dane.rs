//! Hosts whose certificates the DNS vouches for.

use rcgen::date_time_ymd;
use ring::digest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::{Dane, DaneRecord};

const HOST: &str = "mx.example.org";

fn der(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

fn record(usage: u8, selector: u8, matching: u8, file: &Path) -> DaneRecord {
    let certificate = der(file);
    let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
    let selected: &[u8] = match selector {
        0 => &certificate,
        _ => parsed.tbs_certificate.subject_pki.raw,
    };
    let data = match matching {
        0 => selected.to_vec(),
        1 => digest::digest(&digest::SHA256, selected).as_ref().to_vec(),
        _ => digest::digest(&digest::SHA512, selected).as_ref().to_vec(),
    };
    DaneRecord {
        usage,
        selector,
        matching,
        data,
    }
}

/// The authority's own certificate is shown behind that of the host.
fn with_chain(authority: &Authority, files: &CertFiles) {
    let chain =
        [&files.cert_file, &authority.ca_file()].map(|file| fs::read_to_string(file).unwrap());
    fs::write(&files.cert_file, chain.concat()).unwrap();
}

async fn meet(files: &CertFiles, records: &[DaneRecord], names: &[&str]) -> Result<(), String> {
    let server = ServerTls::load(std::slice::from_ref(files)).unwrap();
    let client = ClientTls::to_hosts(false, Trust::Files(Vec::new()), None).unwrap();
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let dane = Dane::new(records, names).unwrap();
    let (client_end, server_end) = pair().await;
    let (theirs, ours) = tokio::join!(
        server_end.upgrade_server(&server, b"", SOON),
        client_end.upgrade_to_dane_host(&client, HOST, &dane, b"", SOON)
    );
    match ours {
        Ok(stream) => {
            let info = stream.tls_info().unwrap();
            assert!(info.is_peer_verified());
            assert_eq!(info.verified.as_deref(), Some(HOST));
            let theirs = theirs.unwrap();
            assert_eq!(theirs.tls_info().unwrap().sni.as_deref(), Some(HOST));
            Ok(())
        }
        Err(Error::Refused(refused)) => Err(refused.to_string()),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn dane_ee_is_the_certificate_whatever_its_name_and_time() {
    let authority = Authority::new();
    let files = authority.issue_as("mx", "another.example.net", &[], |params| {
        params.not_after = date_time_ymd(2001, 2, 3);
    });
    let other = authority.issue("other", HOST, &[]);
    for (selector, matching) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
        let right = record(3, selector, matching, &files.cert_file);
        let wrong = record(3, selector, matching, &other.cert_file);
        let both = [wrong.clone(), right.clone()];
        assert_eq!(meet(&files, &[right], &[HOST]).await, Ok(()));
        assert_eq!(meet(&files, &both, &[HOST]).await, Ok(()), "a rollover");
        let told = meet(&files, &[wrong], &[HOST]).await.unwrap_err();
        assert!(
            told.contains("fits none of the TLSA records of its host"),
            "{told}"
        );
        assert!(
            told.contains(&format!("TLSA 3 {selector} {matching}")),
            "{told}"
        );
    }
}

#[tokio::test]
async fn dane_ta_is_an_authority_and_then_name_and_time_count() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let files = authority.issue("mx", HOST, &[]);
    let bare = record(2, 0, 0, &authority.ca_file());
    assert_eq!(meet(&files, &[bare], &[HOST]).await, Ok(()));
    let digest = record(2, 1, 1, &authority.ca_file());
    let told = meet(&files, std::slice::from_ref(&digest), &[HOST]).await;
    assert!(
        told.is_err(),
        "an authority known by a digest alone must be shown"
    );
    with_chain(&authority, &files);
    for (selector, matching) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
        let right = record(2, selector, matching, &authority.ca_file());
        let wrong = record(2, selector, matching, &foreign.ca_file());
        assert_eq!(
            meet(&files, std::slice::from_ref(&right), &[HOST]).await,
            Ok(())
        );
        assert!(meet(&files, &[wrong], &[HOST]).await.is_err());
        // RFC 7672 §3.2.2: the domain for which the host takes mail is as good a name.
        assert_eq!(
            meet(&files, std::slice::from_ref(&right), &["example.net", HOST]).await,
            Ok(())
        );
        let told = meet(&files, &[right], &["example.net"]).await.unwrap_err();
        assert!(told.contains("does not lead to the authority"), "{told}");
    }
    let old = authority.issue_as("old", HOST, &[], |params| {
        params.not_after = date_time_ymd(2001, 2, 3);
    });
    with_chain(&authority, &old);
    let told = meet(&old, &[digest], &[HOST]).await.unwrap_err();
    assert!(told.contains("expired"), "{told}");
}

#[test]
fn what_no_mail_host_can_be_known_by_is_left_out() {
    let good = DaneRecord {
        usage: 3,
        selector: 1,
        matching: 1,
        data: vec![7; 32],
    };
    let faults: [fn(&mut DaneRecord); 8] = [
        // RFC 7672 §3.1.3: PKIX-TA and PKIX-EE.
        |record| record.usage = 0,
        |record| record.usage = 1,
        |record| record.usage = 255,
        |record| record.selector = 2,
        |record| record.matching = 3,
        |record| record.matching = 2,
        |record| record.data.clear(),
        |record| record.data.push(7),
    ];
    for fault in faults {
        let mut bad = good.clone();
        fault(&mut bad);
        assert!(!bad.is_usable(), "{bad:?}");
        assert_eq!(Dane::new(&[bad], Vec::new()), None);
    }
    assert_eq!(Dane::new(&[], Vec::new()), None);
    let dane = Dane::new(&[good], Vec::new()).unwrap();
    assert_eq!(dane.to_string(), "TLSA 3 1 1");
}

#[tokio::test]
async fn a_weaker_digest_does_not_count_beside_a_stronger_one() {
    let authority = Authority::new();
    let (files, other) = (
        authority.issue("mx", HOST, &[]),
        authority.issue("other", HOST, &[]),
    );
    let weak = record(3, 1, 1, &files.cert_file);
    let strong = record(3, 1, 2, &other.cert_file);
    assert!(meet(&files, &[weak, strong], &[HOST]).await.is_err());
}
