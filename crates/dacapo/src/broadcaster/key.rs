//! What a broadcaster sends by: a value that has a text.

use std::borrow::Cow;
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;

/// By what a [`Broadcaster`](crate::Broadcaster) sends: texts and integers, and types of your own.
///
/// Its text, behind the broadcaster's prefix, names the topic that its messages are stored in: two keys
/// are the same if their texts are, and the text of a key must not change from one run to the next.
/// Prefix and text have 1 to 255 bytes together.
///
/// ```
/// use dacapo::{Broadcaster, Key};
///
/// struct Room {
///     building: u16,
///     name: String,
/// }
///
/// impl Key for Room {
///     fn write_to(&self, text: &mut String) {
///         self.building.write_to(text);
///         text.push('/');
///         self.name.write_to(text);
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rooms = Broadcaster::<Room, String>::temporary()?;
/// let kitchen = Room { building: 7, name: "kitchen".into() };
/// let subscription = rooms.subscribe(&kitchen)?;
/// rooms.send(&kitchen, "the kettle is on")?;
/// let message = subscription.message_blocking()?;
/// assert_eq!(subscription.key_of(&message), "7/kitchen");
/// # Ok(())
/// # }
/// ```
pub trait Key {
    /// Appends the key's text to `text`, and leaves what is there already.
    fn write_to(&self, text: &mut String);
}

impl Key for str {
    fn write_to(&self, text: &mut String) {
        text.push_str(self);
    }
}

impl Key for String {
    fn write_to(&self, text: &mut String) {
        text.push_str(self);
    }
}

impl Key for char {
    fn write_to(&self, text: &mut String) {
        text.push(*self);
    }
}

/// In decimal digits.
macro_rules! integers {
    ($($integer:ty)*) => {$(
        /// In decimal digits.
        impl Key for $integer {
            fn write_to(&self, text: &mut String) {
                write!(text, "{self}").expect("a string takes all");
            }
        }
    )*};
}

integers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

/// As what they point to.
macro_rules! pointers {
    ($($pointer:ty)*) => {$(
        impl<K: Key + ?Sized> Key for $pointer {
            fn write_to(&self, text: &mut String) {
                K::write_to(self, text);
            }
        }
    )*};
}

pointers!(&K Box<K> Rc<K> Arc<K>);

impl<K: Key + ToOwned + ?Sized> Key for Cow<'_, K> {
    fn write_to(&self, text: &mut String) {
        K::write_to(self, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(key: &(impl Key + ?Sized)) -> String {
        let mut text = "before:".to_owned();
        key.write_to(&mut text);
        text
    }

    #[test]
    fn a_key_has_a_text_whatever_holds_it() {
        assert_eq!(text("lobby"), "before:lobby");
        assert_eq!(text(&"lobby"), "before:lobby");
        assert_eq!(text(&"lobby".to_owned()), "before:lobby");
        assert_eq!(text(&Arc::<str>::from("lobby")), "before:lobby");
        assert_eq!(text(&Cow::Borrowed("lobby")), "before:lobby");
        assert_eq!(text(&Box::new('x')), "before:x");
        assert_eq!(text(&u64::MAX), "before:18446744073709551615");
        assert_eq!(text(&-7i8), "before:-7");
    }
}
