use std::os::unix::fs::PermissionsExt;

use postroad_net::{CertFiles, PeerRole, Revocations, ServerTls};

use super::*;
use crate::Permits;

const DAY: SignedDuration = SignedDuration::from_hours(24);

struct House {
    _folder: tempfile::TempDir,
    pki: Pki,
    now: Timestamp,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let house = Self {
            pki: Pki::at(folder.path().join("pki")),
            _folder: folder,
            now: Timestamp::now(),
        };
        assert_eq!(house.init(false).unwrap(), Done::Made);
        house
    }

    fn init(&self, replace: bool) -> Result<Done, Error> {
        let terms = AuthorityTerms::new("Test authority", Permits::default());
        self.pki.init(&terms, replace, self.now)
    }

    fn issue(&self, name: &str, role: PeerRole, replace: bool) -> Result<Done, Error> {
        let request = Request::agent(role, &[name, "localhost"], 90)?;
        self.pki
            .issue(&agent(name), &request, None, replace, self.now)
    }

    fn renew(&self, renewal: Renewal, days: i32) -> Renewed {
        let now = self.now.checked_add(DAY * days).unwrap();
        let mut done = self.pki.renew(&[agent("mta")], renewal, now).unwrap();
        done.pop().unwrap().1
    }

    fn files(&self, name: &str) -> [Vec<u8>; 3] {
        Kind::Agent
            .files()
            .map(|file| fs::read(self.pki.path(name, file)).unwrap())
    }

    /// What an agent does when it starts.
    fn load(&self, name: &str) -> Result<ServerTls, postroad_net::Error> {
        let [ca_file, cert_file, key_file] =
            Kind::Agent.files().map(|file| self.pki.path(name, file));
        let own = CertFiles {
            cert_file,
            key_file,
        };
        ServerTls::load_mutual(&own, &ca_file, &Revocations::none(), &[])
    }
}

fn agent(name: &str) -> Holder {
    Holder {
        name: name.to_owned(),
        kind: Kind::Agent,
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_there_is_kept_and_keys_are_closed() {
    let house = House::new();
    assert_eq!(
        house.issue("mta", PeerRole::Mta, false).unwrap(),
        Done::Made
    );
    house.load("mta").unwrap();
    assert_eq!(mode(&house.pki.authority_key_file()), 0o600);
    assert_eq!(mode(&house.pki.path("mta", "agent.key")), 0o600);
    let before = house.files("mta");
    assert_eq!(house.init(false).unwrap(), Done::Kept);
    assert_eq!(
        house.issue("mta", PeerRole::Mta, false).unwrap(),
        Done::Kept
    );
    assert_eq!(house.files("mta"), before);
    assert_eq!(house.issue("mta", PeerRole::Mta, true).unwrap(), Done::Made);
    assert_ne!(house.files("mta"), before);
    let names: Vec<_> = house.pki.holders().unwrap();
    assert_eq!(names, [agent("mta")]);
    assert!(house.pki.holder("msa").is_err());
}

#[test]
fn runs_that_were_cut_off_are_completed() {
    let house = House::new();
    house.issue("mta", PeerRole::Mta, false).unwrap();
    let key = |house: &House| fs::read(house.pki.path("mta", "agent.key")).unwrap();
    let before = key(&house);
    for file in ["agent.pem", "agents-ca.pem"] {
        fs::remove_file(house.pki.path("mta", file)).unwrap();
        let done = house.issue("mta", PeerRole::Mta, false).unwrap();
        assert_eq!(done, Done::Completed, "{file}");
        assert_eq!(key(&house), before);
        house.load("mta").unwrap();
    }
    fs::remove_file(house.pki.path("mta", "agent.key")).unwrap();
    let refused = house.issue("mta", PeerRole::Mta, false).unwrap_err();
    assert!(
        refused.to_string().contains("agent.key: is missing"),
        "{refused}"
    );

    fs::remove_file(house.pki.authority_file()).unwrap();
    assert_eq!(house.init(false).unwrap(), Done::Completed);
    house.issue("mta", PeerRole::Mta, true).unwrap();
    house.load("mta").unwrap();
}

#[test]
fn an_open_or_absent_key_of_the_authority_signs_nothing() {
    let house = House::new();
    let key = house.pki.authority_key_file();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = house.issue("mta", PeerRole::Mta, false).unwrap_err();
    assert!(refused.to_string().contains("mode 640"), "{refused}");
    assert!(house.init(false).is_err());
    fs::remove_file(&key).unwrap();
    assert_eq!(house.init(false).unwrap(), Done::Kept, "kept elsewhere");
    let refused = house.issue("mta", PeerRole::Mta, false).unwrap_err();
    assert!(
        refused.to_string().contains("ca.key: is missing"),
        "{refused}"
    );
}

#[test]
fn a_third_before_its_end_a_certificate_is_renewed_for_its_key() {
    let house = House::new();
    house.issue("mta", PeerRole::Mta, false).unwrap();
    let before = house.files("mta");
    let young = house.renew(Renewal::default(), 59);
    assert!(matches!(young, Renewed::Young(_)), "{young:?}");
    assert_eq!(house.files("mta"), before);
    let Renewed::Renewed(new) = house.renew(Renewal::default(), 61) else {
        panic!("not renewed")
    };
    let after = house.files("mta");
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    assert_ne!(after[1], before[1]);
    assert_eq!(new.names().collect::<Vec<_>>(), ["mta", "localhost"]);
    assert_eq!(new.roles.to_string(), "mta");
    assert_eq!(new.days_left(house.now), 61 + 90);
    house.load("mta").unwrap();
}

#[test]
fn a_new_key_comes_with_its_certificate_also_when_that_was_cut_off() {
    let house = House::new();
    house.issue("mta", PeerRole::Mta, false).unwrap();
    let before = house.files("mta");
    let renewal = Renewal {
        within_days: Some(90),
        new_key: true,
    };
    assert!(matches!(house.renew(renewal, 1), Renewed::Renewed(_)));
    assert_ne!(house.files("mta")[2], before[2]);
    house.load("mta").unwrap();
    // The key is written first.
    fs::write(house.pki.path("mta", "agent.pem"), &before[1]).unwrap();
    assert!(house.load("mta").is_err());
    let renewed = house.renew(Renewal::default(), 1);
    assert!(matches!(renewed, Renewed::Renewed(_)), "{renewed:?}");
    house.load("mta").unwrap();
}

#[test]
fn certificates_of_others_are_left_to_them() {
    let house = House::new();
    house.issue("mta", PeerRole::Mta, false).unwrap();
    let before = house.files("mta");
    assert_eq!(house.init(true).unwrap(), Done::Made);
    let left = house.renew(Renewal::default(), 89);
    assert!(matches!(left, Renewed::Foreign(_)), "{left:?}");
    assert_eq!(house.files("mta"), before);
}
