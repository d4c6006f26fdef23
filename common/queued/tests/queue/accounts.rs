//! What agents of other hosts are told of accounts, over a socket.

use std::sync::Arc;

use futures::StreamExt as _;
use postroad_accounts::{Accounts, RemoteAccounts};
use postroad_address::ForwardPath;
use postroad_daemon::AccountsConfig;
use postroad_directory::{Directory, Reload, hash_password};
use postroad_metrics::Metrics;
use postroad_net::PeerRole;
use postroad_proto::directory::v1::{
    ResolveRequest, SenderRequest, VerifierRequest, WatchRequest, WatchResponse,
    directory_client::DirectoryClient, sender_response,
};
use postroad_queued::Config;
use postroad_rpc::dial;
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::{
    roles::Served,
    setup::{PATIENCE, common, config},
};

const ROLES: [PeerRole; 3] = [PeerRole::Msa, PeerRole::Mta, PeerRole::Mda];

/// A directory with all that can become of an address.
fn text(password: &str, more: &str) -> String {
    let hash = hash_password(password.as_bytes(), [3; 16]).unwrap();
    format!(
        r#"
[[domain]]
name = "local.test"
postmaster = "alice@local.test"
tenant = "acme"

[[domain]]
name = "bücher.test"
catch_all = "bob@local.test"

[[account]]
address = "Alice@local.test"
password_hash = "{hash}"
aliases = ["al@local.test"]
may_send_as = ["sales@local.test"]

[[account]]
address = "bob@local.test"
password_hash = "{hash}"

[[account]]
address = "gone@local.test"
password_hash = "{hash}"
disabled = true

[[alias]]
address = "team@local.test"
to = ["bob@local.test", "carol@far.test"]

[[alias]]
address = "ping@local.test"
to = ["ping@local.test"]
{more}"#
    )
}

struct House {
    served: Served,
    client: DirectoryClient<Channel>,
    accounts: Accounts,
}

impl House {
    async fn to(role: PeerRole) -> Self {
        Self::with(role, Arc::new(tempfile::tempdir().unwrap()), config()).await
    }

    async fn with(role: PeerRole, folder: Arc<TempDir>, config: Config) -> Self {
        write(&folder, &text("sesame", ""));
        let served = Served::in_folder(role, folder, config).await;
        let endpoint = served
            .stack
            .config
            .agents_endpoint(&common(served.stack.folder.path()));
        let client = DirectoryClient::new(dial(&endpoint, None).unwrap());
        let (config, metrics) = (AccountsConfig::default(), Metrics::new("msa"));
        let remote = RemoteAccounts::connect(&[endpoint], None, &config, &metrics).unwrap();
        Self {
            served,
            client,
            accounts: Accounts::of_queue(remote),
        }
    }

    async fn verifier(&mut self, account: &str) -> Result<String, Status> {
        let (account, mechanism) = (account.to_owned(), "PLAIN".to_owned());
        let request = VerifierRequest {
            account,
            mechanism,
            app_password: None,
        };
        let answer = self.client.verifier(request).await?.into_inner();
        assert_eq!((&answer.may_send_as, answer.disabled), (&Vec::new(), false));
        assert!(answer.generation > 0 && answer.max_age_ms > 0);
        Ok(answer.verifier.unwrap())
    }

    async fn end(self) {
        drop((self.client, self.accounts));
        self.served.end().await;
    }
}

fn write(folder: &TempDir, text: &str) {
    let path = folder.path().join("directory.toml");
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    let ours = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&new, ours).unwrap();
    std::fs::rename(&new, &path).unwrap();
}

async fn next(stream: &mut Streaming<WatchResponse>) -> WatchResponse {
    let told = timeout(PATIENCE, stream.next())
        .await
        .expect("told in time");
    told.expect("the stream goes on").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_agent_is_told_where_mail_goes_as_the_file_says_it() {
    for role in ROLES {
        let mut house = House::to(role).await;
        let directory = house.served.stack.directory.current();
        for address in [
            "ALICE@local.test",
            "alice+x@local.test",
            "al+y@local.test",
            "team@local.test",
            "nobody@local.test",
            "anyone@BÜCHER.test",
            "abuse@local.test",
            "postmaster",
            "gone@local.test",
            "ping@local.test",
            "x@far.test",
            "\"odd one\"@local.test",
        ] {
            let request = ResolveRequest {
                address: address.to_owned(),
            };
            let answer = house.client.resolve(request).await.unwrap().into_inner();
            assert_eq!(answer.generation, directory.generation());
            assert_eq!(answer.max_age_ms, 600_000);
            let path = ForwardPath::parse(address).unwrap();
            let told = house.accounts.resolve(&path).await;
            assert_eq!(told, Ok(directory.look_up(&path)), "{address}");
        }
        let odd = ResolveRequest {
            address: "no address".to_owned(),
        };
        let refused = house.client.resolve(odd).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        house.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_and_senders_are_for_submission_alone_and_nothing_is_for_others() {
    for role in PeerRole::ALL {
        let mut house = House::to(role).await;
        let verifier = house.verifier("alice@local.test").await;
        let sender = SenderRequest {
            account: "alice@local.test".to_owned(),
            sender: "sales@local.test".to_owned(),
        };
        let sender = house.client.sender(sender).await;
        let address = "alice@local.test".to_owned();
        let resolved = house.client.resolve(ResolveRequest { address }).await;
        let watched = house.client.watch(WatchRequest {}).await;
        let code = |allowed| {
            if allowed {
                Code::Ok
            } else {
                Code::PermissionDenied
            }
        };
        let submits = role == PeerRole::Msa;
        assert_eq!(
            verifier.map_or_else(|no| no.code(), |_| Code::Ok),
            code(submits)
        );
        assert_eq!(
            sender.map_or_else(|no| no.code(), |_| Code::Ok),
            code(submits)
        );
        let asks = ROLES.contains(&role);
        assert_eq!(
            resolved.map_or_else(|no| no.code(), |_| Code::Ok),
            code(asks)
        );
        assert_eq!(
            watched.map_or_else(|no| no.code(), |_| Code::Ok),
            code(asks)
        );
        house.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_exists_is_not_told_by_verifiers_over_a_restart_either() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut house = House::with(PeerRole::Msa, Arc::clone(&folder), config()).await;
        let mut all = Vec::new();
        for account in [
            "Alice@LOCAL.test",
            "nobody@local.test",
            "gone@local.test",
            "",
        ] {
            let verifier = house.verifier(account).await.unwrap();
            assert_eq!(verifier, house.verifier(account).await.unwrap());
            all.push(verifier);
        }
        let fits = |verifier: &String| checks(verifier, "sesame");
        let fitting: Vec<bool> = all.iter().map(fits).collect();
        assert_eq!(fitting, [true, false, false, false]);
        assert!(all.iter().all(|one| one.len() == all[0].len()), "{all:?}");
        seen.push(all);
        house.end().await;
    }
    assert_eq!(seen[0], seen[1]);
}

/// A directory in which one account has this verifier says whether the password is right.
fn checks(verifier: &str, password: &str) -> bool {
    let text = format!(
        "[[domain]]\nname = \"a.test\"\n[[account]]\naddress = \"a@a.test\"\npassword_hash = \"{verifier}\"\n"
    );
    let directory = Directory::parse(std::path::Path::new("d.toml"), &text).unwrap();
    directory.verify("a@a.test", password.as_bytes()).is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn verifiers_are_given_so_often_and_by_mechanisms_that_have_them() {
    let mut config = config();
    config.accounts.verifiers_per_minute = 2;
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut house = House::with(PeerRole::Msa, folder, config).await;
    let odd = VerifierRequest {
        account: "alice@local.test".to_owned(),
        mechanism: "ANONYMOUS".to_owned(),
        app_password: None,
    };
    let refused = house.client.verifier(odd).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let long = house.verifier(&"a".repeat(2000)).await.unwrap_err();
    assert_eq!(long.code(), Code::InvalidArgument);
    for account in ["alice@local.test", "nobody@local.test"] {
        house.verifier(account).await.unwrap();
    }
    let refused = house.verifier("alice@local.test").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    // One comes back each half minute; other answers are not limited.
    let sender = SenderRequest {
        account: "alice@local.test".to_owned(),
        sender: "bob@local.test".to_owned(),
    };
    let answer = house.client.sender(sender).await.unwrap().into_inner();
    assert_eq!(answer.result(), sender_response::Result::NotAllowed);
    assert_eq!(answer.address, "Alice@local.test");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_watch_are_told_which_accounts_changed_or_that_anything_may_have() {
    let mut house = House::to(PeerRole::Mda).await;
    let folder = Arc::clone(&house.served.stack.folder);
    let directory = house.served.stack.directory.clone();
    let mut stream = house
        .client
        .watch(WatchRequest {})
        .await
        .unwrap()
        .into_inner();
    let begin = next(&mut stream).await;
    assert_eq!(begin.generation, directory.current().generation());
    assert_eq!(begin.addresses, Vec::<String>::new());

    write(&folder, &text("another", ""));
    assert_eq!(directory.reload().unwrap(), Reload::Replaced);
    let told = next(&mut stream).await;
    let names = ["alice@local.test", "bob@local.test", "gone@local.test"];
    assert_eq!(told.addresses, names);
    assert_eq!(told.generation, directory.current().generation());
    assert!(told.generation > begin.generation);

    // A comment is no news; what comes next is.
    write(&folder, &text("another", "# nothing\n"));
    directory.reload().unwrap();
    write(
        &folder,
        &text("another", "[[account]]\naddress = \"dave@local.test\"\n"),
    );
    directory.reload().unwrap();
    let told = next(&mut stream).await;
    assert_eq!(told.addresses, Vec::<String>::new());
    assert_eq!(told.generation, directory.current().generation());

    // A queue that stops ends the stream instead of waiting for it.
    drop(stream);
    house.end().await;
}
