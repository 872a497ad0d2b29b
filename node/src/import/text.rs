//! Text from a file of unknown encoding: UTF-8 where it is valid, else Windows-1252.

/// The text of one field, trimmed, control characters (a newline in a quoted field) turned into
/// spaces. A field that is not UTF-8 is read as Windows-1252, a superset of Latin-1, so the same
/// bytes always give the same text; the five bytes it leaves undefined become U+FFFD.
pub(super) fn decoded(bytes: &[u8]) -> String {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| windows_1252(*byte)).collect(),
    };
    let spaced = text.replace(char::is_control, " ");
    spaced.trim().to_owned()
}

/// `text` cut to `chars_max` characters, the last an ellipsis if anything was cut.
pub(super) fn shortened(text: String, chars_max: usize) -> String {
    if text.chars().nth(chars_max).is_none() {
        return text;
    }
    let kept = chars_max.saturating_sub(1);
    text.chars().take(kept).chain(['…']).collect()
}

fn windows_1252(byte: u8) -> char {
    match byte {
        0x80..=0x9f => {
            WINDOWS_1252_80_TO_9F.get(usize::from(byte - 0x80)).copied().unwrap_or(char::REPLACEMENT_CHARACTER)
        }
        _ => char::from(byte),
    }
}

// Source: Unicode consortium, MAPPINGS/VENDORS/MICSFT/WINDOWS/CP1252.TXT.
const WINDOWS_1252_80_TO_9F: [char; 32] = [
    '€', '\u{fffd}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{fffd}', 'Ž', '\u{fffd}', '\u{fffd}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{fffd}', 'ž', 'Ÿ',
];
