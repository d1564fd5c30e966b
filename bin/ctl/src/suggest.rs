//! What somebody may have meant who made a typing error.

/// The word that is closest to `typed`, if one is close: letters left out, added, changed or swapped.
pub(crate) fn closest<'a>(
    typed: &str,
    words: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    // In a short word every letter counts.
    let most = typed.chars().count().div_ceil(4).clamp(1, 3);
    let near = words.into_iter().map(|word| (distance(&typed, &word.to_lowercase()), word));
    near.filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// How many letters must be changed, where two neighbours that are swapped count as one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_understood() {
        let words =
            ["ippools", "ippool", "globalnetworkpolicies", "networkpolicies", "tiers", "hep"];
        for (typed, meant) in [
            ("ipool", Some("ippool")),
            ("IPPOLS", Some("ippools")),
            ("globalnetworkpolices", Some("globalnetworkpolicies")),
            ("netwrokpolicies", Some("networkpolicies")),
            ("tires", Some("tiers")),
            ("hpe", Some("hep")),
            ("pods", None),
            ("xyz", None),
            ("", None),
        ] {
            assert_eq!(closest(typed, words), meant, "{typed}");
        }
    }
}
