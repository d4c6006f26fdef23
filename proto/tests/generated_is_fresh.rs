//! The generated code is checked in, so that nobody needs `protoc` or waits for a generator. This test makes it anew from the
//! `.proto` files and compares; `UPDATE_GENERATED=1 cargo test -p postroad-proto --test generated_is_fresh` writes it.

use std::{fs, path::Path};

use prost::Message as _;

const FILES: [&str; 4] = [
    "postroad/directory/v1/directory.proto",
    "postroad/queue/v1/admin.proto",
    "postroad/queue/v1/queue.proto",
    "postroad/queue/v1/types.proto",
];

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().expect("a temporary folder");
    let descriptors =
        protox::compile(FILES.map(|file| root.join(file)), [root]).expect("valid .proto files");
    fs::write(
        fresh.path().join("descriptors.binpb"),
        descriptors.encode_to_vec(),
    )
    .expect("room for a file");
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(fresh.path())
        .compile_fds(descriptors)
        .expect("generated code");

    let checked_in = root.join("src/generated");
    let update = std::env::var_os("UPDATE_GENERATED").is_some();
    for entry in fs::read_dir(fresh.path()).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let old = checked_in.join(path.file_name().expect("a file name"));
        let new = fs::read(&path).expect("a readable file");
        if update {
            fs::write(&old, &new).expect("a writable source tree");
        }
        assert!(
            fs::read(&old).is_ok_and(|old| old == new),
            "{} is not what the .proto files say; run: UPDATE_GENERATED=1 cargo test -p postroad-proto --test generated_is_fresh",
            old.display()
        );
    }
}
