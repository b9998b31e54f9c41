use std::io::{Read as _, Write as _};

use super::*;

/// Work factor of tests: one MiB, which is below what is ever written.
const QUICK: u8 = 10;

fn sealed(plain: &[u8], lock: &Lock<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encryptor = Encryptor::new(&mut out, lock).unwrap();
    encryptor.write_all(plain).unwrap();
    encryptor.finish().unwrap();
    out
}

fn opened(file: &[u8], keys: &Keys<'_>) -> Result<Vec<u8>, Fault> {
    let mut input = file;
    let mut decryptor = Decryptor::new(&mut input, keys)?;
    let mut plain = Vec::new();
    decryptor.read_to_end(&mut plain)?;
    Ok(plain)
}

fn by_passphrase(passphrase: &str) -> Keys<'_> {
    Keys {
        passphrase: Some(passphrase),
        memory: 64 << 20,
        ..Keys::default()
    }
}

fn by_identity(identities: &[Identity]) -> Keys<'_> {
    Keys {
        identities,
        ..Keys::default()
    }
}

fn locked(passphrase: &str) -> Lock<'_> {
    Lock::Passphrase {
        passphrase,
        work_factor: QUICK,
    }
}

#[test]
fn files_of_every_length_are_opened_by_passphrase_and_identity() {
    let chunk = 64 * 1024;
    let identity = [Identity::random().unwrap()];
    let recipient = [identity[0].recipient()];
    for length in [0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 200_000] {
        let plain: Vec<u8> = (0..length).map(|place| place as u8).collect();
        let file = sealed(&plain, &Lock::Recipients(&recipient));
        assert_eq!(opened(&file, &by_identity(&identity)).unwrap(), plain);
        let file = sealed(&plain, &locked("pass"));
        assert_eq!(opened(&file, &by_passphrase("pass")).unwrap(), plain);
    }
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let identity = [Identity::random().unwrap()];
    let other = [Identity::random().unwrap()];
    let file = sealed(b"x", &Lock::Recipients(&[identity[0].recipient()]));
    let fault = |file: &[u8], keys: &Keys<'_>| opened(file, keys).unwrap_err().to_string();
    assert!(fault(&file, &by_passphrase("p")).contains("--identity"));
    assert!(fault(&file, &by_identity(&other)).contains("none of the identities"));
    let file = sealed(b"x", &locked("right"));
    assert_eq!(fault(&file, &by_passphrase("wrong")), "wrong passphrase");
    assert!(fault(&file, &by_identity(&identity)).contains("with a passphrase"));
    let little = Keys {
        memory: 1 << 19,
        ..by_passphrase("right")
    };
    assert!(fault(&file, &little).contains("needs 1 MiB of memory"));
    let ssh = b"age-encryption.org/v1\n-> ssh-ed25519 abcd efgh\nAAAA\n--- AAAA\n";
    assert!(fault(ssh, &by_identity(&identity)).contains("another kind"));
}

#[test]
fn one_of_several_recipients_is_enough() {
    let identities: Vec<Identity> = (0..3).map(|_| Identity::random().unwrap()).collect();
    let recipients: Vec<Recipient> = identities.iter().map(Identity::recipient).collect();
    let file = sealed(b"text", &Lock::Recipients(&recipients));
    for identity in identities {
        assert_eq!(opened(&file, &by_identity(&[identity])).unwrap(), b"text");
    }
}

#[test]
fn every_changed_bit_and_every_truncation_is_refused() {
    let identity = [Identity::random().unwrap()];
    let keys = by_identity(&identity);
    let file = sealed(b"some text", &Lock::Recipients(&[identity[0].recipient()]));
    for bit in 0..file.len() * 8 {
        let mut changed = file.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(opened(&changed, &keys).is_err(), "bit {bit}");
    }
    for end in 0..file.len() {
        assert!(opened(&file[..end], &keys).is_err(), "cut at {end}");
    }
    let longer = [file.as_slice(), b"x"].concat();
    assert!(opened(&longer, &keys).is_err());
}

#[test]
fn chunks_cannot_be_cut_off_swapped_or_repeated() {
    let identity = [Identity::random().unwrap()];
    let keys = by_identity(&identity);
    let plain = vec![7; 3 * 64 * 1024];
    let file = sealed(&plain, &Lock::Recipients(&[identity[0].recipient()]));
    let sealed_chunk = 64 * 1024 + 16;
    let begin = file.len() - 3 * sealed_chunk;
    let (header, payload) = file.split_at(begin);
    let chunks: Vec<&[u8]> = payload.chunks(sealed_chunk).collect();
    for order in [&[0, 1][..], &[0, 2], &[1, 0, 2], &[0, 1, 1, 2], &[2], &[]] {
        let mut other = header.to_vec();
        for number in order {
            other.extend_from_slice(chunks[*number]);
        }
        assert!(opened(&other, &keys).is_err(), "{order:?}");
    }
}

/// Test vectors of C2SP `age`: <https://github.com/C2SP/CCTV/tree/main/age>.
#[test]
fn keys_read_as_they_were_written_and_slips_are_found() {
    let identity = "AGE-SECRET-KEY-1XMWWC06LY3EE5RYTXM9MFLAZ2U56JJJ36S0MYPDRWSVLUL66MV4QX3S7F6";
    let key: Identity = identity.parse().unwrap();
    assert_eq!(*key.reveal(), identity);
    let recipient = key.recipient().to_string();
    assert!(
        recipient.starts_with("age1") && recipient.len() == 62,
        "{recipient}"
    );
    assert_eq!(recipient.parse::<Recipient>().unwrap(), key.recipient());
    assert!(recipient.to_uppercase().parse::<Recipient>().is_ok());
    for wrong in [
        recipient.replace("age1", "agf1"),
        recipient.replacen('a', "A", 1),
        recipient[..61].to_owned(),
        format!("{recipient}q"),
        String::new(),
    ] {
        assert!(wrong.parse::<Recipient>().is_err(), "{wrong}");
    }
    for place in 4..recipient.len() {
        let mut letters: Vec<char> = recipient.chars().collect();
        letters[place] = if letters[place] == 'q' { 'p' } else { 'q' };
        let wrong: String = letters.into_iter().collect();
        assert!(wrong.parse::<Recipient>().is_err(), "{wrong}");
    }
    let file = format!("# created: today\n\n{identity}\n");
    assert_eq!(Identity::list(&file).unwrap().len(), 1);
    assert!(Identity::list("AGE-SECRET-KEY-1\n").is_err());
    assert_eq!(format!("{key:?}"), "[redacted]");
}

#[test]
fn the_work_factor_follows_the_memory() {
    assert_eq!(work_factor(u64::MAX), 18);
    assert_eq!(work_factor(256 << 20), 18);
    assert_eq!(work_factor(255 << 20), 17);
    assert_eq!(work_factor(8 << 20), 13);
    assert_eq!(work_factor(0), 13);
}
