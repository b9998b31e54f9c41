//! The control protocol: what clients say inside the Noise session.

pub mod noise_stream;
