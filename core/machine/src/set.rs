//! Sets and maps as they were read.

use std::collections::BTreeMap;

use crate::table::Jump;

/// What a map has for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Bytes.
    Value(Vec<u8>),
    /// Where to go on.
    Verdict(Jump),
    /// Something that this interpreter does not know.
    Other(String),
}

/// An element as the kernel lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// The key; the first of a range.
    pub key: Vec<u8>,
    /// The last key of a range, where a set of joined fields has ranges.
    pub last: Option<Vec<u8>>,
    /// It is not an element, but the first key behind a range.
    pub ends: bool,
    /// It stands for every key that no other element has.
    pub rest: bool,
    /// What a map has for it.
    pub data: Option<Data>,
}

/// A set or a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Bytes of a key.
    pub key_length: usize,
    /// Bytes of each field, where keys are of several fields.
    pub fields: Vec<usize>,
    /// Elements are ranges.
    pub interval: bool,
    /// By key; of two at one key the one that begins a range counts.
    sorted: BTreeMap<Vec<u8>, Element>,
    /// Ranges of joined fields.
    boxes: Vec<Element>,
    rest: Option<Element>,
}

impl Set {
    /// An empty one: bytes of a key, bytes of each field where keys are of several with ranges, and
    /// whether elements are ranges.
    pub fn new(key_length: usize, fields: Vec<usize>, interval: bool) -> Self {
        Self { key_length, fields, interval, ..Self::default() }
    }

    /// Takes an element in.
    pub fn add(&mut self, element: Element) {
        if element.rest {
            self.rest = Some(element);
        } else if element.last.is_some() {
            self.boxes.push(element);
        } else if !element.ends || !self.sorted.contains_key(&element.key) {
            self.sorted.insert(element.key.clone(), element);
        }
    }

    /// How many elements it has; a range counts twice where it has an end.
    pub fn len(&self) -> usize {
        self.sorted.len() + self.boxes.len() + usize::from(self.rest.is_some())
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element that a key falls into.
    pub fn find(&self, key: &[u8]) -> Option<&Element> {
        let one = if self.interval && self.fields.is_empty() {
            let below = self
                .sorted
                .range::<[u8], _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(key)));
            below.map(|(_, e)| e).next_back().filter(|e| !e.ends)
        } else {
            self.sorted.get(key)
        };
        let within = || self.boxes.iter().find(|e| self.is_within(e, key));
        one.or_else(within).or(self.rest.as_ref())
    }

    /// Whether some key could be in it of which not all bytes are known.
    pub fn may_have(&self, key: &[Option<u8>]) -> bool {
        if self.interval || self.rest.is_some() {
            return !self.is_empty();
        }
        let fits = |e: &Element| key.iter().zip(&e.key).all(|(k, e)| k.is_none_or(|k| k == *e));
        self.sorted.values().any(fits)
    }

    /// Whether each field is in its range; fields begin at multiples of 4 bytes.
    fn is_within(&self, element: &Element, key: &[u8]) -> bool {
        let Some(last) = &element.last else { return false };
        let mut at = 0;
        let whole = [key.len()];
        let fields = if self.fields.is_empty() { &whole[..] } else { &self.fields };
        fields.iter().all(|length| {
            let field = at..at + length;
            at += length.next_multiple_of(4);
            let part = |of: &[u8]| of.get(field.clone()).map(<[u8]>::to_vec);
            let value = part(key);
            value.is_some() && part(&element.key) <= value && value <= part(last)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(key: &[u8]) -> Element {
        Element { key: key.to_vec(), ..Element::default() }
    }

    fn end(key: &[u8]) -> Element {
        Element { ends: true, ..start(key) }
    }

    #[test]
    fn ranges_end_where_they_end() {
        let mut set = Set { key_length: 1, interval: true, ..Set::default() };
        // 3..=4, 5..=8 (adjacent, told in either order), 250 to the last.
        for element in [end(&[5]), start(&[3]), start(&[5]), end(&[5]), end(&[9]), start(&[250])] {
            set.add(element);
        }
        let within: Vec<u8> = (0..=255).filter(|k| set.find(&[*k]).is_some()).collect();
        assert_eq!(within, [3, 4, 5, 6, 7, 8, 250, 251, 252, 253, 254, 255]);
    }

    #[test]
    fn boxes_are_ranges_of_each_field() {
        let mut set = Set { key_length: 8, fields: vec![4, 2], interval: true, ..Set::default() };
        set.add(Element {
            last: Some(vec![10, 0, 0, 9, 0, 90, 0, 0]),
            ..start(&[10, 0, 0, 1, 0, 80, 0, 0])
        });
        assert!(set.find(&[10, 0, 0, 5, 0, 85, 0, 0]).is_some());
        assert!(set.find(&[10, 0, 0, 5, 0, 91, 0, 0]).is_none());
        assert!(set.find(&[10, 0, 0, 10, 0, 85, 0, 0]).is_none());
    }

    #[test]
    fn the_rest_is_what_no_other_has() {
        let mut set = Set { key_length: 1, ..Set::default() };
        set.add(Element { data: Some(Data::Verdict(Jump::Accept)), ..start(&[1]) });
        set.add(Element { rest: true, data: Some(Data::Verdict(Jump::Drop)), ..start(&[]) });
        assert_eq!(set.find(&[1]).unwrap().data, Some(Data::Verdict(Jump::Accept)));
        assert_eq!(set.find(&[2]).unwrap().data, Some(Data::Verdict(Jump::Drop)));
    }
}
