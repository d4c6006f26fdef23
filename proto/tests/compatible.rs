//! Agents of one version and of the one before work together: whatever the contract of the version before said, today's says too. `former.txt` has
//! a line for each thing of that contract that may not change; more lines may come, none may go. A release writes it anew, once it
//! is out: `UPDATE_CONTRACT=1 cargo test -p postroad-proto --test compatible`.

use std::{collections::BTreeSet, fs, path::Path};

use postroad_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, field_descriptor_proto::Label,
};

#[test]
fn what_the_former_contract_said_still_holds() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/former.txt");
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors");
    let today = contract(&set);
    if std::env::var_os("UPDATE_CONTRACT").is_some() {
        let lines: Vec<&str> = today.iter().map(String::as_str).collect();
        fs::write(&path, lines.join("\n") + "\n").expect("a writable source tree");
    }
    let former = fs::read_to_string(&path).expect("tests/former.txt");
    let broken = broken(&former, &today);
    assert!(
        broken.is_empty(),
        "agents of the version before would not understand today's any more:\n{}",
        broken.join("\n")
    );
    assert!(
        former.lines().count() > 300,
        "{} lines",
        former.lines().count()
    );
}

type Change = fn(&mut FileDescriptorSet);

#[test]
fn whatever_goes_or_changes_is_found_and_what_comes_is_not() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors");
    let former = contract(&set).into_iter().collect::<Vec<_>>().join("\n");
    let changes: [(&str, Change); 8] = [
        ("a field goes", |set| drop(field_list(set).pop())),
        ("another number", |set| field_list(set)[0].number = Some(77)),
        ("another type", |set| field_list(set)[0].r#type = Some(4)),
        ("another name", |set| {
            field_list(set)[0].name = Some("other".to_owned())
        }),
        ("one becomes many", |set| {
            field_list(set)[0].label = Some(Label::Repeated.into())
        }),
        ("a method goes", |set| {
            drop(set.file[0].service[0].method.pop())
        }),
        ("a stream ends", |set| {
            let methods = set.file.iter_mut().flat_map(|file| &mut file.service);
            let mut methods = methods.flat_map(|service| &mut service.method);
            let stream = methods.find(|method| method.server_streaming());
            stream.expect("a stream").server_streaming = Some(false);
        }),
        ("a value goes", |set| {
            let mut kinds = set.file.iter_mut().flat_map(|file| &mut file.enum_type);
            drop(kinds.next().expect("an enum").value.pop());
        }),
    ];
    for (what, change) in changes {
        let mut set = set.clone();
        change(&mut set);
        assert_ne!(broken(&former, &contract(&set)), [""; 0], "{what}");
    }
    let mut set = set;
    let mut new = field_list(&mut set)[0].clone();
    (new.name, new.number) = (Some("new".to_owned()), Some(99));
    field_list(&mut set).push(new);
    assert_eq!(broken(&former, &contract(&set)), [""; 0]);
}

fn field_list(set: &mut FileDescriptorSet) -> &mut Vec<FieldDescriptorProto> {
    let mut messages = set.file.iter_mut().flat_map(|file| &mut file.message_type);
    let first = messages.find(|message| !message.field.is_empty());
    &mut first.expect("a message with fields").field
}

fn broken(former: &str, today: &BTreeSet<String>) -> Vec<String> {
    let gone = former.lines().filter(|line| !today.contains(*line));
    gone.map(ToOwned::to_owned).collect()
}

/// Everything a peer relies on, a line each.
fn contract(set: &FileDescriptorSet) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in &set.file {
        let package = file.package();
        for message in &file.message_type {
            of_message(package, message, &mut lines);
        }
        for kind in &file.enum_type {
            of_enum(package, kind, &mut lines);
        }
        for service in &file.service {
            for method in &service.method {
                let service = format!("{package}.{}", service.name());
                lines.insert(format!("rpc {service}/{}", signature(method)));
            }
        }
    }
    lines
}

fn of_message(outer: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    let name = format!("{outer}.{}", message.name());
    lines.insert(format!("message {name}"));
    for field in &message.field {
        let choice = field.oneof_index.map(|index| {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            message
                .oneof_decl
                .get(index)
                .map_or("", |choice| choice.name())
        });
        // Its own name stands for `optional`.
        let choice = choice
            .map(|choice| format!(" in {choice}"))
            .unwrap_or_default();
        let kind = match field.type_name() {
            "" => format!("{:?}", field.r#type()),
            named => named.trim_start_matches('.').to_owned(),
        };
        lines.insert(format!(
            "field {name}.{} = {}: {:?} {kind}{choice}",
            field.name(),
            field.number(),
            field.label(),
        ));
    }
    for kind in &message.enum_type {
        of_enum(&name, kind, lines);
    }
    for nested in &message.nested_type {
        of_message(&name, nested, lines);
    }
}

fn of_enum(outer: &str, kind: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    for value in &kind.value {
        let name = format!("{outer}.{}", kind.name());
        lines.insert(format!(
            "value {name}.{} = {}",
            value.name(),
            value.number()
        ));
    }
}

fn signature(method: &MethodDescriptorProto) -> String {
    let stream = |is_stream| if is_stream { "stream " } else { "" };
    format!(
        "{}({}{}) returns ({}{})",
        method.name(),
        stream(method.client_streaming()),
        method.input_type().trim_start_matches('.'),
        stream(method.server_streaming()),
        method.output_type().trim_start_matches('.'),
    )
}
