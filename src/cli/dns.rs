//! `hearth dns`.

use serde_json::Value;

use super::args::{Dns, OneDnsRecord};
use super::client::{CliError, Client, escaped, read};
use super::output::{Format, Output, cell, table};
use super::users::inner;
use crate::api::{CreateDnsRecord, DnsRecord, DnsRecordAnswer, DnsRecordsAnswer};

const PATH: &str = "/api/v1/dns/records";

/// Carries out a command about DNS records.
pub fn run(command: Dns, client: &Client, format: Option<Format>) -> Result<Output, CliError> {
    match command {
        Dns::List => list(client, format),
        Dns::Add { name, value, kind } => {
            let record = CreateDnsRecord {
                name,
                value,
                r#type: kind,
            };
            added(&client.post(PATH, &record)?, format)
        }
        Dns::Delete { which } => {
            let answer = client.delete(&path_of(&which))?;
            let DnsRecordsAnswer { records } = read(&answer)?;
            Ok(Output::of(format, &inner(&answer, "records"), || {
                let lines: Vec<String> = records.iter().map(|gone| line(gone, "removed")).collect();
                lines.join("\n")
            }))
        }
    }
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

fn added(answer: &Value, format: Option<Format>) -> Result<Output, CliError> {
    let DnsRecordAnswer { record } = read(answer)?;
    let output = Output::of(format, &inner(answer, "record"), || line(&record, "added"));
    Ok(match record.addresses.is_empty() {
        true => output.note(format, "there is no node of that name yet"),
        false => output,
    })
}

fn list(client: &Client, format: Option<Format>) -> Result<Output, CliError> {
    let answer = client.get(PATH)?;
    let DnsRecordsAnswer { records } = read(&answer)?;
    Ok(Output::of(format, &inner(&answer, "records"), || {
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
        table(["Name", "Type", "Value", "Addresses", "Made by"], &rows)
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
