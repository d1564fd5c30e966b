//! Objects by small number; freed numbers are used again.

#[derive(Clone, Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(n) = self.free.pop() {
            self.slots[n as usize] = Some(value);
            return n;
        }
        self.slots.push(Some(value));
        (self.slots.len() - 1) as u32
    }

    pub(crate) fn remove(&mut self, n: u32) -> Option<T> {
        let value = self.slots.get_mut(n as usize)?.take()?;
        self.free.push(n);
        Some(value)
    }

    pub(crate) fn get(&self, n: u32) -> Option<&T> {
        self.slots.get(n as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, n: u32) -> Option<&mut T> {
        self.slots.get_mut(n as usize)?.as_mut()
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;
    fn index(&self, n: u32) -> &T {
        self.get(n).expect("numbers are kept only as long as what they stand for")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, n: u32) -> &mut T {
        self.get_mut(n).expect("numbers are kept only as long as what they stand for")
    }
}
