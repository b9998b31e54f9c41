//! `hearth dns`.

use serde_json::Value;

use crate::api::{CreateDnsRecord, DnsRecord, DnsRecordAnswer, DnsRecordsAnswer};
use crate::cli::args::{Dns, OneDnsRecord};
use crate::cli::client::{CliError, escaped, read};
use crate::cli::context::Ctx;
use crate::cli::output::{Output, cell};

const PATH: &str = "/api/v1/dns/records";

/// Carries out a command about DNS records.
pub fn run(ctx: &Ctx, command: Dns) -> Result<Output, CliError> {
    match command {
        Dns::List => list(ctx),
        Dns::Add { name, value, kind } => {
            let record = CreateDnsRecord {
                name,
                value,
                r#type: kind,
            };
            added(ctx, &ctx.client.post(PATH, &record)?)
        }
        Dns::Delete { which } => {
            ctx.confirm(|| Ok(format!("delete the DNS records {}", words(&which))))?;
            let answer = ctx.client.delete(&path_of(&which))?;
            let DnsRecordsAnswer { records } = read(&answer)?;
            Ok(ctx.field(&answer, "records", || {
                let lines: Vec<String> = records.iter().map(|gone| line(gone, "deleted")).collect();
                lines.join("\n")
            }))
        }
    }
}

/// The records as a person named them.
fn words(which: &OneDnsRecord) -> String {
    let parts = [which.kind.as_ref(), which.value.as_ref()];
    let mut text = cell(&which.name);
    for part in parts.into_iter().flatten() {
        text.push(' ');
        text.push_str(&cell(part));
    }
    text
}

fn path_of(which: &OneDnsRecord) -> String {
    let filters = [
        ("name", Some(&which.name)),
        ("value", which.value.as_ref()),
        ("type", which.kind.as_ref()),
    ];
    let query: Vec<String> = filters
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", escaped(value?))))
        .collect();
    format!("{PATH}?{}", query.join("&"))
}

fn line(record: &DnsRecord, done: &str) -> String {
    let (name, value) = (cell(&record.name), cell(&record.value));
    format!("{name} {} {value} {done}", record.r#type)
}

fn added(ctx: &Ctx, answer: &Value) -> Result<Output, CliError> {
    let DnsRecordAnswer { record } = read(answer)?;
    let output = ctx.field(answer, "record", || line(&record, "added"));
    Ok(match record.addresses.is_empty() {
        true => {
            output.note("No node has that name yet; the record has no addresses until one does.")
        }
        false => output,
    })
}

fn list(ctx: &Ctx) -> Result<Output, CliError> {
    let answer = ctx.client.get(PATH)?;
    let DnsRecordsAnswer { records } = read(&answer)?;
    Ok(ctx.field(&answer, "records", || {
        let rows: Vec<[String; 5]> = records
            .iter()
            .map(|record| {
                [
                    cell(&record.name),
                    record.r#type.clone(),
                    cell(&record.value),
                    cell(&record.addresses.join(" ")),
                    record.source.clone(),
                ]
            })
            .collect();
        ctx.table(["Name", "Type", "Value", "Addresses", "Source"], &rows)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_named_by_as_much_as_is_given() {
        let mut which = OneDnsRecord {
            name: "a b".into(),
            value: None,
            kind: None,
        };
        assert_eq!(path_of(&which), "/api/v1/dns/records?name=a%20b");
        which.value = Some("::1".into());
        assert_eq!(
            path_of(&which),
            "/api/v1/dns/records?name=a%20b&value=%3A%3A1"
        );
    }
}
