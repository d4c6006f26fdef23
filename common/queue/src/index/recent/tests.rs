use std::collections::{BTreeMap, VecDeque};

use postroad_envelope::QueueId;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{super::tree::Tree, *};

fn pair(recent: &Arc<Recent>) -> (sled::Db, [Tree; 2], [Arc<Store>; 2]) {
    let db = sled::Config::new().temporary(true).open().unwrap();
    let stores = ["a", "b"].map(|name| Arc::new(Store::new(db.open_tree(name).unwrap())));
    let trees = stores
        .clone()
        .map(|store| Tree::behind(recent, Arc::clone(&store)));
    (db, trees, stores)
}

fn stored(store: &Store) -> Vec<(IVec, IVec)> {
    let all = store.range((Bound::Unbounded, Bound::Unbounded));
    all.map(Result::unwrap).collect()
}

#[test]
fn what_comes_and_goes_never_reaches_sled() {
    let recent = Arc::new(Recent::default());
    let (_db, [tree, _], [store, _]) = pair(&recent);
    for n in 0..100_u32 {
        assert_eq!(tree.insert(n.to_be_bytes(), b"came").unwrap(), None);
        let before = tree.insert(n.to_be_bytes(), b"stays").unwrap();
        assert_eq!(before.unwrap(), b"came");
        assert_eq!(
            tree.remove(n.to_be_bytes()).unwrap().unwrap(),
            b"stays",
            "{n}"
        );
        assert_eq!(tree.get(n.to_be_bytes()).unwrap(), None);
    }
    recent.store_all().unwrap();
    assert!(stored(&store).is_empty());
    assert_eq!(recent.lock().octets, 0);
}

#[test]
fn a_mail_is_in_memory_or_in_sled_as_a_whole() {
    let recent = Arc::new(Recent::of(3, 1000));
    let (_db, [a, b], [in_a, in_b]) = pair(&recent);
    let [one, two, three] = [1_u8, 2, 3].map(|n| [n; ID]);
    a.insert(one, b"1").unwrap();
    a.insert(two, b"2").unwrap();
    b.insert(two, b"2").unwrap();
    assert!(stored(&in_a).is_empty() && stored(&in_b).is_empty());
    // One more does not fit; one that is there already does.
    a.insert(three, b"3").unwrap();
    b.insert(one, b"1").unwrap();
    b.insert(three, b"3").unwrap();
    assert_eq!(stored(&in_a), [(IVec::from(&three), IVec::from(b"3"))]);
    assert_eq!((stored(&in_b).len(), recent.lock().keys), (1, 4));
    recent.store_all().unwrap();
    assert_eq!((stored(&in_a).len(), stored(&in_b).len()), (3, 3));
    assert_eq!(recent.lock().keys, 0);
    assert_eq!(recent.lock().octets, 0);
    assert_eq!(a.get(two).unwrap().unwrap(), b"2");
    // Of something in sled that goes, sled is told with the next checkpoint.
    Tree::forget(&[&a, &b], QueueId::from_bytes(three)).unwrap();
    assert_eq!((a.get(three).unwrap(), b.get(three).unwrap()), (None, None));
    assert_eq!((stored(&in_a).len(), stored(&in_b).len()), (3, 3));
    recent.store_all().unwrap();
    assert_eq!((stored(&in_a).len(), stored(&in_b).len()), (2, 2));
}

#[test]
fn values_are_bounded_by_their_octets() {
    let recent = Arc::new(Recent::of(1000, 100));
    let (_db, [tree, _], [store, _]) = pair(&recent);
    for n in 0..4_u8 {
        tree.insert([n], vec![n; 50]).unwrap();
    }
    assert_eq!((stored(&store).len(), recent.lock().octets), (2, 100));
    tree.insert([1], vec![1; 5]).unwrap();
    tree.insert([4], vec![4; 50]).unwrap();
    assert_eq!((stored(&store).len(), recent.lock().octets), (2, 105));
}

/// Whatever went to sled by then, a tree is what a map would be.
#[test]
fn it_is_read_as_one_tree() {
    let seed: u64 = rand::random();
    let mut random = SmallRng::seed_from_u64(seed);
    let recent = Arc::new(Recent::of(8, 100));
    let (_db, [tree, _], [store, _]) = pair(&recent);
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let random_key = |random: &mut SmallRng| {
        [
            [random.random_range(0..5); ID].as_slice(),
            &[random.random_range(0..6)],
        ]
        .concat()
    };
    for step in 0..4_000_u32 {
        let key = random_key(&mut random);
        match random.random_range(0..10) {
            0..4 => {
                let value = vec![7; random.random_range(0..40)];
                let before = tree.insert(&key, value.clone()).unwrap();
                assert_eq!(
                    before.map(|v| v.to_vec()),
                    model.insert(key, value),
                    "{step}, seed {seed}"
                );
            }
            4..8 => {
                let before = tree.remove(&key).unwrap();
                assert_eq!(
                    before.map(|v| v.to_vec()),
                    model.remove(&key),
                    "{step}, seed {seed}"
                );
            }
            8 => {
                // From both ends, in any order.
                let (one, other) = (key, random_key(&mut random));
                let range = one.clone().min(other.clone())..one.max(other);
                let mut entries = tree.range(range.clone());
                let mut expected: VecDeque<_> = model.range(range).collect();
                loop {
                    let (found, known) = match random.random() {
                        true => (entries.next(), expected.pop_front()),
                        false => (entries.next_back(), expected.pop_back()),
                    };
                    let found = found.map(|entry| entry.unwrap());
                    let found = found.map(|(key, value)| (key.to_vec(), value.to_vec()));
                    assert_eq!(
                        found,
                        known.map(|(k, v)| (k.clone(), v.clone())),
                        "{step}, seed {seed}"
                    );
                    if found.is_none() {
                        break;
                    }
                }
            }
            _ if random.random_ratio(1, 10) => recent.store_all().unwrap(),
            _ => {
                let id = QueueId::from_bytes(key[..ID].try_into().unwrap());
                let found = tree.of_mail(id).map(|entry| entry.unwrap().0.to_vec());
                let expected = model.keys().filter(|k| k[0] == key[0]).cloned();
                assert!(found.eq(expected), "{step}, seed {seed}");
            }
        }
        let window = recent.lock();
        assert!(window.mails.len() <= 8);
        let entries = || window.mails.values().flatten();
        let held = entries().map(|entry| len(entry.value.as_ref())).sum();
        assert_eq!((entries().count(), held), (window.keys, window.octets));
    }
    assert_eq!(tree.len(), model.len());
    recent.store_all().unwrap();
    assert_eq!(stored(&store).len(), model.len());
    // A range that is none.
    assert_eq!(tree.range::<&[u8]>(&[3][..]..&[1][..]).count(), 0);
}

#[test]
fn what_goes_to_sled_meanwhile_is_read_once() {
    for (backwards, in_sled) in [
        (false, None),
        (true, None),
        (false, Some(5)),
        (true, Some(5)),
    ] {
        let recent = Arc::new(Recent::default());
        let (_db, [tree, _], _stores) = pair(&recent);
        if let Some(n) = in_sled {
            tree.insert([n; ID], b"").unwrap();
            recent.store_all().unwrap();
        }
        for n in [1, 3, 7, 9_u8] {
            tree.insert([n; ID], b"").unwrap();
        }
        for before in 0..4 {
            let mut entries = tree.iter();
            let mut next = || match backwards {
                true => entries.next_back(),
                false => entries.next(),
            };
            let mut read: Vec<u8> = Vec::new();
            while let Some(entry) = next() {
                read.push(entry.unwrap().0[0]);
                if read.len() == before {
                    recent.store_all().unwrap();
                }
            }
            if backwards {
                read.reverse();
            }
            let mut expected = vec![1, 3, 7, 9];
            expected.extend(in_sled);
            expected.sort_unstable();
            assert_eq!(read, expected, "{before}");
            // In memory once more.
            for n in [1, 3, 7, 9_u8] {
                tree.insert([n; ID], b"").unwrap();
            }
        }
    }
}

#[test]
fn what_half_reached_sled_leaves_it_when_it_goes() {
    let recent = Arc::new(Recent::default());
    let (_db, [a, b], [in_a, in_b]) = pair(&recent);
    let one = [1; ID];
    a.insert(one, b"1").unwrap();
    b.insert(one, b"1").unwrap();
    // The last tree comes first.
    in_a.fail(true);
    assert!(recent.store_all().is_err());
    assert_eq!((stored(&in_a).len(), stored(&in_b).len()), (0, 1));
    assert_eq!(a.get(one).unwrap().unwrap(), b"1");
    in_a.fail(false);
    a.remove(one).unwrap();
    b.remove(one).unwrap();
    assert_eq!((a.get(one).unwrap(), b.get(one).unwrap()), (None, None));
    recent.store_all().unwrap();
    assert_eq!((stored(&in_a).len(), stored(&in_b).len()), (0, 0));
    assert_eq!(b.get(one).unwrap(), None);
}
