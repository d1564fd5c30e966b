//! The register file.

/// Bytes of all registers together.
pub(crate) const SIZE: usize = 64;

/// What the registers hold; nothing for bytes that are not known.
#[derive(Clone, Debug)]
pub(crate) struct Registers([Option<u8>; SIZE]);

impl Default for Registers {
    fn default() -> Self {
        Self([None; SIZE])
    }
}

impl Registers {
    /// Writes bytes; the rest of the last 4 bytes becomes zero, as in the kernel.
    pub(crate) fn put(&mut self, at: usize, bytes: &[Option<u8>]) {
        let end = at + bytes.len();
        let padded = end.next_multiple_of(4);
        for (i, slot) in self.0.iter_mut().enumerate().take(padded).skip(at) {
            *slot = bytes.get(i - at).copied().unwrap_or(Some(0));
        }
    }

    pub(crate) fn put_known(&mut self, at: usize, bytes: &[u8]) {
        let bytes: Vec<_> = bytes.iter().copied().map(Some).collect();
        self.put(at, &bytes);
    }

    /// Some bytes; zeros behind the last register.
    pub(crate) fn get(&self, at: usize, length: usize) -> Vec<Option<u8>> {
        (at..at + length).map(|i| self.0.get(i).copied().unwrap_or(Some(0))).collect()
    }

    /// The bytes, if all of them are known.
    pub(crate) fn known(&self, at: usize, length: usize) -> Option<Vec<u8>> {
        self.get(at, length).into_iter().collect()
    }
}
