//! What rounds came to: a table, and ratios round by round.

use serde_json::{Value, json};

use super::{Measured, Shape};
use crate::{
    figures::{Figure, cell, json_or_null, table},
    product::Kind,
};

/// Prints them; `syncs` as the products are, `direct` a figure for each round or none.
pub fn report(
    shape: Shape,
    rounds: &[(Kind, Vec<Measured>)],
    syncs: &[Option<f64>],
    direct: &[f64],
) -> Value {
    let Shape {
        size,
        sessions,
        per_connection,
    } = shape;
    println!(
        "\n{size} octets, {sessions} sessions, {per_connection} to a connection: median (least–greatest)\n"
    );
    let head = [
        "",
        "accepted/s",
        "through/s",
        "CPU s/1000",
        "PSS MiB",
        "syncs/mail",
        "bench CPU s/1000",
        "others' CPU %",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut products = Vec::new();
    for ((kind, measured), syncs) in rounds.iter().zip(syncs) {
        let figure = |of: fn(&Measured) -> f64| Figure::of(measured.iter().map(of));
        let figures = [
            ("accepted_per_s", figure(|round| round.accepted)),
            ("through_per_s", figure(|round| round.through)),
            ("cpu_s_per_1000", figure(|round| round.cpu)),
            ("pss_mib", figure(|round| round.memory)),
            (
                "syncs_per_mail",
                syncs.and_then(|syncs| Figure::of([syncs])),
            ),
            ("bench_cpu_s_per_1000", figure(|round| round.own_cpu)),
            ("foreign_cpu_percent", figure(|round| round.foreign)),
        ];
        let mut line = vec![kind.to_string()];
        let mut product = json!({ "product": kind.to_string(), "rounds": measured.len() });
        for (name, figure) in figures {
            line.push(match (name, figure) {
                ("syncs_per_mail", Some(figure)) => format!("{:.3}", figure.median),
                _ => cell(figure),
            });
            product[name] = json_or_null(figure);
        }
        lines.push(line);
        products.push(product);
    }
    print!("{}", table(&lines));
    let ratios = ratios(rounds);
    let mut result = json!({ "size": size, "sessions": sessions, "per_connection": per_connection, "products": products, "ratios": ratios });
    if let Some(alone) = Figure::of(direct.iter().copied()) {
        result["direct_per_s"] = alone.json();
        result["of_direct"] = of_direct(alone, rounds, direct);
    }
    result
}

/// What part of the load's own rate each product let through, round by round.
fn of_direct(alone: Figure, rounds: &[(Kind, Vec<Measured>)], direct: &[f64]) -> Value {
    println!("\nThe load alone, straight to where the mails go: {alone}/s");
    let mut parts = json!({});
    for (kind, measured) in rounds {
        let pairs = measured.iter().zip(direct);
        let part = Figure::of(pairs.map(|(round, direct)| round.through / direct));
        println!("Of that came through {kind}: {}", cell(part));
        parts[kind.to_string()] = json_or_null(part);
    }
    parts
}

/// Each of ours to each of the others, round by round.
fn ratios(rounds: &[(Kind, Vec<Measured>)]) -> Vec<Value> {
    let (theirs, ours): (Vec<_>, Vec<_>) = rounds.iter().partition(|(kind, _)| kind.is_foreign());
    let mut ratios = Vec::new();
    for (our_kind, our) in &ours {
        for (their_kind, their) in &theirs {
            let ratio = |of: fn(&Measured) -> f64| {
                let pairs = our.iter().zip(their);
                Figure::of(pairs.map(|(our, their)| of(our) / of(their)))
            };
            let [accepted, through, cpu] = [
                ratio(|round| round.accepted),
                ratio(|round| round.through),
                ratio(|round| round.cpu),
            ];
            println!(
                "\n{our_kind} to {their_kind}, round by round: accepted {}, through {}, CPU {}",
                cell(accepted),
                cell(through),
                cell(cpu)
            );
            ratios.push(json!({ "of": our_kind.to_string(), "to": their_kind.to_string(),
                "accepted": json_or_null(accepted), "through": json_or_null(through), "cpu": json_or_null(cpu) }));
        }
    }
    ratios
}
