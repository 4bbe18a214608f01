//! The message that goes from publishers to subscribers: a station's zip code and its reading, a frame each.

use std::fmt;

use sinew::Message;

/// The digits of a zip code.
pub(crate) const ZIP_LENGTH: usize = 5;

/// A station's zip code: five digits, which bounds how many there can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Zip([u8; ZIP_LENGTH]);

impl Zip {
    pub(crate) fn new(digits: &[u8]) -> Option<Self> {
        let digits: [u8; ZIP_LENGTH] = digits.try_into().ok()?;
        digits.iter().all(u8::is_ascii_digit).then_some(Self(digits))
    }

    pub(crate) fn begins_with(&self, filter: &str) -> bool {
        self.0.starts_with(filter.as_bytes())
    }
}

impl AsRef<[u8]> for Zip {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Zip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// What a station has measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Update {
    pub(crate) zip: Zip,
    /// Each station counts its updates, from 1.
    pub(crate) number: u64,
    /// The temperature.
    pub(crate) celsius: f64,
    /// The relative humidity in per cent.
    pub(crate) humidity: f64,
}

impl From<Update> for Message {
    fn from(Update { zip, number, celsius, humidity }: Update) -> Self {
        [zip.as_ref(), format!("{number} {celsius:.1} {humidity:.0}").as_bytes()].into()
    }
}

impl Update {
    /// Reads a message; there is nothing to read in what is no update.
    pub(crate) fn read(message: &Message) -> Option<Self> {
        let [zip, reading] = message.frames() else {
            return None;
        };
        let mut fields = std::str::from_utf8(reading).ok()?.split_ascii_whitespace();
        let update = Self {
            zip: Zip::new(zip)?,
            number: fields.next()?.parse().ok()?,
            celsius: fields.next()?.parse().ok().filter(|celsius: &f64| celsius.is_finite())?,
            humidity: fields.next()?.parse().ok().filter(|humidity: &f64| humidity.is_finite())?,
        };
        fields.next().is_none().then_some(update)
    }
}
