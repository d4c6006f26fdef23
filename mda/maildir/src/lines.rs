//! SMTP's CRLF becomes the LF of a file; a lone CR or LF stays as it is.

/// The conversion, fed in pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    held_cr: bool,
}

impl Lines {
    /// Appends the converted `piece` to `out`; a CR at its end waits for the next piece.
    pub(crate) fn convert(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut rest = piece;
        if self.held_cr && !rest.is_empty() {
            self.held_cr = false;
            if rest.first() != Some(&b'\n') {
                out.push(b'\r');
            }
        }
        while let Some(cr) = rest.iter().position(|&byte| byte == b'\r') {
            let (before, after) = rest.split_at(cr);
            out.extend_from_slice(before);
            match after.get(1) {
                None => {
                    self.held_cr = true;
                    return;
                }
                Some(b'\n') => {}
                Some(_) => out.push(b'\r'),
            }
            rest = after.get(1..).unwrap_or_default();
        }
        out.extend_from_slice(rest);
    }

    /// The content is over: a CR still waiting was a lone one.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.held_cr) {
            out.push(b'\r');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_at_every_chunk_border() {
        let input = b"a\r\nb\rc\n\r\r\n\r\n.\r\r\n\n\rend\r";
        let want = b"a\nb\rc\n\r\n\n.\r\n\n\rend\r";
        for first in 0..=input.len() {
            for second in first..=input.len() {
                let (mut lines, mut out) = (Lines::default(), Vec::new());
                for piece in [&input[..first], &input[first..second], &input[second..]] {
                    lines.convert(piece, &mut out);
                }
                lines.finish(&mut out);
                assert_eq!(out, want, "cut at {first} and {second}");
            }
        }
    }
}
