//! Compresses with the same bytes on every machine.
//!
//! `flate2` chooses its compressor by the features of the whole build, and a fast one chooses its algorithm by the
//! processor. So this calls one compressor that does neither.

use std::io::{self, Write};

use flate2::Crc;
use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress_to_output, create_comp_flags_from_zip_params,
};

/// zlib's level. Another one gives other bytes for the same tree.
const LEVEL: i32 = 6;
/// deflate, no name, no time, no hint about the compression, unknown operating system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

pub(super) struct Gzip<W> {
    to: W,
    compressor: Box<CompressorOxide>,
    crc: Crc,
}

impl<W: Write> Gzip<W> {
    pub(super) fn new(mut to: W) -> io::Result<Self> {
        to.write_all(&HEADER)?;
        let flags = create_comp_flags_from_zip_params(LEVEL, 0, 0);
        Ok(Self { to, compressor: Box::new(CompressorOxide::new(flags)), crc: Crc::new() })
    }

    pub(super) fn target(&self) -> &W {
        &self.to
    }

    /// Ends the stream with the checksum and the size.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.compress(&[], TDEFLFlush::Finish)?;
        self.to.write_all(&self.crc.sum().to_le_bytes())?;
        self.to.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.to)
    }

    fn compress(&mut self, bytes: &[u8], flush: TDEFLFlush) -> io::Result<()> {
        let Self { to, compressor, .. } = self;
        let mut written = Ok(());
        let (status, used) = compress_to_output(compressor, bytes, flush, |chunk| {
            written = to.write_all(chunk);
            written.is_ok()
        });
        written?;
        let expected = if flush == TDEFLFlush::Finish { TDEFLStatus::Done } else { TDEFLStatus::Okay };
        if status != expected || used != bytes.len() {
            return Err(io::Error::other("the compressor stopped"));
        }
        Ok(())
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.compress(bytes, TDEFLFlush::None)?;
        self.crc.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_is_compressed_unpacks_however_it_was_written() {
        let text: Vec<u8> = (0_u32..60_000).flat_map(|number| (number / 7).to_le_bytes()).collect();
        let mut results = Vec::new();
        for size in [1, 1000, text.len()] {
            let mut gzip = Gzip::new(Vec::new()).unwrap();
            text.chunks(size).for_each(|chunk| gzip.write_all(chunk).unwrap());
            results.push(gzip.finish().unwrap());
        }
        assert!(results.iter().all(|bytes| *bytes == results[0]) && results[0].len() < text.len() / 2);
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(results[0].as_slice()).read_to_end(&mut read).unwrap();
        assert!(read == text);
    }

    #[test]
    fn an_error_of_the_target_stops_it() {
        let mut target = [0_u8; 20];
        let mut gzip = Gzip::new(&mut target[..]).unwrap();
        let noise: Vec<u8> = (0_u32..100_000).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let written = gzip.write_all(&noise).and_then(|()| gzip.finish().map(drop));
        assert!(written.is_err());
    }
}
