//! Globs as git's `wildmatch` has them, with `/` matched by nothing but itself and `**`.

/// What a pattern matches; the frequent kinds need no glob.
#[derive(Debug)]
pub(crate) enum Shape {
    Exact(Box<[u8]>),
    Ending(Box<[u8]>),    // `*.o`, of a name
    Beginning(Box<[u8]>), // `.nfs*`, of a name
    Holding(Box<[u8]>),   // `*_jb_*`, of a name
    Glob {
        tokens: Box<[Token]>,
        least: usize,
        tail: usize,
    },
}

impl Shape {
    /// The shape of a glob; `None` if it is broken.
    pub(crate) fn of(glob: &[u8], by_name: bool) -> Option<Self> {
        if !glob.iter().any(|&b| is_special(b)) {
            return Some(Self::Exact(glob.into()));
        }
        let tokens = tokens(glob)?;
        let literal = |tokens: &[Token]| {
            let bytes = tokens.iter().map(|token| match token {
                Token::Byte(byte) => Some(*byte),
                _ => None,
            });
            bytes.collect::<Option<Box<[u8]>>>()
        };
        let simple = match &*tokens {
            [Token::Star, rest @ .., Token::Star] if !rest.is_empty() => {
                literal(rest).map(Self::Holding)
            }
            [Token::Star | Token::Deep, rest @ ..] => literal(rest).map(Self::Ending),
            [rest @ .., Token::Star | Token::Deep] => literal(rest).map(Self::Beginning),
            _ => None,
        };
        if let Some(shape) = simple.filter(|_| by_name) {
            return Some(shape);
        }
        Some(match literal(&tokens) {
            Some(bytes) => Self::Exact(bytes),
            None => Self::Glob {
                least: tokens.iter().filter(|token| token.is_byte()).count(),
                tail: tokens
                    .iter()
                    .rev()
                    .take_while(|token| token.is_byte())
                    .count(),
                tokens: tokens.into(),
            },
        })
    }

    /// Whether the whole `text` matches.
    #[inline]
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(bytes) => text == &**bytes,
            Self::Ending(bytes) => text.ends_with(bytes),
            Self::Beginning(bytes) => text.starts_with(bytes),
            Self::Holding(bytes) => text.windows(bytes.len()).any(|part| *part == **bytes),
            Self::Glob {
                tokens,
                least,
                tail,
            } => {
                // Most names fail at once, at their end.
                let ends = tokens.iter().rev().take(*tail).zip(text.iter().rev());
                text.len() >= *least
                    && ends.into_iter().all(|(token, &byte)| token.takes(byte))
                    && matches(tokens, text)
            }
        }
    }

    /// Whether a text that matches may end in `byte`.
    pub(crate) fn may_end_in(&self, byte: u8) -> bool {
        match self {
            Self::Exact(bytes) | Self::Ending(bytes) => {
                bytes.last().is_none_or(|&last| last == byte)
            }
            Self::Beginning(_) | Self::Holding(_) => true,
            Self::Glob { tokens, .. } => tokens
                .last()
                .is_none_or(|last| !last.is_byte() || last.takes(byte)),
        }
    }
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[' | b'\\')
}

/// A piece of a glob.
#[derive(Debug)]
pub(crate) enum Token {
    Byte(u8),
    Set(Box<Set>), // one byte of these
    Star,          // `*`
    Deep,          // `**` at the end
    DeepDir,       // `**/`
}

impl Token {
    /// Whether it stands for exactly one byte.
    fn is_byte(&self) -> bool {
        matches!(self, Self::Byte(_) | Self::Set(_))
    }

    /// Whether it stands for this one.
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Byte(want) => *want == byte,
            Self::Set(set) => set.has(byte),
            _ => false,
        }
    }
}

/// A set of bytes without `/`.
#[derive(Debug, Clone)]
pub(crate) struct Set([u64; 4]);

impl Set {
    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    fn add(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    /// This set, or all that is not in it; never with `/`.
    fn finish(mut self, negated: bool) -> Token {
        if negated {
            self.0 = self.0.map(|bits| !bits);
        }
        self.0[usize::from(b'/' >> 6)] &= !(1 << (b'/' & 63));
        Token::Set(Box::new(self))
    }
}

/// The pieces of a glob; `None` if it is broken (git then matches nothing with it).
fn tokens(glob: &[u8]) -> Option<Vec<Token>> {
    // The literal beginning is compared apart, so what follows it is a beginning, too.
    let start = glob
        .iter()
        .position(|&b| is_special(b))
        .unwrap_or(glob.len());
    let mut tokens: Vec<Token> = glob[..start].iter().map(|&b| Token::Byte(b)).collect();
    let mut at = start;
    while let Some(&byte) = glob.get(at) {
        at += 1;
        match byte {
            b'*' => {
                let opened = at - 1 == start || glob[at - 2] == b'/';
                let stars = at;
                at += glob[at..].iter().take_while(|&&b| b == b'*').count();
                tokens.push(match &glob[at..] {
                    _ if at == stars || !opened => Token::Star,
                    [b'/', ..] => {
                        at += 1;
                        Token::DeepDir
                    }
                    [] | [b'\\', b'/', ..] => Token::Deep,
                    _ => Token::Star,
                });
            }
            b'?' => tokens.push(Set([0; 4]).finish(true)),
            b'[' => {
                let (token, end) = bracket(glob, at)?;
                tokens.push(token);
                at = end;
            }
            b'\\' => {
                tokens.push(Token::Byte(*glob.get(at)?));
                at += 1;
            }
            byte => tokens.push(Token::Byte(byte)),
        }
    }
    Some(tokens)
}

/// The set of a bracket whose inside starts at `at`, and where it ends.
fn bracket(glob: &[u8], mut at: usize) -> Option<(Token, usize)> {
    let negated = matches!(glob.get(at)?, b'!' | b'^');
    if negated {
        at += 1;
    }
    let mut set = Set([0; 4]);
    let mut before = None; // the byte that may begin a range
    let mut byte = *glob.get(at)?; // the first may be a `]` that closes nothing
    loop {
        at += 1;
        match (byte, before, glob.get(at)) {
            (b'-', Some(low), Some(&next)) if next != b']' => {
                at += 1;
                let mut high = next;
                if next == b'\\' {
                    high = *glob.get(at)?;
                    at += 1;
                }
                (low..=high).for_each(|byte| set.add(byte));
                before = None;
            }
            (b'[', _, Some(b':')) => {
                let inside = &glob[at + 1..];
                let end = inside.iter().position(|&b| b == b']')?;
                if let Some((b':', class)) = inside[..end].split_last() {
                    let class = class_of(class)?;
                    (0..128).filter(class).for_each(|byte| set.add(byte));
                    at += end + 2;
                    before = None;
                } else {
                    set.add(byte);
                    before = Some(byte);
                }
            }
            _ => {
                if byte == b'\\' {
                    byte = *glob.get(at)?;
                    at += 1;
                }
                set.add(byte);
                before = Some(byte);
            }
        }
        byte = *glob.get(at)?;
        if byte == b']' {
            return Some((set.finish(negated), at + 1));
        }
    }
}

/// A POSIX class as git has it.
fn class_of(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |&b| b == b' ' || b == b'\t',
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |&b| b == b' ' || b.is_ascii_graphic(),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |&b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

/// Whether the whole `text` matches.
///
/// Only the last star and the last deep star are ever tried again: what stands before them was found
/// leftmost, and a later place could only leave them less room.
fn matches(tokens: &[Token], text: &[u8]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut star: Option<(usize, usize)> = None; // (token after it, where that was tried)
    let mut deep: Option<(usize, usize)> = None;
    loop {
        let ok = match tokens.get(token) {
            None if at == text.len() => return true,
            None => false,
            Some(Token::Star) => {
                star = Some((token + 1, at));
                true
            }
            Some(Token::Deep | Token::DeepDir) => {
                (deep, star) = (Some((token + 1, at)), None);
                true
            }
            Some(one) => {
                let Some(&byte) = text.get(at) else {
                    return false; // any other try leaves still less
                };
                at += 1;
                one.takes(byte)
            }
        };
        if ok {
            token += 1;
        } else if let Some((after, tried)) =
            star.filter(|&(_, tried)| text.get(tried).is_some_and(|&b| b != b'/'))
        {
            star = Some((after, tried + 1));
            (token, at) = (after, tried + 1);
        } else if let Some((after, tried)) = deep {
            let Some(rest) = text.get(tried..) else {
                return false;
            };
            let step = match tokens.get(after - 1) {
                Some(Token::DeepDir) => rest.iter().position(|&b| b == b'/'),
                _ => (!rest.is_empty()).then_some(0),
            };
            let Some(step) = step else {
                return false;
            };
            (deep, star) = (Some((after, tried + step + 1)), None);
            (token, at) = (after, tried + step + 1);
        } else {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(pattern: &str, text: &str) -> bool {
        tokens(pattern.as_bytes()).is_some_and(|tokens| matches(&tokens, text.as_bytes()))
    }

    #[test]
    fn globs() {
        let table = [
            ("a*b/**/c", "axb/x/y/c", true),
            ("a*b/**/c", "axb/c", true),
            ("a*b/**/c", "a/b/c", false),
            ("a**/b", "a/x/b", true), // an oddity of git
            ("a?c", "a/c", false),
            ("[a-c]*[!x]", "bxxxy", true),
            ("[a-c]*[!x]", "bxxxx", false),
            ("[]-]", "]", true),
            ("[]-]", "-", true),
            ("[[:alpha:][:digit:]]", "7", true),
            ("[[:nope:]]", "n", false),
            ("[/]", "/", false),
            ("a\\", "a", false),
            ("**/*.c/**", "x/y.c/z", true),
            ("**/*.c/**", "y.c", false),
        ];
        for (pattern, text, want) in table {
            assert_eq!(glob(pattern, text), want, "{pattern} on {text}");
        }
    }

    #[test]
    fn hostile_patterns_take_no_time() {
        let text = "a".repeat(200) + "/" + &"a".repeat(200);
        assert!(!glob(&("*a".repeat(50) + "b"), &text));
        assert!(!glob(&("**/*a".repeat(50) + "b"), &text));
    }
}
