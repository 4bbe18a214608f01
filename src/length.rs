//! How many bytes of a small body's window are in use.

macro_rules! lengths {
    ($($name:ident = $value:literal),+ $(,)?) => {
        /// From 0 to 64, in a word. All other values of the word are free, and the compiler tells a small body from a large one by
        /// them: a number would need a tag beside it.
        #[derive(Clone, Copy)]
        #[repr(u64)]
        pub(crate) enum Length {
            $($name = $value),+
        }

        impl Length {
            /// `None` if so many bytes do not fit.
            #[inline]
            pub(crate) fn new(length: usize) -> Option<Self> {
                match length {
                    $($value => Some(Self::$name),)+
                    _ => None,
                }
            }

            #[inline]
            pub(crate) fn get(self) -> usize {
                self as usize
            }
        }
    };
}

lengths! {
    L0 = 0, L1 = 1, L2 = 2, L3 = 3, L4 = 4, L5 = 5, L6 = 6, L7 = 7, L8 = 8, L9 = 9, L10 = 10, L11 = 11, L12 = 12, L13 = 13,
    L14 = 14, L15 = 15, L16 = 16, L17 = 17, L18 = 18, L19 = 19, L20 = 20, L21 = 21, L22 = 22, L23 = 23, L24 = 24, L25 = 25,
    L26 = 26, L27 = 27, L28 = 28, L29 = 29, L30 = 30, L31 = 31, L32 = 32, L33 = 33, L34 = 34, L35 = 35, L36 = 36, L37 = 37,
    L38 = 38, L39 = 39, L40 = 40, L41 = 41, L42 = 42, L43 = 43, L44 = 44, L45 = 45, L46 = 46, L47 = 47, L48 = 48, L49 = 49,
    L50 = 50, L51 = 51, L52 = 52, L53 = 53, L54 = 54, L55 = 55, L56 = 56, L57 = 57, L58 = 58, L59 = 59, L60 = 60, L61 = 61,
    L62 = 62, L63 = 63, L64 = 64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::INLINE_SIZE;

    #[test]
    fn what_fits_has_a_length() {
        let known = |length| Length::new(length).map(Length::get);
        assert!((0..=INLINE_SIZE).all(|length| known(length) == Some(length)));
        assert_eq!(known(INLINE_SIZE + 1), None);
        assert_eq!(known(usize::MAX), None);
    }
}
