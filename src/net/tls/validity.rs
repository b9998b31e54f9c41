//! Validity of a certificate: not before, not after.
//!
//! Pure; reads only the part of X.509 (RFC 5280 section 4.1) up to the validity.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use hearth_core::clock::Timestamp;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The explicit version of a certificate, which is optional.
const VERSION: u8 = 0xa0;

/// Not before and not after of a certificate in DER form.
pub fn of_certificate(der: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (mut rest, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, after)) = expect(rest, VERSION) {
        rest = after;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        let (_, _, after) = element(rest)?;
        rest = after;
    }
    let (validity, _) = expect(rest, SEQUENCE)?;
    let (begin, rest) = time(validity)?;
    let (end, _) = time(rest)?;
    Some((begin, end))
}

/// Tag, value and rest.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        short if short < 0x80 => (usize::from(short), rest),
        0x81 => {
            let (&[a], rest) = rest.split_first_chunk::<1>()?;
            (usize::from(a), rest)
        }
        0x82 => {
            let (bytes, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*bytes)), rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((tag, value, rest))
}

fn expect(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, value, rest) = element(der)?;
    (tag == wanted).then_some((value, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 section 4.1.2.5).
fn time(der: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (tag, value, rest) = element(der)?;
    let text = std::str::from_utf8(value).ok()?;
    let digits = text.strip_suffix('Z')?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, short) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let (year, short) = digits.split_at_checked(2)?;
            let century = if year < "50" { "20" } else { "19" };
            (format!("{century}{year}"), short)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, short) = digits.split_at_checked(4)?;
            (year.to_owned(), short)
        }
        _ => return None,
    };
    let pair = |at: usize| short.get(at..at.checked_add(2)?);
    let (month, day) = (pair(0)?, pair(2)?);
    let (hour, minute, second) = (pair(4)?, pair(6)?, pair(8)?);
    let text = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    Some((Timestamp::parse(&text)?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate(begin: i32, end: i32) -> Vec<u8> {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut wanted = rcgen::CertificateParams::default();
        wanted.not_before = rcgen::date_time_ymd(begin, 1, 2);
        wanted.not_after = rcgen::date_time_ymd(end, 12, 31);
        wanted.self_signed(&pair).unwrap().der().to_vec()
    }

    #[test]
    fn both_forms_of_a_time_are_parsed() {
        let texts = |der: &[u8]| {
            let (begin, end) = of_certificate(der)?;
            Some((begin.to_string(), end.to_string()))
        };
        let near = texts(&certificate(2024, 2049)).unwrap();
        assert_eq!(
            near,
            ("2024-01-02T00:00:00Z".into(), "2049-12-31T00:00:00Z".into())
        );
        let far = texts(&certificate(1999, 2051)).unwrap();
        assert_eq!(
            far,
            ("1999-01-02T00:00:00Z".into(), "2051-12-31T00:00:00Z".into())
        );
    }

    #[test]
    fn a_truncated_certificate_has_no_validity() {
        let whole = certificate(2024, 2049);
        for end in 0..whole.len() {
            assert_eq!(of_certificate(&whole[..end]), None, "{end}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(
            at in 0..200_usize, byte in any::<u8>(), tail in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut der = certificate(2024, 2049);
            der[at] = byte;
            let _ = of_certificate(&der);
            let _ = of_certificate(&tail);
        }
    }
}
