use super::*;
use std::fs;
use std::sync::Barrier;
use std::thread;
use tempfile::TempDir;

const THREADS: usize = 16;

/// On a file system that can be synced as a whole, if the machine has one; in memory it always can.
fn folder() -> TempDir {
    match Path::new("/dev/shm").is_dir() {
        true => tempfile::tempdir_in("/dev/shm").unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

fn syncs(folder: &TempDir, from: usize) -> Syncs {
    let options = SyncOptions {
        from,
        on: FileSystem::ALL.to_vec(),
        ..SyncOptions::default()
    };
    Syncs::new(folder.path(), options, &Arc::default())
}

/// Many wait at the same time, a file and a folder each; says how many were told of a failure.
fn all_at_once(folder: &TempDir, syncs: &Syncs, device: Option<u64>, below: &Path) -> usize {
    let start = Barrier::new(THREADS);
    let sync = |number: usize| {
        let path = folder.path().join(number.to_string());
        let file = File::create(&path).unwrap();
        start.wait();
        let one = (file, path, [below.to_path_buf()]);
        let synced = syncs.sync(vec![Ok(one)], |(file, path, folders)| Wish {
            file,
            path,
            folders,
            device,
        });
        synced.into_iter().collect::<Result<Vec<_>, _>>()
    };
    thread::scope(|all| {
        let sync = &sync;
        let each: Vec<_> = (0..THREADS).map(|n| all.spawn(move || sync(n))).collect();
        let failed = each
            .into_iter()
            .filter_map(|one| one.join().unwrap().err())
            .inspect(|error| assert!(error.to_string().contains("sync"), "{error}"));
        failed.count()
    })
}

#[test]
fn every_wish_is_served_by_a_sync_of_its_own_or_of_another() {
    let folder = folder();
    let syncs = syncs(&folder, THREADS + 1);
    assert_eq!(all_at_once(&folder, &syncs, None, folder.path()), 0);
    let counts = &syncs.counts;
    let threads = u64::try_from(THREADS).unwrap();
    assert_eq!((counts.files(), counts.file_systems()), (threads, 0));
    assert_eq!(counts.folders() + counts.shared(), threads);
}

#[test]
fn one_sync_of_the_file_system_is_for_files_and_folders() {
    let folder = folder();
    let syncs = syncs(&folder, 1);
    let Some(device) = syncs.device() else {
        return assert!(
            !folder.path().starts_with("/dev/shm"),
            "memory can be synced as a whole"
        );
    };
    assert_eq!(all_at_once(&folder, &syncs, Some(device), folder.path()), 0);
    let counts = &syncs.counts;
    assert_eq!((counts.files(), counts.folders()), (0, 0));
    assert_eq!(
        counts.file_systems() + counts.shared(),
        u64::try_from(THREADS).unwrap()
    );
    // What lies on another device is not synced with it.
    all_at_once(&folder, &syncs, Some(device + 1), folder.path());
    assert_eq!(counts.files(), u64::try_from(THREADS).unwrap());
}

#[test]
fn too_few_are_synced_each_by_themselves() {
    let folder = folder();
    let syncs = syncs(&folder, THREADS + 1);
    let device = syncs.device();
    assert_eq!(all_at_once(&folder, &syncs, device, folder.path()), 0);
    assert_eq!(syncs.counts.file_systems(), 0);
    assert_eq!(syncs.counts.files(), u64::try_from(THREADS).unwrap());
}

#[test]
fn a_folder_that_fails_fails_all_who_waited_for_it() {
    let folder = folder();
    let gone = folder.path().join("gone");
    fs::create_dir(&gone).unwrap();
    fs::remove_dir(&gone).unwrap();
    let syncs = syncs(&folder, THREADS + 1);
    assert_eq!(all_at_once(&folder, &syncs, None, &gone), THREADS);
}

#[test]
fn a_slow_file_system_is_left_alone_for_a_while() {
    let folder = folder();
    let options = SyncOptions {
        from: 1,
        on: FileSystem::ALL.to_vec(),
        slow: Duration::ZERO,
        pause: Duration::from_hours(1),
    };
    let syncs = Syncs::new(folder.path(), options, &Arc::default());
    let Some(device) = syncs.device() else { return };
    assert_eq!(all_at_once(&folder, &syncs, Some(device), folder.path()), 0);
    let counts = (syncs.counts.file_systems(), syncs.counts.files());
    assert_eq!(
        counts,
        (1, u64::try_from(THREADS).unwrap() - 1),
        "the first was slow"
    );
}

/// Files of one folder, brought by one thread.
fn group(folder: &TempDir, syncs: &Syncs, device: Option<u64>, count: usize) {
    let files = (0..count).map(|number| {
        let path = folder.path().join(number.to_string());
        let file = File::create(&path).unwrap();
        Ok((file, path, [folder.path().to_path_buf()]))
    });
    let synced = syncs.sync(files.collect(), |(file, path, folders)| Wish {
        file,
        path,
        folders,
        device,
    });
    assert_eq!(synced.len(), count);
    assert!(synced.iter().all(Result::is_ok), "{synced:?}");
}

#[test]
fn a_group_counts_as_those_who_are_in_it() {
    let folder = folder();
    let syncs = syncs(&folder, 4);
    let Some(device) = syncs.device() else { return };
    let counts = &syncs.counts;
    group(&folder, &syncs, Some(device), 5);
    assert_eq!((counts.file_systems(), counts.shared()), (1, 4));
    assert_eq!((counts.files(), counts.folders()), (0, 0));
    // Too few: each file, and their folder once.
    group(&folder, &syncs, Some(device), 3);
    assert_eq!((counts.file_systems(), counts.shared()), (1, 6));
    assert_eq!((counts.files(), counts.folders()), (3, 1));
    // Of another device.
    group(&folder, &syncs, Some(device + 1), 5);
    assert_eq!((counts.file_systems(), counts.files()), (1, 8));
}

#[test]
fn what_failed_before_comes_back_as_it_was() {
    let folder = folder();
    let syncs = syncs(&folder, 1);
    let path = folder.path().join("file");
    let file = File::create(&path).unwrap();
    let gone = MaildirError::invalid("of no use".to_owned());
    let all = vec![Err(gone), Ok((file, path))];
    let synced = syncs.sync(all, |(file, path)| Wish {
        file,
        path,
        folders: &[],
        device: syncs.device(),
    });
    let [Err(MaildirError::InvalidTarget { reason }), Ok(_)] = &synced[..] else {
        panic!("{synced:?}")
    };
    assert_eq!(reason, "of no use");
}
