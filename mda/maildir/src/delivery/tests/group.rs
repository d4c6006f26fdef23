//! Several mails, committed as one group.

use std::sync::atomic::Ordering;

use super::*;

#[test]
fn several_at_once_have_each_a_fate_of_their_own() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let ids: Vec<_> = (0..6)
        .map(|number| DeliveryId::new("01j0000000000000000000000a", number).unwrap())
        .collect();
    let mut deliveries = Vec::new();
    for id in &ids {
        let begun = store.try_begin(&bob(None), id.clone(), SECOND).unwrap();
        let Some(Begin::Write(mut delivery)) = begun else {
            panic!("{begun:?}")
        };
        delivery.write(MAIL).unwrap();
        let again = store.try_begin(&bob(None), id.clone(), SECOND).unwrap();
        assert!(again.is_none(), "its turn is taken");
        deliveries.push(delivery);
    }
    // Nothing can be written to one of them any more.
    deliveries[2].file = File::open(&deliveries[2].tmp.path).unwrap();
    let filed = store.commit_all(deliveries);
    let failed: Vec<usize> = (0..filed.len()).filter(|at| filed[*at].is_err()).collect();
    assert_eq!(failed, [2]);
    for (id, filed) in ids.iter().zip(&filed) {
        let known = store.decided(id.clone()).unwrap();
        assert_eq!(known.as_ref(), filed.as_ref().ok());
        let Ok(filed) = filed else { continue };
        let file = fs::read(filed.mailbox.join("new").join(&filed.file_name));
        assert_eq!(file.unwrap(), ON_DISK);
    }
    assert_eq!(tmp_files(root.path()), [] as [PathBuf; 0]);
    assert_eq!(store.inner.ledger.syncs.load(Ordering::Relaxed), 1);
    // The one that failed is filed by the next attempt, the others are known.
    for (id, was_filed) in ids.into_iter().zip(filed.iter().map(Result::is_ok)) {
        assert_eq!(deliver(&store, &bob(None), id).unwrap(), !was_filed);
    }
}

#[test]
fn a_ledger_that_fails_fails_all_of_a_group_and_keeps_their_files() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let begun = (0..3).map(|number| {
        let id = DeliveryId::new("01j0000000000000000000000a", number).unwrap();
        match store.begin(&bob(None), id, SECOND).unwrap() {
            Begin::Write(delivery) => delivery,
            Begin::Already(delivered) => panic!("{delivered:?}"),
        }
    });
    let deliveries = begun.collect();
    break_disk(&store.inner.ledger);
    let filed = store.commit_all(deliveries);
    assert_eq!(filed.len(), 3);
    for filed in filed {
        let error = filed.unwrap_err();
        assert!(
            matches!(error, MaildirError::LedgerClosed { .. }),
            "{error}"
        );
    }
    // Perhaps the ledger names them: only reading it again can tell.
    assert_eq!(tmp_files(root.path()).len(), 3);
}
