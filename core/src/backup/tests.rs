use std::collections::BTreeMap;
use std::io;

use super::*;
use crate::clock::Timestamp;

/// Most bytes of a test.
const MOST: u64 = 4 << 20;

/// What was read, by name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Files(BTreeMap<String, Vec<u8>>, String);

impl Sink for Files {
    fn begin(&mut self, name: &Name, _: u64) -> io::Result<()> {
        self.1 = name.to_string();
        self.0.insert(self.1.clone(), Vec::new());
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut(&self.1).unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn manifest() -> Manifest {
    let mut manifest = Manifest::new("1.2.3", Timestamp::from_unix_ms(1_800_000_000_000));
    manifest.server_url = "https://hearth.example".into();
    manifest
}

fn written(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, &manifest()).unwrap();
    for (name, content) in files {
        let name: Name = name.parse().unwrap();
        let mut content = *content;
        writer
            .file(&name, content.len() as u64, &mut content)
            .unwrap();
    }
    writer.finish().unwrap();
    out
}

fn read_back(file: &[u8]) -> Result<(Manifest, Files), Fault> {
    let mut files = Files::default();
    let mut input = file;
    let manifest = read(&mut input, MOST, &mut files)?;
    Ok((manifest, files))
}

/// A frame of stored blocks around a tar archive that others made; runs of one byte are short.
fn compressed(tar: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(tar, ruzstd::encoding::CompressionLevel::Uncompressed)
}

fn decompressed(file: &[u8]) -> Vec<u8> {
    use std::io::Read as _;
    let mut input = file;
    let mut tar = Vec::new();
    let mut decompressor = zstd::Decompressor::new(&mut input);
    decompressor.read_to_end(&mut tar).unwrap();
    tar
}

/// A header for any name, with a right checksum.
fn header(name: &str, size: u64) -> [u8; 512] {
    let header = tar::Header {
        name: name.into(),
        size,
    };
    header.block(0).unwrap()
}

#[test]
fn what_was_written_is_read() {
    let large: Vec<u8> = (0..700_000_u32).map(|n| (n / 97) as u8).collect();
    let files: [(&str, &[u8]); 5] = [
        ("data/hearth.redb", &large),
        ("data/tls/cert.pem", b"certificate"),
        ("data/empty", b""),
        ("settings/hearth.toml", &[b'x'; 512]),
        ("settings/policy.hujson", &[b'y'; 513]),
    ];
    let file = written(&files);
    assert_eq!(Kind::of(&file), Kind::Archive);
    let (found, Files(content, _)) = read_back(&file).unwrap();
    assert_eq!(found, manifest());
    let expected = files.map(|(name, content)| (name.to_owned(), content.to_vec()));
    assert_eq!(content, BTreeMap::from(expected));
}

#[test]
fn the_same_files_make_the_same_archive() {
    let files: [(&str, &[u8]); 1] = [("data/hearth.redb", b"x")];
    assert_eq!(written(&files), written(&files));
}

#[test]
fn every_truncation_and_every_changed_bit_is_refused() {
    let file = written(&[("data/hearth.redb", b"content"), ("settings/a", b"b")]);
    for end in 0..file.len() {
        assert!(read_back(&file[..end]).is_err(), "cut at {end}");
    }
    for bit in 0..file.len() * 8 {
        let mut changed = file.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        // Some bits of the compression mean nothing: then all is as it was.
        if let Ok((found, files)) = read_back(&changed) {
            assert_eq!((found, files), read_back(&file).unwrap(), "bit {bit}");
        }
    }
    assert!(matches!(read_back(b""), Err(Fault::Truncated)));
}

#[test]
fn a_changed_bit_in_any_byte_of_the_archive_itself_is_refused() {
    let file = written(&[("data/hearth.redb", b"content"), ("settings/a", b"b")]);
    let tar = decompressed(&file);
    let whole = read_back(&file).unwrap();
    for place in 0..tar.len() {
        let mut changed = tar.clone();
        changed[place] ^= 1 << (place % 8);
        if let Ok(found) = read_back(&compressed(&changed)) {
            // Padding, and fields that nobody reads.
            assert_eq!(found, whole, "byte {place}");
        }
    }
}

#[test]
fn names_cannot_lead_elsewhere() {
    for name in [
        "/etc/passwd",
        "hearth-backup/../../etc/passwd",
        "hearth-backup/data/../../x",
        "hearth-backup/data//x",
        "hearth-backup/data/",
        "hearth-backup/data/.ssh",
        "hearth-backup/data/a b",
        "hearth-backup/data/a\\b",
        "hearth-backup/data/a/b/c/d/e",
        "hearth-backup/other/x",
        "hearth-backup/x",
        "data/hearth.redb",
    ] {
        let whole = decompressed(&written(&[]));
        // The file is put after the manifest.
        let (begin, rest) = whole.split_at(1024);
        let tar = [begin, &header(name, 0), rest].concat();
        let fault = read_back(&compressed(&tar)).unwrap_err();
        assert!(matches!(fault, Fault::Name(_)), "{name}: {fault}");
    }
    assert!(Name::new(Place::Data, &"a".repeat(81)).is_err());
}

#[test]
fn links_folders_and_devices_are_refused() {
    for kind in b"1234567xgLK" {
        let whole = decompressed(&written(&[]));
        let mut link = header("hearth-backup/data/x", 0);
        let before = u32::from(link[156]);
        link[156] = *kind;
        let sum = link[148..154]
            .iter()
            .fold(0, |sum, digit| sum * 8 + u32::from(digit - b'0'));
        let sum = format!("{:06o}", sum - before + u32::from(*kind));
        link[148..154].copy_from_slice(sum.as_bytes());
        let (begin, rest) = whole.split_at(1024);
        let tar = [begin, &link, rest].concat();
        let fault = read_back(&compressed(&tar)).unwrap_err();
        assert!(matches!(fault, Fault::Format(_)), "{fault}");
    }
}

#[test]
fn sizes_are_bounded_before_anything_is_stored() {
    let whole = decompressed(&written(&[]));
    let (begin, rest) = whole.split_at(1024);
    // 8 GiB that are not there.
    let tar = [begin, &header("hearth-backup/data/x", (1 << 33) - 1), rest].concat();
    let mut files = Files::default();
    let fault = read(&mut compressed(&tar).as_slice(), MOST, &mut files).unwrap_err();
    assert!(matches!(fault, Fault::TooLarge { most: MOST }), "{fault}");
    assert_eq!(files, Files::default());
    // A manifest that does not end.
    let tar = header("hearth-backup/manifest.json", 1 << 20);
    let fault = read_back(&compressed(&tar)).unwrap_err();
    assert!(matches!(fault, Fault::TooLarge { .. }), "{fault}");
    // Zeros without end after the archive: RLE blocks of 128 KiB, four bytes each (RFC 8878, section 3.1.1.2).
    let mut zeros = compressed(&whole);
    zeros.extend([0x28, 0xb5, 0x2f, 0xfd, 0x00, 7 << 3]);
    let block = ((128_u32 << 10) << 3 | 1 << 1).to_le_bytes();
    for _ in 0..1 << 14 {
        zeros.extend([block[0], block[1], block[2], 0]);
    }
    assert!(matches!(read_back(&zeros), Err(Fault::Format(_))));
}

#[test]
fn a_frame_with_a_huge_window_is_refused_without_its_memory() {
    // Window descriptor: 2^41 bytes (RFC 8878, section 3.1.1.1.2).
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 31 << 3, 0x01, 0x00, 0x00];
    let fault = read_back(&frame).unwrap_err();
    assert!(fault.to_string().contains("window"), "{fault}");
}

#[test]
fn files_that_occur_twice_or_have_no_checksum_are_refused() {
    let twice = written(&[("data/a", b"1"), ("data/a", b"2")]);
    assert!(matches!(read_back(&twice), Err(Fault::Twice(_))));
    let whole = decompressed(&written(&[]));
    let (begin, rest) = whole.split_at(1024);
    let tar = [begin, &header("hearth-backup/data/x", 0), rest].concat();
    let fault = read_back(&compressed(&tar)).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "the backup is damaged: checksum mismatch in data/x"
    );
    let after = [whole, header("hearth-backup/data/x", 0).to_vec()].concat();
    assert!(read_back(&compressed(&after)).is_err());
}

#[test]
fn a_newer_format_names_the_version_that_reads_it() {
    let tar = decompressed(&written(&[]));
    let text = String::from_utf8(tar).unwrap();
    let newer = text.replacen("\"format\": 1,", "\"format\": 2,", 1);
    let fault = read_back(&compressed(newer.as_bytes())).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "this backup was made by hearth 1.2.3; install that version or a newer one"
    );
}

#[test]
fn a_file_is_known_by_its_first_bytes() {
    assert_eq!(Kind::of(b"age-encryption.org/v1\n-> "), Kind::Encrypted);
    assert_eq!(Kind::of(b"redb\x1a\x0a\xa9\x0d\x0a\x00"), Kind::Database);
    assert_eq!(
        Kind::of(b"-----BEGIN AGE ENCRYPTED FILE-----\n"),
        Kind::Armored
    );
    assert_eq!(Kind::of(b"PK"), Kind::Unknown);
    assert_eq!(Kind::of(b""), Kind::Unknown);
}
