//! Compression: a sequence of zstd frames, each of a piece of the archive, so that neither side holds all of it.

use std::io::{self, BufRead, Read, Write};

use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

/// Bytes of a piece.
const PIECE: usize = 256 * 1024;
/// Largest window of a frame that is read, in bytes: what RFC 8878, section 3.1.1.1.2, asks decoders to support.
const MOST_WINDOW: u64 = 8 << 20;

/// Compresses what is written to it.
pub(super) struct Compressor<'a> {
    out: &'a mut dyn Write,
    piece: Vec<u8>,
}

impl<'a> Compressor<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self {
            out,
            piece: Vec::with_capacity(PIECE),
        }
    }

    /// Writes the last frame.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.end_frame()?;
        self.out.flush()
    }

    fn end_frame(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let frame = compress_to_vec(self.piece.as_slice(), CompressionLevel::Fastest);
        self.piece.clear();
        self.out.write_all(&frame)
    }
}

impl Write for Compressor<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE.saturating_sub(self.piece.len());
        let (taken, _) = bytes.split_at(bytes.len().min(room));
        self.piece.extend_from_slice(taken);
        if self.piece.len() >= PIECE {
            self.end_frame()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Decompresses what is read through it: all frames, one after another.
pub(super) struct Decompressor<'a> {
    input: &'a mut dyn BufRead,
    decoder: FrameDecoder,
    is_in_frame: bool,
}

impl<'a> Decompressor<'a> {
    pub(super) fn new(input: &'a mut dyn BufRead) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MOST_WINDOW);
        Self {
            input,
            decoder,
            is_in_frame: false,
        }
    }

    /// What is wrong with the input: where it ends, that is what is missing.
    fn fault(&mut self, fault: &FrameDecoderError) -> io::Error {
        let kind = match self.input.fill_buf() {
            Ok([]) => io::ErrorKind::UnexpectedEof,
            Ok(_) => io::ErrorKind::InvalidData,
            Err(fault) => return fault,
        };
        io::Error::new(kind, fault.to_string())
    }
}

impl Read for Decompressor<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.decoder.read(out)?;
            if read > 0 || out.is_empty() {
                return Ok(read);
            }
            if self.is_in_frame && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                let decoded = self.decoder.decode_blocks(&mut *self.input, one);
                if let Err(fault) = decoded {
                    return Err(self.fault(&fault));
                }
                continue;
            }
            if self.input.fill_buf()?.is_empty() {
                return Ok(0);
            }
            if let Err(fault) = self.decoder.reset(&mut *self.input) {
                return Err(self.fault(&fault));
            }
            self.is_in_frame = true;
        }
    }
}
