//! How messages become bytes, and bytes messages again.

use std::error::Error;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A format in which messages are stored.
///
/// It is recorded by its [`name`](Self::name) beside the log, so that nobody reads JSON as postcard.
/// What it can store says [`Encode`], and what it can read [`Decode`]. [`Postcard`], [`Json`] and
/// [`Raw`] are there; implement the three for a format of your own:
///
/// ```
/// use dacapo::{Codec, CodecError, Decode, Encode, ReplayChannel};
///
/// /// Numbers in decimal digits.
/// #[derive(Clone)]
/// struct Decimal;
///
/// impl Codec for Decimal {
///     fn name(&self) -> &str {
///         "decimal"
///     }
/// }
///
/// impl Encode<u64> for Decimal {
///     fn encode(&self, message: &u64, into: &mut Vec<u8>) -> Result<(), CodecError> {
///         into.extend_from_slice(message.to_string().as_bytes());
///         Ok(())
///     }
/// }
///
/// impl Decode<'_, u64> for Decimal {
///     fn decode(&self, bytes: &[u8]) -> Result<u64, CodecError> {
///         let digits = std::str::from_utf8(bytes).map_err(CodecError::new)?;
///         digits.parse().map_err(CodecError::new)
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let numbers = ReplayChannel::<u64>::builder().codec(Decimal).temporary()?;
/// numbers.sender().send(&7)?;
/// let message = numbers.receiver().message_blocking()?;
/// assert_eq!(message.payload(), b"7");
/// assert_eq!(message.decode()?, 7);
/// # Ok(())
/// # }
/// ```
pub trait Codec: Clone + Send + Sync + 'static {
    /// What the format is called; must not change while there are logs in it.
    fn name(&self) -> &str;
}

/// A format that can store an `M`.
///
/// What is borrowed from a type has the bytes of that type: a `str` those of a `String`, so that a
/// channel of the one can be sent the other.
pub trait Encode<M: ?Sized>: Codec {
    /// Appends the message's bytes to `into`, whose capacity is used again for the next message.
    ///
    /// # Errors
    /// Where the format cannot express the message; nothing is sent then.
    fn encode(&self, message: &M, into: &mut Vec<u8>) -> Result<(), CodecError>;
}

/// A format that can read a `V` from the bytes of a message, in which it may borrow.
pub trait Decode<'a, V>: Codec {
    /// Reads a `V` from all of `bytes`.
    ///
    /// # Errors
    /// Where the bytes are no `V`. It must not panic, whatever they are, nor use the receiver that it
    /// decodes for, which others wait for meanwhile.
    fn decode(&self, bytes: &'a [u8]) -> Result<V, CodecError>;
}

/// Why a codec could not do its work.
pub struct CodecError(Box<dyn Error + Send + Sync>);

impl CodecError {
    /// An error of the format, or a text that describes one.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// It displays as its cause does, and is therefore not repeated as its own source.
impl Error for CodecError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// [Postcard](https://postcard.jamesmunns.com/), a compact binary format: the default.
///
/// It stores no names and no types: fields go by their order, and variants by their number. How a
/// type may change over time is in the guide, under "Messages that change".
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

impl Codec for Postcard {
    fn name(&self) -> &str {
        "postcard"
    }
}

impl<M: Serialize + ?Sized> Encode<M> for Postcard {
    fn encode(&self, message: &M, into: &mut Vec<u8>) -> Result<(), CodecError> {
        postcard::serialize_with_flavor(message, Buffer(into)).map_err(CodecError::new)
    }
}

impl<'a, V: Deserialize<'a>> Decode<'a, V> for Postcard {
    fn decode(&self, bytes: &'a [u8]) -> Result<V, CodecError> {
        let (value, rest) = postcard::take_from_bytes(bytes).map_err(CodecError::new)?;
        match rest.len() {
            0 => Ok(value),
            left => Err(CodecError::new(format!(
                "{left} of {} bytes are left over",
                bytes.len()
            ))),
        }
    }
}

/// Postcard's output, behind what a buffer holds already.
struct Buffer<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Buffer<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// JSON, a line a message: for logs that other programs, and people, read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl Codec for Json {
    fn name(&self) -> &str {
        "json"
    }
}

impl<M: Serialize + ?Sized> Encode<M> for Json {
    fn encode(&self, message: &M, into: &mut Vec<u8>) -> Result<(), CodecError> {
        serde_json::to_writer(into, message).map_err(CodecError::new)
    }
}

impl<'a, V: Deserialize<'a>> Decode<'a, V> for Json {
    fn decode(&self, bytes: &'a [u8]) -> Result<V, CodecError> {
        serde_json::from_slice(bytes).map_err(CodecError::new)
    }
}

/// Bytes as they are: for messages of type `Vec<u8>`, [`Bytes`] or `String`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Codec for Raw {
    fn name(&self) -> &str {
        "raw"
    }
}

impl<M: AsRef<[u8]> + ?Sized> Encode<M> for Raw {
    fn encode(&self, message: &M, into: &mut Vec<u8>) -> Result<(), CodecError> {
        into.extend_from_slice(message.as_ref());
        Ok(())
    }
}

impl Decode<'_, Vec<u8>> for Raw {
    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(bytes.to_vec())
    }
}

/// Copies; [`Message::into_bytes`](crate::Message::into_bytes) does not.
impl Decode<'_, Bytes> for Raw {
    fn decode(&self, bytes: &[u8]) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(bytes))
    }
}

impl Decode<'_, String> for Raw {
    fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
        <Self as Decode<'_, &str>>::decode(self, bytes).map(str::to_owned)
    }
}

impl<'a> Decode<'a, &'a [u8]> for Raw {
    fn decode(&self, bytes: &'a [u8]) -> Result<&'a [u8], CodecError> {
        Ok(bytes)
    }
}

impl<'a> Decode<'a, &'a str> for Raw {
    fn decode(&self, bytes: &'a [u8]) -> Result<&'a str, CodecError> {
        std::str::from_utf8(bytes).map_err(CodecError::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded<M: ?Sized>(codec: &impl Encode<M>, message: &M) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec.encode(message, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_left_over_behind_a_message_is_an_error() {
        let mut bytes = encoded(&Postcard, &(1u8, "one".to_owned()));
        bytes.push(0);
        let decoded: Result<(u8, String), _> = Postcard.decode(&bytes);
        let error = decoded.unwrap_err();
        assert_eq!(error.to_string(), "1 of 6 bytes are left over");
        let decoded: Result<u8, _> = Json.decode(b"1 2");
        assert!(decoded.is_err());
    }

    #[test]
    fn a_view_borrows_from_the_message() {
        let bytes = encoded(&Postcard, &("tea".to_owned(), 3u8));
        let view: (&str, u8) = Postcard.decode(&bytes).unwrap();
        assert_eq!(view, ("tea", 3));
        assert!(bytes.as_ptr_range().contains(&view.0.as_ptr()));
    }

    #[test]
    fn what_is_borrowed_from_a_type_has_its_bytes() {
        let owned = ("tea".to_owned(), vec![1u8, 2]);
        assert_eq!(encoded(&Postcard, &owned.0), encoded(&Postcard, "tea"));
        assert_eq!(
            encoded(&Postcard, &owned.1),
            encoded(&Postcard, &[1u8, 2][..])
        );
        assert_eq!(encoded(&Json, &owned.0), encoded(&Json, "tea"));
    }

    #[test]
    fn raw_messages_are_stored_as_they_are() {
        assert_eq!(encoded(&Raw, &vec![0u8, 255]), [0, 255]);
        assert_eq!(encoded(&Raw, "text"), b"text");
        assert_eq!(encoded(&Raw, &Bytes::from_static(b"x")), b"x");
        assert_eq!(encoded(&Raw, &"text".to_owned()), b"text");
        let no_text: Result<String, _> = Raw.decode(&[255]);
        assert!(no_text.is_err());
    }
}
