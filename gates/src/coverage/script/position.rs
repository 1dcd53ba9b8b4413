//! What may come next: an operand or an operator, a statement or a value.

use super::lexer::{Bracket, Frame, Lexer, Token, TokenKind};

impl Lexer<'_> {
    /// The token `back` places before the next one: 1 is the previous token.
    fn before(&self, back: usize) -> Option<&Token> {
        self.lexed.tokens.len().checked_sub(back).and_then(|at| self.lexed.tokens.get(at))
    }

    fn text_before(&self, back: usize) -> &str {
        self.before(back).map_or("", |token| token.text(self.text))
    }

    /// Whether an operand comes after this word.
    pub(super) fn expects_operand(&self, word: &str) -> bool {
        if matches!(self.text_before(1), "." | "?.") {
            return false;
        }
        match word {
            "return" | "typeof" | "case" | "in" | "delete" | "throw" | "new" | "else" | "do" | "await" | "yield"
            | "default" | "instanceof" => true,
            "of" => self.open.last().is_some_and(|frame| frame.bracket == Bracket::Paren { header: true }),
            // `): void {` is a type.
            "void" => {
                !(matches!(self.text_before(1), ":" | "|" | "<" | "=>") && self.text_before(2) == ")")
                    && self.text_before(1) != "=>"
            }
            _ => false,
        }
    }

    /// Whether the parenthesis that starts here belongs to `if`, `for`, `for await`, `while` or `with`.
    pub(super) fn after_header_word(&self) -> bool {
        let (word, before) = match (self.text_before(2), self.text_before(1)) {
            ("for", "await") => ("for", 3),
            (_, word) => (word, 2),
        };
        matches!(word, "if" | "for" | "while" | "with") && !matches!(self.text_before(before), "." | "?.")
    }

    pub(super) fn operator(&mut self) {
        const LONG: [&str; 8] = ["=>", "?.", "...", "++", "--", "??", "&&", "||"];
        let (start, rest) = (self.at, self.rest());
        let length = LONG.iter().find(|long| rest.starts_with(**long)).map_or(1, |long| long.len());
        self.at += length;
        let operator = self.text.get(start..self.at).unwrap_or_default();
        let postfix = match operator {
            "++" | "--" => !self.operand,
            // `a! / b`, but not `a != b`.
            "!" => !self.operand && self.byte(0) != Some(b'='),
            _ => false,
        };
        if let Some(frame) = self.open.last_mut() {
            match operator {
                "?" => frame.ternaries += 1,
                ":" if frame.ternaries > 0 => frame.ternaries -= 1,
                _ => {}
            }
        }
        self.push(TokenKind::Operator, start, self.line);
        self.operand = !postfix;
    }

    /// What the brace that starts here contains.
    pub(super) fn brace(&mut self) -> Bracket {
        let Some(previous) = self.before(1).copied() else { return Bracket::Block };
        match previous.kind {
            TokenKind::Close(Bracket::Paren { .. }) => self.body(&previous),
            TokenKind::Semicolon
            | TokenKind::Close(_)
            | TokenKind::Literal
            | TokenKind::Open(Bracket::Block | Bracket::Arrow) => Bracket::Block,
            TokenKind::Open(_) | TokenKind::Comma => Bracket::Value,
            TokenKind::Word if matches!(self.text_before(1), "else" | "do") => Bracket::Block,
            TokenKind::Word if self.operand => Bracket::Value,
            TokenKind::Word => Bracket::Block,
            TokenKind::Operator => match self.text_before(1) {
                "=>" => Bracket::Arrow,
                // A return type such as `Promise<void>`.
                ">" => Bracket::Block,
                ":" => self.after_colon(),
                _ => Bracket::Value,
            },
        }
    }

    /// `case x: {` and `label: {` are blocks, everything else is an object or its type.
    fn after_colon(&mut self) -> Bracket {
        let label = self.before(2).is_some_and(|token| token.kind == TokenKind::Word)
            && self.before(3).is_none_or(|token| {
                matches!(
                    token.kind,
                    TokenKind::Semicolon | TokenKind::Close(Bracket::Block) | TokenKind::Open(Bracket::Block)
                )
            });
        match self.open.last_mut() {
            Some(frame) if frame.case => {
                frame.case = false;
                Bracket::Block
            }
            Some(Frame { bracket: Bracket::Value, .. }) => Bracket::Value,
            _ if label => Bracket::Block,
            _ => Bracket::Value,
        }
    }

    /// The brace after parameters or a condition. A function expression is a value, unless a statement starts with it.
    fn body(&self, closed: &Token) -> Bracket {
        let tokens = &self.lexed.tokens;
        let mut at = closed.partner;
        let word = |at: usize| tokens.get(at).map_or("", |token| token.text(self.text));
        // `function (`, `function name(`, `function* name(`
        for _ in 0..3 {
            let Some(before) = at.checked_sub(1) else { return Bracket::Block };
            at = before;
            if word(at) == "function" {
                let at = if at > 0 && word(at - 1) == "async" { at - 1 } else { at };
                return match at.checked_sub(1).and_then(|before| tokens.get(before)) {
                    Some(Token { kind: TokenKind::Operator | TokenKind::Comma, .. }) => Bracket::Value,
                    Some(Token { kind: TokenKind::Open(bracket), .. })
                        if *bracket != Bracket::Block && *bracket != Bracket::Arrow =>
                    {
                        Bracket::Value
                    }
                    Some(token)
                        if matches!(
                            token.text(self.text),
                            "return" | "new" | "typeof" | "void" | "await" | "yield"
                        ) =>
                    {
                        Bracket::Value
                    }
                    _ => Bracket::Block,
                };
            }
        }
        Bracket::Block
    }
}
